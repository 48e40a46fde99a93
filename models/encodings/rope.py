"""Axial rotary encoding: half of each head turns with the row, the other half with the column.

Coordinates to angles, and angles to a rotation, are two functions; the angles are computed once a
forward pass and shared by all layers.
"""

import torch
from torch import Tensor


def angles(rows: Tensor, cols: Tensor, frequencies_h: Tensor, frequencies_w: Tensor) -> Tensor:
    """phi(i, j) = [r_i omega_h, c_j omega_w] in radians: one angle for each pair of channels.

    Always float32, under autocast too: bfloat16 keeps 8 bits, so that position 100 times
    omega = 1 would be off by up to a quarter of a radian.

    Shapes: rows [B, h], cols [B, w], frequencies [head_dim/4] -> [B, h*w, head_dim/2], tokens in
    row-major order.
    Source: RoFormer (arXiv 2104.09864), applied per axis as in FiT (arXiv 2402.12376).
    """
    with torch.autocast(rows.device.type, enabled=False):
        by_row = rows.float()[:, :, None, None] * frequencies_h.float()  # [B, h, 1, d/4]
        by_col = cols.float()[:, None, :, None] * frequencies_w.float()  # [B, 1, w, d/4]
    h, w = rows.shape[1], cols.shape[1]
    phi = torch.cat((by_row.expand(-1, -1, w, -1), by_col.expand(-1, h, -1, -1)), dim=-1)
    return phi.flatten(1, 2)  # [B, h*w, d/2]


def rotation(phi: Tensor) -> tuple[Tensor, Tensor]:
    """(cos, sin) of the angles, each repeated for both channels of its pair.

    Shapes: phi [B, N, head_dim/2], the same for all heads, or [B, heads, N, head_dim/2] -> two of
    [B, 1 or heads, N, head_dim].
    """
    if phi.dim() == 3:
        phi = phi[:, None]  # [B, 1, N, d/2], to broadcast over the heads
    return phi.cos().repeat_interleave(2, dim=-1), phi.sin().repeat_interleave(2, dim=-1)


def turn(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate the interleaved pairs: (x0, x1) -> (x0 cos - x1 sin, x0 sin + x1 cos).

    Pairs are channels (0, 1), (2, 3), ..., not (k, k + d/2). Computed in float32 and returned in
    x's own type. Shapes: x [..., d], cosine and sine broadcastable to it -> [..., d].
    """
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    quarter = torch.stack((-odd, even), dim=-1).flatten(-2)  # x turned by a right angle
    return (x * cosine + quarter * sine).to(x.dtype)  # [..., d]
