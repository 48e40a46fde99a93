from math import comb

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from models.positions.samplers import SAMPLERS, consecutive, randomized

sizes = st.integers(1, 40).flatmap(
    lambda length: st.tuples(st.integers(1, length), st.just(length))
)


def uniforms(seed: int, batch: int, length: int) -> torch.Tensor:
    return torch.rand(batch, length, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=60)
@given(sizes, st.integers(0, 2**31), st.sampled_from(sorted(SAMPLERS)))
def test_draws_are_sorted_unique_and_in_range(size, seed, name):
    n, length = size
    positions = SAMPLERS[name](n, length, uniforms(seed, 5, length))
    assert positions.shape == (5, n)
    assert positions.dtype == torch.float32
    assert (positions.diff(dim=1) >= 1).all()
    assert positions.min() >= 0
    assert positions.max() <= length - 1
    assert torch.equal(positions, positions.round())


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(0, 2**31))
def test_full_range_is_consecutive_bit_for_bit(n, seed):
    keys = uniforms(seed, 3, n)
    assert torch.equal(randomized(n, n, keys), consecutive(n, n, keys))


def test_takes_the_ranks_of_the_smallest_uniforms():
    keys = torch.tensor([[0.9, 0.1, 0.5, 0.2, 0.7], [0.0, 0.8, 0.6, 0.9, 0.4]])
    assert randomized(3, 5, keys).tolist() == [[1, 2, 3], [0, 2, 4]]


def test_a_sample_depends_on_its_own_uniforms_only():
    keys = uniforms(3, 8, 24)
    together = randomized(12, 24, keys)
    alone = torch.cat([randomized(12, 24, keys[i : i + 1]) for i in range(8)])
    assert torch.equal(together, alone)
    assert not torch.equal(together[0], together[1])


def test_ties_are_resolved_by_position():
    assert randomized(2, 4, torch.zeros(1, 4)).tolist() == [[0, 1]]


DRAWS = 20000


def test_every_position_is_equally_likely():
    n, length = 6, 12
    positions = randomized(n, length, uniforms(0, DRAWS, length)).numpy().astype(int)
    counts = np.bincount(positions.ravel(), minlength=length)
    mean = DRAWS * n / length
    # Positions of one draw exclude each other, which inflates the plain sum of squares by L/(L-1).
    statistic = ((counts - mean) ** 2 / (mean * (1 - n / length))).sum() * (length - 1) / length
    assert chi2.ppf(1e-4, length - 1) < statistic < chi2.ppf(1 - 1e-4, length - 1)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_order_statistics_follow_their_law(k):
    n, length = 6, 12
    positions = randomized(n, length, uniforms(1, DRAWS, length)).numpy().astype(int)[:, k - 1]
    # P(k-th smallest = p) = C(p, k-1) C(L-1-p, n-k) / C(L, n)
    law = np.array(
        [comb(p, k - 1) * comb(length - 1 - p, n - k) / comb(length, n) for p in range(length)]
    )
    possible = law > 0
    counts = np.bincount(positions, minlength=length)
    assert counts[~possible].sum() == 0
    expected = DRAWS * law[possible]
    statistic = ((counts[possible] - expected) ** 2 / expected).sum()
    assert statistic < chi2.ppf(1 - 1e-4, possible.sum() - 1)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_refuses_more_patches_than_positions(name):
    with pytest.raises(ValueError, match="cannot draw 7 distinct positions out of 6"):
        SAMPLERS[name](7, 6, torch.rand(2, 6))
    with pytest.raises(ValueError, match=r"shape \[B, 8\], got \[2, 6\]"):
        SAMPLERS[name](4, 8, torch.rand(2, 6))
