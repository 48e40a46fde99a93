"""A class-conditional diffusion transformer for images of any height and width.

DiT with adaLN-Zero (Peebles & Xie 2023, arXiv 2212.09748). Everything a method decides about
positions arrives as a `Geometry`, so the same weights serve every range, placement and law.
"""

from collections.abc import Iterator
from itertools import repeat

import torch.nn.functional as F
from torch import Tensor, nn

from models.encodings.learned import LearnedTable
from models.encodings.mixed import MixedFrequencies
from models.encodings.rope import angles, rotation
from models.encodings.sincos import sincos
from models.geometry import Geometry, Grid
from models.layers import Block, FinalLayer, MicroEmbedding, Rotation, TimestepEmbedding
from models.names import ENCODINGS, require


class DiT(nn.Module):
    """Predicts a field of the image's own shape from a noisy image, its time and its class.

    channels of the image; classes without the null label, whose index is `classes`; width, depth,
    heads and mlp_ratio of the transformer; patch, the side of a token in pixels; outputs, 2 where
    it also predicts a variance. A learned table needs `lengths` (Lh, Lw), the ranges of positions,
    and rope-mixed `theta`, the base of its first frequencies. Weights come from torch's current
    generator, the same ones whatever encoding, qk_norm and micro_conditioning.

    ValueError where width does not divide into heads, or into the encoding's sines and cosines, or
    where the encoding lacks what it needs.
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
        lengths: Grid | None = None,
        theta: float | None = None,
        outputs: int = 1,
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
        self.final = FinalLayer(width, outputs * values)
        self._initialise()
        # After the rest has its weights, so that these draws change none of them. The embedding is
        # drawn in any case, so that an encoding's own weights are the same with and without it.
        micro_embed = _zero_start(MicroEmbedding(width))
        self.micro_embed = micro_embed if micro_conditioning else None
        self.learned: LearnedTable | None = None
        if encoding == "learned":
            if lengths is None:
                raise ValueError("a learned table needs lengths, the ranges of positions (Lh, Lw)")
            self.learned = LearnedTable(lengths, width)
        self.mixed: nn.ModuleList | None = None
        if encoding == "rope-mixed":
            if theta is None:
                raise ValueError("rope-mixed needs theta, the base that its frequencies start from")
            layers = (MixedFrequencies(heads, width // heads, theta) for _ in range(depth))
            self.mixed = nn.ModuleList(layers)

    def forward(
        self, x: Tensor, t: Tensor, y: Tensor, geometry: Geometry, micro: Tensor | None = None
    ) -> Tensor:
        """x [B, C, H, W], t [B] in [0, 1], y [B] int64, micro [B, 4] in pixels.

        Returns [B, outputs * C, H, W], the variance's channels last. H and W are any multiples of
        `patch`, and need not be equal. ValueError where the image, the geometry's positions or
        `micro` do not fit the model.
        """
        h, w = self._grid(x, geometry)
        if (micro is None) != (self.micro_embed is None):
            wanted = "needs" if micro is None else "was built without"
            raise ValueError(f"the model {wanted} micro-conditions")
        # Weights are float32 under autocast and so is the residual stream, with every encoding.
        dtype = self.patch_embed.weight.dtype
        tokens = self.patch_embed(patchify(x.to(dtype), self.patch)).to(dtype)  # [B, N, D]
        code = self._code(geometry)
        if code is not None:
            tokens = tokens + code.to(dtype)  # [B, N, D]
        condition = self.time_embed(t) + self.label_embed(y)  # [B, D]
        if micro is not None and self.micro_embed is not None:
            condition = condition + self.micro_embed(micro)  # [B, D]
        condition = F.silu(condition)  # [B, D]; each modulation of DiT starts with this SiLU
        for block, turns in zip(self.blocks, self._rotations(geometry), strict=True):
            tokens = block(tokens, condition, turns, geometry.logit_scale)  # [B, N, D]
        patches = self.final(tokens, condition)  # [B, N, outputs*C*p*p]
        return unpatchify(patches, self.patch, h, w).to(x.dtype)  # [B, outputs*C, H, W]

    def _code(self, geometry: Geometry) -> Tensor | None:
        """What an absolute encoding adds to the tokens: [B or 1, N, D], or None."""
        rows, cols = _shared(geometry.rows, geometry.cols)
        if self.learned is not None:
            return self.learned(rows, cols)
        if self.encoding == "sincos":
            frequencies = geometry.frequencies_h, geometry.frequencies_w
            return sincos(rows, cols, self.width, *frequencies, geometry.interpolated)
        return None

    def _rotations(self, geometry: Geometry) -> Iterator[Rotation | None]:
        """What turns queries and keys, layer by layer; computed once where layers agree."""
        depth = len(self.blocks)
        if self.encoding == "rope" and geometry.rows.dim() == 2:
            return repeat(self._rotation(geometry, 0), depth)
        if self.encoding in ("rope", "rope-mixed"):
            return (self._rotation(geometry, layer) for layer in range(depth))
        return repeat(None, depth)

    def _rotation(self, geometry: Geometry, layer: int) -> Rotation:
        """Two of [B or 1, heads or 1, N, d] for one layer."""
        own = geometry.rows.dim() == 3
        rows = geometry.rows[layer] if own else geometry.rows  # [B, h]
        cols = geometry.cols[layer] if own else geometry.cols  # [B, w]
        rows, cols = _shared(rows, cols)
        if self.mixed is None:
            return rotation(angles(rows, cols, geometry.frequencies_h, geometry.frequencies_w))
        moved = rows * geometry.frequencies_h, cols * geometry.frequencies_w
        return rotation(self.mixed[layer](*moved))

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
        if geometry.rows.dim() == 3:
            layers = len(geometry.rows)
            if self.encoding not in ("rope", "rope-mixed") or layers != len(self.blocks):
                raise ValueError(
                    f"positions of {layers} layers need a rotary encoding of as many, "
                    f"got {self.encoding} of {len(self.blocks)}"
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


def _shared(rows: Tensor, cols: Tensor) -> tuple[Tensor, Tensor]:
    """Positions that all samples share, as an expanded view, once: the same code for less work."""
    if rows.stride(0) == cols.stride(0) == 0:
        return rows[:1], cols[:1]
    return rows, cols


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
    if encoding in ("rope", "rope-mixed") and (width // heads) % 4:
        raise ValueError(
            f"{encoding} turns pairs on two axes: the head dimension must be a multiple of 4, "
            f"got {width}/{heads} = {width // heads}"
        )
    if encoding == "sincos" and width % 4:
        raise ValueError(
            f"sincos fills the width with two axes of sines and cosines: it must be a multiple "
            f"of 4, got {width}"
        )
