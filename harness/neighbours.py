"""Precision, recall, density and coverage: which samples lie within which balls of neighbours."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from harness.metrics import Array, checked_pair, nearest, squared_distances

NEIGHBOURS = (3, 5)  # k of precision and recall, and of density and coverage: the papers' own


def prdc(
    generated: Tensor | Array,
    real: Tensor | Array,
    k_pr: int = NEIGHBOURS[0],
    k_dc: int = NEIGHBOURS[1],
    real_radii: Mapping[int, Array] | None = None,
    device: torch.device | str | None = None,
) -> dict[str, tuple[float, Array]]:
    """`precision`, `recall`, `density` and `coverage`, each with its influence values `[N]`.

    A ball reaches from its centre to the k-th nearest other sample of the centre's own set, and
    holds what lies on its edge. Kynkäänniemi et al. 2019 (arXiv:1904.06991), equation 2, `k_pr`:
    precision is the share of generated samples within a ball of some real sample, recall the share
    of real samples within a ball of some generated one. Naeem et al. 2020 (arXiv:2002.09797),
    equations 5 and 6, `k_dc`: density is the mean number of real balls that a generated sample
    lies in, over k (1 is expected of the same distribution, more is possible), coverage the share
    of real balls that hold a generated sample.

    The real samples are held fixed. Precision and density are means over the generated samples, so
    their influence values are exact. Those of recall and coverage are a jackknife with the balls
    held fixed: by what a sample alone covers. Its standard error is on average not too small (Efron
    and Stein 1981), and can be twice too large.

    Args:
        generated: features `[N, D]`.
        real: features `[M, D]`.
        real_radii: `metrics.radii(real, k)` of those k for which they are known already.
        device: where distances are computed; None is the CPU. Both sets are held there in float64,
            and blocks of `metrics.ROWS` rows of the N x N, M x M and N x M distances.

    Raises:
        ValueError: k below 1, too few samples for a k-th neighbour, unequal widths, values that
            are not finite, or radii that are not those of `real`.
    """
    if min(k_pr, k_dc) < 1:
        raise ValueError(f"k is {min(k_pr, k_dc)}, expected at least 1")
    x, y = checked_pair(generated, real, k_pr + 1, max(k_pr, k_dc) + 1)
    x, y = (values.to(device or "cpu").double() for values in (x, y))
    x, y = x - y.mean(0), y - y.mean(0)
    known = real_radii or {}
    if not {k_pr, k_dc} <= known.keys():
        distances = nearest(y, max(k_pr, k_dc)).cpu().numpy()
        known = {k: distances[:, k - 1] for k in (k_pr, k_dc)}
    own = _reach(x, nearest(x, k_pr)[:, -1])[:, None]  # [N, 1]
    near, around = (_reach(y, _lengths(known[k], y)) for k in (k_pr, k_dc))  # [M]

    precise = torch.empty(len(x), dtype=torch.bool, device=x.device)
    dense = torch.empty(len(x), dtype=torch.float64, device=x.device)
    recalled, covered = (torch.zeros(2, len(y), dtype=torch.float64).to(y) for _ in range(2))
    for start, block in squared_distances(x, y):
        rows = slice(start, start + len(block))
        precise[rows] = (block <= near).any(1)
        inside = (block <= around).float()
        dense[rows] = inside.sum(1).double() / k_dc
        covered += _counted(inside, start)
        recalled += _counted((block <= own[rows]).float(), start)

    found = {"precision": precise.double(), "density": dense}
    result = {kind: (each.mean(), each - each.mean()) for kind, each in found.items()}
    result |= {
        "recall": _covering(recalled, len(x)),
        "coverage": _covering(covered, len(x)),
    }
    return {kind: (float(value), u.cpu().numpy()) for kind, (value, u) in result.items()}


def _lengths(radii: Array, y: Tensor) -> Tensor:
    if radii.shape != (len(y),) or not (np.isfinite(radii).all() and (radii >= 0).all()):
        raise ValueError(f"the real samples' radii are not {len(y)} lengths")
    return torch.from_numpy(radii).to(y)


def _reach(centres: Tensor, radii: Tensor) -> Tensor:
    """Squared radii, widened by the rounding of squared distances: a tie counts as inside."""
    squares = radii.square()
    return squares + 1e-12 * (squares + centres.square().sum(1))


def _counted(inside: Tensor, start: int) -> Tensor:
    """For float 0/1 `[R, M]`: how many rows hold each column, and the sum of those rows' numbers.

    Where the count is one, the sum is the number of that one row.
    """
    rows = torch.arange(len(inside), dtype=torch.float32, device=inside.device)
    count, within = (torch.stack([torch.ones_like(rows), rows]) @ inside).double()
    return torch.stack([count, within + start * count])


def _covering(counted: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """The share of columns that any of `samples` rows holds, and each row's influence on it."""
    count, row = counted
    alone = torch.bincount(row[count == 1].long(), minlength=samples).double() / len(count)
    # Scaled so that sum(u^2) / N^2 is the jackknife's variance (N - 1) / N sum(alone - mean)^2.
    return (count > 0).double().mean(), (alone - alone.mean()) * (samples * (samples - 1)) ** 0.5
