"""A class-conditional diffusion transformer for images of any height and width.

DiT with adaLN-Zero (Peebles & Xie 2023, arXiv 2212.09748). Everything a method decides about
positions arrives as a `Geometry`, so the same weights serve every range, placement and law.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from models.encodings.rope import angles, rotation
from models.encodings.sincos import sincos
from models.geometry import Geometry
from models.layers import Block, FinalLayer, MicroEmbedding, TimestepEmbedding
from models.names import ENCODINGS, require


class DiT(nn.Module):
    """Predicts a field of the image's own shape from a noisy image, its time and its class.

    channels of the image; classes without the null label, whose index is `classes`; width, depth,
    heads and mlp_ratio of the transformer; patch, the side of a token in pixels. Weights come from
    torch's current generator, the same ones whatever encoding, qk_norm and micro_conditioning.

    ValueError where width does not divide into heads, or into the encoding's sines and cosines.
    """

    def __init__(
        self,
        *,
        channels: int,
        classes: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        patch: int,
        encoding: str,
        qk_norm: bool,
        micro_conditioning: bool,
    ) -> None:
        super().__init__()
        _check(width, heads, encoding)
        self.patch, self.width, self.encoding = patch, width, encoding
        values = channels * patch * patch
        self.patch_embed = nn.Linear(values, width)
        self.time_embed = TimestepEmbedding(width)
        self.label_embed = nn.Embedding(classes + 1, width)
        hidden = int(width * mlp_ratio)
        self.blocks = nn.ModuleList(Block(width, heads, hidden, qk_norm) for _ in range(depth))
        self.final = FinalLayer(width, values)
        self._initialise()
        # After the rest has its weights, so that these draws change none of them.
        self.micro_embed = _zero_start(MicroEmbedding(width)) if micro_conditioning else None

    def forward(
        self, x: Tensor, t: Tensor, y: Tensor, geometry: Geometry, micro: Tensor | None = None
    ) -> Tensor:
        """x [B, C, H, W], t [B] in [0, 1], y [B] int64, micro [B, 4] in pixels -> [B, C, H, W].

        H and W are any multiples of `patch`, and need not be equal. ValueError where the image,
        the geometry's positions or `micro` do not fit the model.
        """
        h, w = self._grid(x, geometry)
        if (micro is None) != (self.micro_embed is None):
            wanted = "needs" if micro is None else "was built without"
            raise ValueError(f"the model {wanted} micro-conditions")
        # Weights are float32 under autocast and so is the residual stream, with every encoding.
        dtype = self.patch_embed.weight.dtype
        tokens = self.patch_embed(patchify(x.to(dtype), self.patch)).to(dtype)  # [B, N, D]
        shared: tuple[Tensor, Tensor] | None = None
        if self.encoding == "sincos":
            code = sincos(
                geometry.rows,
                geometry.cols,
                self.width,
                geometry.frequencies_h,
                geometry.frequencies_w,
            )
            tokens = tokens + code.to(dtype)  # [B, N, D]
        elif self.encoding == "rope":
            phi = angles(
                geometry.rows, geometry.cols, geometry.frequencies_h, geometry.frequencies_w
            )
            shared = rotation(phi)  # two of [B, 1, N, d]
        condition = self.time_embed(t) + self.label_embed(y)  # [B, D]
        if micro is not None and self.micro_embed is not None:
            condition = condition + self.micro_embed(micro)  # [B, D]
        condition = F.silu(condition)  # [B, D]; each modulation of DiT starts with this SiLU
        for block in self.blocks:
            tokens = block(tokens, condition, shared, geometry.logit_scale)  # [B, N, D]
        patches = self.final(tokens, condition)  # [B, N, C*p*p]
        return unpatchify(patches, self.patch, h, w).to(x.dtype)  # [B, C, H, W]

    def _grid(self, x: Tensor, geometry: Geometry) -> tuple[int, int]:
        height, width = x.shape[-2:]
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"an image of {height}x{width} does not divide into patches of {self.patch}"
            )
        grid = height // self.patch, width // self.patch
        placed = geometry.rows.shape[-1], geometry.cols.shape[-1]
        if placed != grid:
            raise ValueError(
                f"the geometry places {placed[0]}x{placed[1]} patches, "
                f"the image has {grid[0]}x{grid[1]}"
            )
        return grid

    def _initialise(self) -> None:
        """DiT's: Xavier for linear layers, 0.02 for embeddings, zero where a branch ends."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.label_embed.weight, std=0.02)
        nn.init.normal_(self.time_embed.inner.weight, std=0.02)
        nn.init.normal_(self.time_embed.outer.weight, std=0.02)
        for block in self.blocks:
            assert isinstance(block, Block)
            nn.init.zeros_(block.modulation.weight)
        nn.init.zeros_(self.final.modulation.weight)
        nn.init.zeros_(self.final.proj.weight)


def patchify(x: Tensor, patch: int) -> Tensor:
    """Cut an image into tokens, row by row; a token's values run over (channel, row, column).

    That order is a convolution's own, so the embedding is DiT's strided one.
    Shapes: [B, C, H, W] -> [B, H/p * W/p, C*p*p].
    """
    x = x.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # [B, C, h, p, w, p]
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # [B, h*w, C*p*p]


def unpatchify(tokens: Tensor, patch: int, h: int, w: int) -> Tensor:
    """The inverse of `patchify`: [B, h*w, C*p*p] -> [B, C, h*p, w*p]."""
    x = tokens.unflatten(2, (-1, patch, patch)).unflatten(1, (h, w))  # [B, h, w, C, p, p]
    return x.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)  # [B, C, h*p, w*p]


def _zero_start(micro: MicroEmbedding) -> MicroEmbedding:
    nn.init.normal_(micro.inner.weight, std=0.02)
    nn.init.zeros_(micro.inner.bias)
    nn.init.zeros_(micro.outer.weight)
    nn.init.zeros_(micro.outer.bias)
    return micro


def _check(width: int, heads: int, encoding: str) -> None:
    require("encoding", encoding, ENCODINGS)
    if width % heads:
        raise ValueError(f"a width of {width} does not divide into {heads} heads")
    if encoding == "rope" and (width // heads) % 4:
        raise ValueError(
            f"rope turns pairs on two axes: the head dimension must be a multiple of 4, "
            f"got {width}/{heads} = {width // heads}"
        )
    if encoding == "sincos" and width % 4:
        raise ValueError(
            f"sincos fills the width with two axes of sines and cosines: it must be a multiple "
            f"of 4, got {width}"
        )
