"""RoPE-Mixed: a rotary encoding whose frequencies are learned and see both axes at once."""

import math

import torch
from torch import Tensor, nn

from models.encodings.laws import Axis, extrapolate


class MixedFrequencies(nn.Module):
    """Frequencies [2, heads, head_dim/2] of one layer: of the rows, and of the columns.

    They start as two copies of theta^(-4k/head_dim), k = 0..head_dim/4-1, one along a direction
    that is random for each head, the other at a right angle to it. Directions come from torch's
    current generator. Source: Heo et al. 2024 (arXiv 2403.13298) and its `init_random_2d_freqs`.
    """

    def __init__(self, heads: int, head_dim: int, theta: float) -> None:
        super().__init__()
        size = extrapolate(Axis(theta, head_dim // 2, 1.0, 1.0)).float()  # [d/4]
        turned = 2 * math.pi * torch.rand(heads, 1)  # [heads, 1]
        directions = torch.stack((turned, turned + math.pi / 2), dim=1)  # [heads, 2, 1]
        by_row, by_col = size * directions.sin(), size * directions.cos()  # [heads, 2, d/4]
        self.weight = nn.Parameter(torch.stack((by_row, by_col)).flatten(2))  # [2, heads, d/2]

    def forward(self, rows: Tensor, cols: Tensor) -> Tensor:
        """phi(i, j) = r_i f_row + c_j f_col in radians.

        rows [B, h], cols [B, w] -> [B, heads, h*w, head_dim/2], tokens in row-major order. Always
        float32, under autocast and with bfloat16 weights too (`models.encodings.rope.angles`).
        """
        by_row, by_col = self.weight.float()[:, None, :, None]  # [1, heads, 1, d/2] each
        with torch.autocast(rows.device.type, enabled=False):
            down = rows.float()[:, None, :, None] * by_row  # [B, heads, h, d/2]
            across = cols.float()[:, None, :, None] * by_col  # [B, heads, w, d/2]
        return (down[:, :, :, None] + across[:, :, None]).flatten(2, 3)  # [B, heads, h*w, d/2]
