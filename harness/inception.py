"""The Inception-v3 of FID (TensorFlow's, of 2015) by torch-fidelity, with the map of sFID.

torch-fidelity's port resizes as that TensorFlow graph does (bilinear, no antialiasing) and keeps
its average and max pooling, so its features are those of the published figures.
"""

import io
from pathlib import Path

import torch
from torch import nn
from torch_fidelity.utils import create_feature_extractor

SPATIAL_CHANNELS = 7  # of 192; 17 * 17 * 7 = 2023 numbers, about as many as the 2048 of FID


class Inception(nn.Module):
    """torch-fidelity's `inception-v3-compat`, seen in the three ways that metrics need."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """What Inception sees in images uint8 `[B, 1 or 3, h, w]` of any size.

        Returns:
            float32 `features` `[B, 2048]` (the last average pooling), `logits` `[B, 1008]` without
            the bias, as the inception score has always been taken, and `spatial` `[B, 2023]`: the
            first 7 channels of the 17x17 map that ADM's evaluator calls `mixed_6/conv:0` (the 1x1
            branch of Mixed_6d, after batch norm and ReLU), flattened as there in the order (row,
            column, channel). sFID is due to Nash et al. 2021 (arXiv:2103.03841), the choice of
            layer to the evaluator of Dhariwal and Nichol 2021 (arXiv:2105.05233).
        """
        kept: list[torch.Tensor] = []
        branch = self.network.get_submodule("Mixed_6d.branch1x1")
        hook = branch.register_forward_hook(lambda _module, _given, output: kept.append(output))
        try:
            features, logits = self.network(images.expand(-1, 3, -1, -1))
        finally:
            hook.remove()
        spatial = kept[0][:, :SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)  # [B, 17 * 17 * 7]
        return {"features": features, "logits": logits, "spatial": spatial}


def load(path: Path) -> Inception:
    """The network with the weights of `path`, on the CPU, frozen and in eval mode.

    Raises:
        Exception: whatever torch says of a file that is damaged or holds other weights.
    """
    # torch-fidelity unpickles in the way that runs code of the file's choosing. What it gets is
    # therefore a copy in memory of the plain tensors that torch's restricted reader found.
    plain = io.BytesIO()
    torch.save(torch.load(path, map_location="cpu", weights_only=True), plain)
    plain.seek(0)
    network = create_feature_extractor(
        "inception-v3-compat",
        ["2048", "logits_unbiased"],
        cuda=False,
        verbose=False,
        feature_extractor_weights_path=plain,
    )
    return Inception(network).eval()
