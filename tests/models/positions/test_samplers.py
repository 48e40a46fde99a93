from math import comb, log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom, chi2, kstest

from models.names import PLAIN_AT_ONE
from models.positions.samplers import SAMPLERS, consecutive, randomized, rescale

sizes = st.integers(1, 40).flatmap(
    lambda length: st.tuples(st.integers(1, length), st.just(length))
)
names = st.sampled_from(sorted(SAMPLERS))

DISTINCT = {"consecutive", "randomized", "unsorted", "shift"}
INTEGER = DISTINCT | {"with-replacement"}


def uniforms(seed: int, batch: int, length: int) -> torch.Tensor:
    return torch.rand(batch, length, generator=torch.Generator().manual_seed(seed))


def draw(name: str, n: int, length: int, seed: int, batch: int = 5) -> torch.Tensor:
    drawn = uniforms(seed, batch, length + 1)
    return SAMPLERS[name](n, length, drawn[:, :length], drawn[:, length])


@settings(deadline=None, max_examples=200)
@given(sizes, st.integers(0, 2**31), names)
def test_draws_are_in_range_and_in_their_order(size, seed, name):
    n, length = size
    positions = draw(name, n, length, seed)
    assert positions.shape == (5, n)
    assert positions.dtype == torch.float32
    assert positions.min() >= 0
    assert positions.max() <= length - 1
    if name != "unsorted":
        assert (positions.diff(dim=1) >= 0).all()
    if name in INTEGER:
        assert torch.equal(positions, positions.round())
    if name in DISTINCT:
        assert (positions.sort(dim=1).values.diff(dim=1) >= 1).all()


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 40), st.integers(0, 2**31), st.sampled_from(PLAIN_AT_ONE))
def test_full_range_is_consecutive_bit_for_bit(n, seed, name):
    plain = torch.arange(n, dtype=torch.float32).expand(5, n)
    assert torch.equal(draw(name, n, n, seed), plain)


def test_the_others_are_random_at_the_full_range_too():
    for name in SAMPLERS.keys() - set(PLAIN_AT_ONE):
        assert not torch.equal(draw(name, 8, 8, 0), draw("consecutive", 8, 8, 0))
    assert draw("unsorted", 8, 8, 0).sort(dim=1).values.tolist() == [list(range(8))] * 5


def test_takes_the_ranks_of_the_smallest_uniforms():
    keys = torch.tensor([[0.9, 0.1, 0.5, 0.2, 0.7], [0.0, 0.8, 0.6, 0.9, 0.4]])
    assert randomized(3, 5, keys, keys[:, 0]).tolist() == [[1, 2, 3], [0, 2, 4]]
    assert SAMPLERS["unsorted"](3, 5, keys, keys[:, 0]).tolist() == [[1, 3, 2], [0, 4, 2]]


@settings(deadline=None, max_examples=60)
@given(sizes, st.integers(0, 2**31), names)
def test_a_sample_depends_on_its_own_numbers_only(size, seed, name):
    n, length = size
    drawn, shared = uniforms(seed, 6, length), uniforms(seed + 1, 6, 1)[:, 0]
    together = SAMPLERS[name](n, length, drawn, shared)
    for i in range(6):
        own = SAMPLERS[name](n, length, drawn[i : i + 1], shared[i : i + 1])
        assert torch.equal(together[i : i + 1], own)
    layered = SAMPLERS[name](n, length, drawn.view(2, 3, length), shared.view(2, 3))
    assert torch.equal(layered.flatten(0, 1), together)
    # Only `rescale` looks at what the axes share, and at nothing else.
    others = SAMPLERS[name](n, length, drawn, 1 - shared)
    assert torch.equal(others, together) or (name == "rescale" and n < length)
    if name == "rescale":
        assert torch.equal(SAMPLERS[name](n, length, 1 - drawn, shared), together)


def test_ties_are_resolved_by_position():
    assert randomized(2, 4, torch.zeros(1, 4), torch.zeros(1)).tolist() == [[0, 1]]


# ---- stated distributions, over many draws

DRAWS = 20000
LIKELY = 1e-4


def fits(counts: np.ndarray, law: np.ndarray) -> bool:
    """Pearson's chi-square of counts against probabilities, some of which may be 0."""
    possible = law > 0
    assert counts[~possible].sum() == 0
    mean = counts.sum() * law[possible]
    statistic = ((counts[possible] - mean) ** 2 / mean).sum()
    return statistic < chi2.ppf(1 - LIKELY, possible.sum() - 1)


def many(name: str, n: int, length: int, seed: int = 0) -> np.ndarray:
    return draw(name, n, length, seed, DRAWS).double().numpy()


def uniformly(values: np.ndarray) -> bool:
    return kstest(values, "uniform").pvalue > LIKELY


@pytest.mark.parametrize("name", ["randomized", "unsorted"])
def test_every_position_is_equally_likely(name):
    n, length = 6, 12
    counts = np.bincount(many(name, n, length).astype(int).ravel(), minlength=length)
    mean = DRAWS * n / length
    # Positions of one draw exclude each other, which inflates the plain sum of squares by L/(L-1).
    statistic = ((counts - mean) ** 2 / (mean * (1 - n / length))).sum() * (length - 1) / length
    assert chi2.ppf(LIKELY, length - 1) < statistic < chi2.ppf(1 - LIKELY, length - 1)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_sorted_draws_follow_the_law_of_order_statistics(k):
    n, length = 6, 12
    p = np.arange(length)
    # Without replacement: P(k-th smallest = p) = C(p, k-1) C(L-1-p, n-k) / C(L, n)
    law = np.array([comb(q, k - 1) * comb(length - 1 - q, n - k) / comb(length, n) for q in p])
    found = many("randomized", n, length, 1)[:, k - 1].astype(int)
    assert fits(np.bincount(found, minlength=length), law)
    # With replacement: the k-th is at most p where at least k of n are.
    at_most = 1 - binom.cdf(k - 1, n, (p + 1) / length)
    found = many("with-replacement", n, length, 2)[:, k - 1].astype(int)
    assert fits(np.bincount(found, minlength=length), np.diff(at_most, prepend=0))
    # Real-valued: Beta(k, n-k+1) of the range.
    found = many("order-statistics", n, length, 3)[:, k - 1] / (length - 1)
    assert kstest(found, beta(k, n - k + 1).cdf).pvalue > LIKELY


def test_every_order_of_every_pair_is_equally_likely():
    pairs = many("unsorted", 2, 4).astype(int) @ [4, 1]
    law = np.array([a != b for a in range(4) for b in range(4)]) / 12
    assert fits(np.bincount(pairs, minlength=16), law)


def test_every_shift_is_equally_likely():
    found = many("shift", 5, 12)
    assert (np.diff(found, axis=1) == 1).all()
    assert fits(np.bincount(found[:, 0].astype(int), minlength=8), np.full(8, 1 / 8))


def test_affine_stretches_then_shifts_uniformly():
    n, length = 5, 16
    found = many("affine", n, length)
    gaps = np.diff(found, axis=1)
    assert np.ptp(gaps, axis=1).max() < 1e-5
    gap, room = gaps.mean(axis=1), length - 1 - (found[:, -1] - found[:, 0])
    stretch, offset = (gap - 1) / ((length - 1) / (n - 1) - 1), found[:, 0] / room
    assert uniformly(stretch)
    assert uniformly(offset)
    assert uniformly((stretch + offset) % 1)  # independent of each other
    assert uniformly(many("affine", 1, length)[:, 0] / (length - 1))


@pytest.mark.parametrize("name", ["rescale", "jitter"])
def test_scales_about_the_middle_are_log_uniform(name):
    n, length = 6, 15
    found = many(name, n, length)
    gaps = np.diff(found, axis=1)
    assert np.ptp(gaps, axis=1).max() < 1e-5
    np.testing.assert_allclose(found.mean(axis=1), (length - 1) / 2, atol=1e-5)
    assert uniformly(np.log(gaps.mean(axis=1)) / log(length / n) / 2 + 0.5)


def test_rescale_keeps_the_shape_and_jitter_does_not():
    for name, same in (("rescale", True), ("jitter", False)):
        shared, rows, cols = uniforms(0, 9, 1)[:, 0], uniforms(1, 9, 8), uniforms(2, 9, 8)
        gaps = [SAMPLERS[name](4, 8, axis, shared).diff(dim=1) for axis in (rows, cols)]
        assert torch.equal(*gaps) == same
    # A longer axis with the same ratio of range to grid takes the same factor.
    both = rescale(4, 8, rows, shared), rescale(6, 12, uniforms(3, 9, 12), shared)
    assert torch.allclose(both[0].diff(dim=1)[:, 0], both[1].diff(dim=1)[:, 0], atol=1e-5)


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_refuses_more_patches_than_positions(name):
    with pytest.raises(ValueError, match="cannot draw 7 distinct positions out of 6"):
        SAMPLERS[name](7, 6, torch.rand(2, 6), torch.rand(2))
    with pytest.raises(ValueError, match=r"shape \[B, 8\], got \[2, 6\]"):
        SAMPLERS[name](4, 8, torch.rand(2, 6), torch.rand(2))


def test_consecutive_is_plain_training():
    assert consecutive(3, 8, torch.rand(2, 8), torch.rand(2)).tolist() == [[0, 1, 2]] * 2
