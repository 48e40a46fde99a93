"""What the named extractors see in images.

`fashion-cnn` is also made known to torch-fidelity, so that
`torch_fidelity.calculate_metrics(feature_extractor="fashion-cnn", ...)` works after this import.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch_fidelity import register_feature_extractor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

from harness import dinov2, extractors, inception, small_cnn
from harness.errors import UserError, got, short
from harness.patches import crops

# Each makes, from its weights file, a frozen module in eval mode that maps uint8 [B, 1 or 3, h, w]
# to a dict of float32 `features` [B, D] and, where it has them, `logits` [B, K] and `spatial`
# [B, S].
LOADERS: dict[str, Callable[[Path], nn.Module]] = {
    "fashion-cnn": small_cnn.load,
    "glyph-cnn": small_cnn.load,
    "inception-v3-compat": inception.load,
    "dinov2": dinov2.load,
}


def load(name: str, device: torch.device | str = "cpu") -> nn.Module:
    """The extractor `name` on `device`, frozen and in eval mode, its weights checked.

    Raises:
        extractors.ExtractorError: no such extractor, or its weights are missing, not the
            published ones, or damaged.
    """
    found = extractors.weights_sha256(name)  # refuses a missing or another file before it is opened
    path = extractors.weights_file(name)
    try:
        model = LOADERS[name](path)
    except Exception as error:  # a damaged file makes the readers raise whatever they like
        raise extractors.ExtractorError(
            f"{path} (sha256 {found[:16]}...) does not hold the weights of {name}: "
            f"{short(str(error))}; {extractors.remedy(name)}"
        ) from error
    # On a CPU, convolutions are faster in this layout (Inception 1.7 times) and, but for rounding,
    # the same.
    layout = torch.channels_last if torch.device(device).type == "cpu" else torch.preserve_format
    return model.to(device).to(memory_format=layout)


def device_named(name: str) -> torch.device:
    """The device that a command was given; "auto" is CUDA where there is a GPU, else the CPU.

    Raises:
        UserError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {got(name)}: cannot be used here: {short(str(error))}") from None


def see(
    model: nn.Module,
    images: torch.Tensor,
    patch: int | None = None,
    first: int = 0,
    batch: int = 64,
) -> dict[str, torch.Tensor]:
    """What `model` sees in images, `batch` at a time on the device where it is.

    An image's row depends on no other image; where the batches are cut can move it within the
    rounding of float32 (a library picks its kernels by the shape), the same cut repeats bit for
    bit on one machine.

    Args:
        model: from `load`.
        images: uint8 `[N, 1 or 3, h, w]`; grey counts as three equal channels.
        patch: side, in pixels, of the random crop of each image that is also looked at.
        first: the images are number first, first + 1, ... of their set: the crop of an image is a
            function of its number.

    Returns:
        float32 on the CPU: `features` `[N, D]`; `logits` `[N, K]` and `spatial` `[N, S]` where the
        extractor has them; `patch` `[N, D]`, the features of the crops, where asked for.

    Raises:
        ValueError: the images are not uint8, not of this shape, or none; crops larger than they.
    """
    if images.dtype != torch.uint8:
        raise ValueError(f"images are {images.dtype}, expected uint8 (0..255)")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"images have shape {list(images.shape)}, expected [N >= 1, 1 or 3, h, w]")
    device = next(model.parameters()).device
    parts: list[dict[str, torch.Tensor]] = []
    # TF32 convolutions would move a distance in its third digit from one GPU to another.
    exact = torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), exact:
        for start in range(0, len(images), batch):
            part = images[start : start + batch].to(device)
            seen = model(part)
            if patch is not None:
                seen["patch"] = model(crops(part, first + start, patch))["features"]
            parts.append({view: values.float().cpu() for view, values in seen.items()})
    # Joined outside inference mode: a tensor born in it refuses later use under autograd.
    return {view: torch.cat([part[view] for part in parts]) for view in parts[0]}


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
        path = feature_extractor_weights_path or extractors.weights_file("fashion-cnn")
        self.model = small_cnn.load(Path(path))

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
        seen = self.model(input)
        return tuple(seen[layer] for layer in self.features_list)


# torch-fidelity refuses a name twice, and a module can be imported again (a reload, a notebook).
if "fashion-cnn" not in FEATURE_EXTRACTORS_REGISTRY:
    register_feature_extractor("fashion-cnn", FashionCNNExtractor)
