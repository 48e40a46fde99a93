"""DINOv2 (Oquab et al. 2023, arXiv:2304.07193): a Fréchet distance that agrees better with people.

Stein et al. 2023 (arXiv:2306.04675) propose its ViT-L/14 in the place of Inception. Here images are
prepared as in EDM2's evaluator (Karras et al. 2024, arXiv:2312.02696, `fd_dinov2`). The weights
are Meta's own file; the network is timm's, which computes the same from them, but for one thing
that is done here: timm resamples the position embedding in another way than Meta.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

SIDE = 224  # pixels: 16 x 16 patches of 14
PATCH = 14
OFFSET = 0.1  # Meta's addition to the number of patches, against rounding down in the division
MEAN = (0.485, 0.456, 0.406)  # of ImageNet's channels, on the scale 0..1
STD = (0.229, 0.224, 0.225)


class DinoV2(nn.Module):
    """A DINOv2 network with its own preparation of images."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images uint8 `[B, 1 or 3, h, w]` of any size to float32 `features` `[B, 1024]`.

        Resized to 224x224 by torch's bicubic interpolation with antialiasing (which may overshoot
        0..255 a little; it is left, as in EDM2), normalised by ImageNet's mean and standard
        deviation; the features are the class token after the last norm.
        """
        x = images.expand(-1, 3, -1, -1).float()
        x = F.interpolate(x, (SIDE, SIDE), mode="bicubic", antialias=True)
        return {"features": self.network((x / 255 - self.mean) / self.std)}


def load(path: Path, width: int = 1024, depth: int = 24, heads: int = 16) -> DinoV2:
    """The network with Meta's weights in `path`, on the CPU, frozen and in eval mode.

    Width, depth and heads are those of ViT-L/14 unless said otherwise.

    Raises:
        Exception: whatever torch says of a file that is damaged or holds other weights.
    """
    # timm can also download by itself; this class of it cannot, and the name of no model is given.
    from timm.models.vision_transformer import VisionTransformer

    weights = torch.load(path, map_location="cpu", weights_only=True)
    weights.pop("mask_token", None)  # for training only
    weights["pos_embed"] = resampled(weights["pos_embed"], SIDE // PATCH)
    # On the meta device no time goes into initial weights that are about to be replaced.
    with torch.device("meta"):
        network = VisionTransformer(
            img_size=SIDE,
            patch_size=PATCH,
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            init_values=1.0,  # there are layer scales; their values are in the file
            num_classes=0,
        )
    network.load_state_dict(weights, assign=True)
    return DinoV2(network).float().eval().requires_grad_(False)


def resampled(embedding: torch.Tensor, grid: int) -> torch.Tensor:
    """A position embedding `[1, 1 + n * n, D]` for `grid` x `grid` patches: `[1, 1 + grid^2, D]`.

    As Meta's `interpolate_pos_encoding` does it: bicubic (a = -0.75), no antialiasing, at the
    scale (grid + 0.1) / n, so that patch i looks at (i + 0.5) * n / (grid + 0.1) - 0.5. The class
    token's is not touched.
    """
    token, patches = embedding[:, :1].float(), embedding[:, 1:].float()
    side = round(patches.shape[1] ** 0.5)
    if side == grid:
        return embedding
    patches = patches.unflatten(1, (side, side)).permute(0, 3, 1, 2)  # [1, D, n, n]
    scale = (grid + OFFSET) / side
    patches = F.interpolate(patches, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([token, patches.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)
