"""Features and class logits of images, by one of the named extractors.

`fashion-cnn` is also made known to torch-fidelity, so that
`torch_fidelity.calculate_metrics(feature_extractor="fashion-cnn", ...)` works after this import.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch_fidelity import register_feature_extractor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from harness import extractors, fashion_cnn


@dataclass(frozen=True)
class Features:
    """What an extractor sees in N images, float32 on the CPU."""

    features: torch.Tensor  # [N, D]: for Fréchet distance, precision and recall
    logits: torch.Tensor  # [N, K]: for the inception score


def _fashion_cnn() -> nn.Module:
    extractors.weights_sha256("fashion-cnn")  # for its message where the file is missing
    return fashion_cnn.load(extractors.facts("fashion-cnn").weights)


# Each entry makes a frozen module in eval mode that maps uint8 [B, 1 or 3, h, w] to a pair of
# float32 (features [B, D], logits [B, K]). torch-fidelity's own extractors fit as they are, when
# asked for two layers: create_feature_extractor("inception-v3-compat", ["2048", "logits_unbiased"],
# feature_extractor_weights_path=...) needs only its one channel repeated to three.
EXTRACTORS: dict[str, Callable[[], nn.Module]] = {
    "fashion-cnn": _fashion_cnn,
}


def extract(
    name: str, images: torch.Tensor, batch: int = 256, device: torch.device | str = "cpu"
) -> Features:
    """Features of images uint8 `[N, 1 or 3, h, w]` of any one size, `batch` at a time on `device`.

    Raises:
        extractors.ExtractorError: no such extractor, or its weights are missing.
        ValueError: the images are not uint8, not of this shape, or none.
    """
    extractors.facts(name)
    if images.dtype != torch.uint8:
        raise ValueError(f"images are {images.dtype}, expected uint8 (0..255)")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"images have shape {list(images.shape)}, expected [N >= 1, 1 or 3, h, w]")
    model = EXTRACTORS[name]().to(device)
    parts = []
    # TF32 convolutions would move a distance in its third digit from one GPU to another.
    exact = torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), exact:
        for part in images.split(batch):
            features, logits = model(part.to(device))
            parts.append((features.float().cpu(), logits.float().cpu()))
    # Joined outside inference mode: a tensor born in it refuses later use under autograd.
    return Features(*(torch.cat(column) for column in zip(*parts, strict=True)))


class FashionCNNExtractor(FeatureExtractorBase):
    """The same classifier in the form that torch-fidelity calls."""

    def __init__(
        self,
        name: str,
        features_list: list[str],
        feature_extractor_weights_path: str | None = None,
        **_: Any,
    ) -> None:
        super().__init__(name, features_list)
        path = feature_extractor_weights_path or extractors.facts("fashion-cnn").weights
        self.model = fashion_cnn.load(Path(path))

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """The layers that can be asked for."""
        return ("features", "logits")

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """The layer that `metric` (isc, fid, kid or prc) uses."""
        return {"isc": "logits", "fid": "features", "kid": "features", "prc": "features"}[metric]

    @staticmethod
    def can_be_compiled() -> bool:
        """torch.compile gains nothing on a model this small."""
        return False

    def forward(self, input: torch.Tensor) -> tuple[torch.Tensor, ...]:  # noqa: A002  # their name
        """Images uint8 `[B, 1 or 3, h, w]` to the requested layers, in the order asked for."""
        features, logits = self.model(input)
        return tuple(
            {"features": features, "logits": logits}[layer] for layer in self.features_list
        )


# torch-fidelity refuses a name twice, and a module can be imported again (a reload, a notebook).
if "fashion-cnn" not in FEATURE_EXTRACTORS_REGISTRY:
    register_feature_extractor("fashion-cnn", FashionCNNExtractor)
