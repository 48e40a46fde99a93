"""The absolute sin-cos code in two dimensions, added to the tokens once."""

import torch
from torch import Tensor


def sincos(
    rows: Tensor,
    cols: Tensor,
    width: int,
    frequencies_h: Tensor,
    frequencies_w: Tensor,
    interpolated: tuple[bool, bool] = (False, False),
) -> Tensor:
    """pe(i, j) = [sin(r_i w), cos(r_i w), sin(c_j v), cos(c_j v)], each block width/4 wide.

    Blocked, not interleaved, as in DiT (arXiv 2212.09748; ViT's and MAE's code). Here the first
    half of the channels codes the *row*. DiT's published code calls its first half `emb_h` but
    feeds it the first output of meshgrid(grid_w, grid_h), the *column*: swap the halves to compare.
    interpolated: on rows, on columns, read the code as a table at whole positions, linearly between
    them (`ei`).

    Shapes: rows [B, h] or [h], cols [B, w] or [w], frequencies [width/4] in radians per position
    -> [B, h*w, width] float32 (B = 1 without a batch), tokens in row-major order.
    ValueError if the frequencies do not fill the width.
    """
    if not 4 * len(frequencies_h) == 4 * len(frequencies_w) == width:
        raise ValueError(
            f"a sin-cos code of width {width} needs {width / 4:g} frequencies an axis, "
            f"got {len(frequencies_h)} and {len(frequencies_w)}"
        )
    rows, cols = torch.atleast_2d(rows), torch.atleast_2d(cols)
    of_rows, of_cols = (_interpolated if table else _axis for table in interpolated)
    by_row = of_rows(rows, frequencies_h)[:, :, None]  # [B, h, 1, width/2]
    by_col = of_cols(cols, frequencies_w)[:, None]  # [B, 1, w, width/2]
    h, w = rows.shape[1], cols.shape[1]
    code = torch.cat((by_row.expand(-1, -1, w, -1), by_col.expand(-1, h, -1, -1)), dim=-1)
    return code.flatten(1, 2)  # [B, h*w, width]


def _axis(positions: Tensor, frequencies: Tensor) -> Tensor:
    with torch.autocast(positions.device.type, enabled=False):
        angles = positions.float()[..., None] * frequencies.float()  # [B, n, width/4]
    return torch.cat((angles.sin(), angles.cos()), dim=-1)  # [B, n, width/2]


def _interpolated(positions: Tensor, frequencies: Tensor) -> Tensor:
    first = positions.float().floor()
    share = (positions.float() - first)[..., None]  # [B, n, 1]
    return torch.lerp(_axis(first, frequencies), _axis(first + 1, frequencies), share)
