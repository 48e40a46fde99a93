"""What a method decides about positions, handed to the model as one value.

Training draws positions from a range; inference places the patches of any grid in that range and
may change frequencies and the attention's temperature. Nothing of it is stored in the model.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models.encodings.laws import ATTENTION_SCALES, LAWS
from models.names import LAWS_FOR, require
from models.positions.placements import PLACEMENTS
from models.positions.samplers import SAMPLERS

Grid = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Geometry:
    """Positions of the patches and the frequencies that turn them into an encoding.

    rows [B or 1, h], cols [B or 1, w]: positions along each axis; frequencies_h, frequencies_w:
    radians per position, empty without an encoding; all float32. logit_scale multiplies
    q k / sqrt(head_dim). TypeError on another type: a half-precision position is a wrong one.
    """

    rows: Tensor
    cols: Tensor
    frequencies_h: Tensor
    frequencies_w: Tensor
    logit_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("rows", "cols", "frequencies_h", "frequencies_w"):
            dtype = getattr(self, name).dtype
            if dtype != torch.float32:
                raise TypeError(f"expected {name} in torch.float32, got {dtype}")


# Channels that one axis of an encoding fills, two per frequency; the keys are all encodings.
AXIS_CHANNELS: dict[str, Callable[[int, int], int]] = {
    "none": lambda width, heads: 0,
    "sincos": lambda width, heads: width // 2,
    "rope": lambda width, heads: width // heads // 2,
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
    device: torch.device | str,
) -> Geometry:
    """Positions drawn for a training batch, with unchanged frequencies.

    grid (h, w) in patches; length (Lh, Lw) is the range of positions an axis draws from, grid
    itself for plain training; uniform_h [B, Lh] and uniform_w [B, Lw] are independent uniforms in
    [0, 1), one row a sample. ValueError on an unknown name or a grid larger than its range.
    """
    require("position sampler", sampler, SAMPLERS)
    draw = SAMPLERS[sampler]
    by_axis = _frequencies(encoding, "extrapolate", theta, width, heads, 1.0, length)
    return Geometry(
        rows=draw(grid[0], length[0], uniform_h).to(device),  # [B, h]
        cols=draw(grid[1], length[1], uniform_w).to(device),  # [B, w]
        frequencies_h=by_axis[0].to(device),
        frequencies_w=by_axis[1].to(device),
    )


def inference_geometry(
    encoding: str,
    theta: float,
    width: int,
    heads: int,
    train_grid: Grid,
    length: Grid,
    grid: Grid,
    placement: str,
    law: str,
    attention_scale: str,
    batch: int,
    device: torch.device | str,
) -> Geometry:
    """Fixed positions for a grid of any size and shape, the same for every sample.

    train_grid (h, w) is the grid of training, in patches; length (Lh, Lw) its ranges of positions
    (round(range multiplier * n), train_grid itself for plain training); grid is the grid now. The
    law and the attention scale see `law_scale`; ramps also see each axis's own length.

    ValueError on an unknown name, a law that does not fit the encoding, or (rope) an axis too
    narrow for the law.
    """
    require("placement", placement, PLACEMENTS)
    require("attention scale", attention_scale, ATTENTION_SCALES)
    place = PLACEMENTS[placement]
    rows, cols = place(grid[0], length[0]), place(grid[1], length[1])  # [h], [w]
    scale = law_scale(rows, cols, length)
    by_axis = _frequencies(encoding, law, theta, width, heads, scale, length)
    multiplier = ATTENTION_SCALES[attention_scale](math.prod(train_grid), math.prod(grid), scale)
    return Geometry(
        rows=rows.to(device).expand(batch, -1),  # [B, h]
        cols=cols.to(device).expand(batch, -1),  # [B, w]
        frequencies_h=by_axis[0].to(device),
        frequencies_w=by_axis[1].to(device),
        logit_scale=multiplier,
    )


def law_scale(rows: Tensor, cols: Tensor, length: Grid) -> float:
    """How far the placed positions outgrow the trained ranges, at least 1.

    s = max over both axes of (largest position + 1)/length, 1 where they stay inside. One factor
    for both axes, as in NTK and YaRN for square images (FiT's Vision variants take one per axis).
    The contiguous 0..n-1 gives n/length, the usual ratio of sizes. Compressing placements give 1,
    except `expected` beyond its range: it reaches up to half a position outside, so it gives
    between 1 and (length + 1)/length (1.08 for 12 patches in 6 positions).
    """
    return max(
        1.0,
        (float(rows[-1]) + 1) / length[0],
        (float(cols[-1]) + 1) / length[1],
    )


def _frequencies(
    encoding: str, law: str, theta: float, width: int, heads: int, scale: float, length: Grid
) -> list[Tensor]:
    """Of rows and of columns: they differ where a ramp sees ranges of different length."""
    require("encoding", encoding, AXIS_CHANNELS)
    require(f"frequency law for {encoding}:", law, LAWS_FOR[encoding])
    channels = AXIS_CHANNELS[encoding](width, heads)
    if channels == 0:
        return [torch.empty(0, dtype=torch.float32)] * 2
    return [LAWS[law](theta, channels, scale, axis).to(torch.float32) for axis in length]
