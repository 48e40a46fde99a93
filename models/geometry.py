"""What a method decides about positions, handed to the model as one value.

Training draws positions from a range; inference places the patches of any grid in that range and
may change frequencies and the attention's temperature. Nothing of it is stored in the model.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.encodings.attention_scale import ATTENTION_SCALES
from models.encodings.laws import LAWS, Axis
from models.names import COMPRESSING, LAW_SCALES, LAWS_FOR, PLACEMENTS, require
from models.positions import placements
from models.positions.samplers import SAMPLERS

Grid = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Geometry:
    """Positions of the patches and the frequencies that turn them into an encoding.

    rows [B or 1, h], cols [B or 1, w]: positions along each axis, or [layers, B or 1, ...] where
    each layer of a rotary encoding has its own; frequencies_h, frequencies_w: radians per position,
    empty without an encoding; all float32. logit_scale multiplies q k / sqrt(head_dim).
    interpolated: on which axes an absolute code is read at whole positions and linearly between.

    For rope-mixed the model has the frequencies, and the one here multiplies them: 1, or 1/s.
    TypeError on another type: a half-precision position is a wrong one.
    """

    rows: Tensor
    cols: Tensor
    frequencies_h: Tensor
    frequencies_w: Tensor
    logit_scale: float = 1.0
    interpolated: tuple[bool, bool] = (False, False)

    def __post_init__(self) -> None:
        for name in ("rows", "cols", "frequencies_h", "frequencies_w"):
            dtype = getattr(self, name).dtype
            if dtype != torch.float32:
                raise TypeError(f"expected {name} in torch.float32, got {dtype}")


# Channels that one axis of an encoding fills, two per frequency; the keys are all encodings.
AXIS_CHANNELS: dict[str, Callable[[int, int], int]] = {
    "none": lambda width, heads: 0,
    "sincos": lambda width, heads: width // 2,
    "learned": lambda width, heads: 0,
    "rope": lambda width, heads: width // heads // 2,
    "rope-mixed": lambda width, heads: 2,  # theta^0 = 1: laws act on a factor of its own
}


def training_geometry(
    encoding: str,
    sampler: str,
    theta: float,
    width: int,
    heads: int,
    grid: Grid,
    length: Grid,
    uniform_h: Tensor,
    uniform_w: Tensor,
    shared: Tensor,
    device: torch.device | str,
) -> Geometry:
    """Positions drawn for a training batch, with unchanged frequencies.

    grid (h, w) in patches; length (Lh, Lw) is the range of positions an axis draws from, grid
    itself for plain training. uniform_h [B, Lh], uniform_w [B, Lw] and shared [B] are independent
    uniforms in [0, 1), one row a sample; with [layers, B, ...] each layer draws its own.
    ValueError on an unknown name or a grid larger than its range.
    """
    rows, cols = _drawn(sampler, grid, length, uniform_h, uniform_w, shared)
    by_axis = _frequencies(encoding, "extrapolate", theta, width, heads, (1.0, 1.0), length, 0.0)
    return Geometry(rows.to(device), cols.to(device), by_axis[0].to(device), by_axis[1].to(device))


def inference_geometry(
    *,
    encoding: str,
    theta: float,
    width: int,
    heads: int,
    train_grid: Grid,
    length: Grid,
    grid: Grid,
    placement: str,
    law: str,
    law_scale: str,
    attention_scale: str,
    batch: int,
    device: torch.device | str,
    time: float = 0.0,
    sampler: str = "consecutive",
    uniform_h: Tensor | None = None,
    uniform_w: Tensor | None = None,
    shared: Tensor | None = None,
) -> Geometry:
    """Positions for a grid of any size and shape: fixed for all samples, or `random` for each.

    train_grid (h, w) is the grid of training, in patches; length (Lh, Lw) its ranges of positions
    (round(range multiplier * n), train_grid itself for plain training); grid is the grid now. Laws
    see the scales that `law_scales` finds; the attention scale sees the larger. time in 0..1, 1 =
    noise, is for laws that change while an image is made. Placement `random` draws as training
    does, with its `sampler` and uniforms of the shapes there.

    ValueError on an unknown name, a law that does not fit the encoding, an axis too narrow for the
    law, or a random draw for a grid larger than the range.
    """
    require("attention scale", attention_scale, ATTENTION_SCALES)
    require("placement", placement, PLACEMENTS)
    if placement == "random":
        if uniform_h is None or uniform_w is None or shared is None:
            raise ValueError("placement 'random' needs uniform_h, uniform_w and shared")
        rows, cols = _drawn(sampler, grid, length, uniform_h, uniform_w, shared)  # [batch, ...]
    else:
        place = placements.PLACEMENTS[placement]
        rows, cols = place(grid[0], length[0])[None], place(grid[1], length[1])[None]  # [1, ...]
    scales = (1.0, 1.0)
    if placement not in COMPRESSING:
        scales = law_scales(rows, cols, length, "per_axis" if law == "ei" else law_scale)
    by_axis = _frequencies(encoding, law, theta, width, heads, scales, length, time)
    resized = (law == "ei" and scales[0] > 1, law == "ei" and scales[1] > 1)
    if resized[0]:
        rows = _on_the_table(rows, scales[0], length[0])
    if resized[1]:
        cols = _on_the_table(cols, scales[1], length[1])
    temperature = ATTENTION_SCALES[attention_scale]
    return Geometry(
        rows=rows.to(device).expand(batch, -1),  # [B, h]
        cols=cols.to(device).expand(batch, -1),  # [B, w]
        frequencies_h=by_axis[0].to(device),
        frequencies_w=by_axis[1].to(device),
        logit_scale=temperature(math.prod(train_grid), math.prod(grid), max(scales)),
        interpolated=resized,
    )


def law_scales(rows: Tensor, cols: Tensor, length: Grid, kind: str) -> tuple[float, float]:
    """How far the placed positions outgrow the trained ranges on each axis, at least 1.

    s = (largest position + 1)/length, 1 where the positions stay inside. kind `per_axis`: each
    axis its own, as in FiT's Vision forms; `shared`: the larger for both, as in NTK and YaRN for
    square images. The contiguous 0..n-1 gives n/length, the usual ratio of sizes.
    """
    require("law scale", kind, LAW_SCALES)
    own = (
        max(1.0, (float(rows.max()) + 1) / length[0]),
        max(1.0, (float(cols.max()) + 1) / length[1]),
    )
    return own if kind == "per_axis" else (max(own), max(own))


def _drawn(
    sampler: str, grid: Grid, length: Grid, uniform_h: Tensor, uniform_w: Tensor, shared: Tensor
) -> tuple[Tensor, Tensor]:
    require("position sampler", sampler, SAMPLERS)
    draw = SAMPLERS[sampler]
    rows = draw(grid[0], length[0], uniform_h, shared)  # [B, h]
    return rows, draw(grid[1], length[1], uniform_w, shared)  # [B, w]


def _on_the_table(positions: Tensor, scale: float, length: int) -> Tensor:
    """EI: where the centres of patches lie in a table resized by `scale`, edges aligned.

    (x + 1/2)/s - 1/2, clamped to 0..L-1: bilinear resizing with half-pixel centres, as FiT
    (arXiv 2402.12376, section 4.3) resizes the codes of DiT, and ViT its own.
    """
    return ((positions.double() + 0.5) / scale - 0.5).clamp(0, length - 1).to(torch.float32)


def _frequencies(
    encoding: str,
    law: str,
    theta: float,
    width: int,
    heads: int,
    scales: tuple[float, float],
    length: Grid,
    time: float,
) -> list[Tensor]:
    """Of rows and of columns: they differ where the axes' scales or ranges do."""
    require("encoding", encoding, AXIS_CHANNELS)
    require(f"frequency law for {encoding}:", law, LAWS_FOR[encoding])
    channels = AXIS_CHANNELS[encoding](width, heads)
    if channels == 0:
        return [torch.empty(0, dtype=torch.float32)] * 2
    axes = [Axis(theta, channels, *of, time) for of in zip(scales, length, strict=True)]
    return [LAWS[law](axis).to(torch.float32) for axis in axes]
