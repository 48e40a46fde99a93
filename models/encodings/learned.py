"""A learned absolute code: a table of vectors, added to the tokens once."""

import torch
from torch import Tensor, nn


class LearnedTable(nn.Module):
    """One vector for each whole position of the two ranges, read between them bilinearly.

    lengths (Lh, Lw), the ranges of positions; normal weights of deviation 0.02 from torch's
    current generator. Source: ViT (arXiv 2010.11929), in two dimensions.
    """

    def __init__(self, lengths: tuple[int, int], width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(0.02 * torch.randn(*lengths, width))  # [Lh, Lw, D]

    def forward(self, rows: Tensor, cols: Tensor) -> Tensor:
        """rows [B, h], cols [B, w] -> [B, h*w, D] float32, tokens in row-major order.

        At whole positions it is the table's own vector bit for bit. Outside 0..L-1, where nothing
        was learned, the vector at the edge.
        """
        table = self.table.float()
        above, below, down = _between(rows, table.shape[0])  # [B, h] each
        left, right, across = _between(cols, table.shape[1])  # [B, w] each
        above, below, down = above[:, :, None], below[:, :, None], down[:, :, None, None]
        left, right, across = left[:, None], right[:, None], across[:, None, :, None]
        upper = torch.lerp(table[above, left], table[above, right], across)  # [B, h, w, D]
        lower = torch.lerp(table[below, left], table[below, right], across)  # [B, h, w, D]
        return torch.lerp(upper, lower, down).flatten(1, 2)  # [B, h*w, D]


def _between(positions: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """The whole positions on both sides, and the share of the way from the first to the second."""
    positions = positions.float().clamp(0, length - 1)
    first = positions.floor()
    second = (first + 1).clamp(max=length - 1)
    return first.long(), second.long(), positions - first
