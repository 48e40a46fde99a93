import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.positions.placements import PLACEMENTS, centred, contiguous, even, expected
from models.positions.samplers import randomized

sizes = st.integers(1, 70)


@settings(deadline=None)
@given(sizes, st.sampled_from(sorted(PLACEMENTS)))
def test_all_coincide_at_the_full_range(n, name):
    placed = PLACEMENTS[name](n, n)
    assert placed.dtype == torch.float32
    assert torch.equal(placed, torch.arange(n, dtype=torch.float32))


@settings(deadline=None)
@given(sizes, sizes, st.sampled_from(sorted(PLACEMENTS)))
def test_equal_gaps_ascending_and_in_range(n, length, name):
    placed = PLACEMENTS[name](n, length).double()
    assert placed.shape == (n,)
    if n > 1:
        gaps = placed.diff()
        assert gaps.min() > 0 or (name == "even" and length == 1)
        assert torch.allclose(gaps, gaps[0].expand(n - 1), atol=1e-4)
    if n <= length or name == "even":
        assert placed[0] >= 0
        assert placed[-1] <= length - 1


@settings(deadline=None)
@given(sizes, sizes)
def test_symmetric_about_the_middle(n, length):
    for place in (even, expected) if n > length else (even, expected, centred):
        placed = place(n, length)
        mirrored = length - 1 - placed.flip(0)
        assert torch.allclose(placed, mirrored, atol=1e-4)


def test_values():
    assert contiguous(3, 8).tolist() == [0, 1, 2]
    assert contiguous(10, 8)[-1] == 9
    assert centred(3, 8).tolist() == [2.5, 3.5, 4.5]
    assert centred(10, 8).tolist() == list(range(10))
    assert even(3, 9).tolist() == [0, 4, 8]
    assert even(1, 9).tolist() == [4]
    assert even(5, 3).tolist() == [0, 0.5, 1, 1.5, 2]
    assert even(3, 1).tolist() == [0, 0, 0]
    assert expected(1, 9).tolist() == [4]
    assert expected(3, 7).tolist() == [1, 3, 5]


def test_expected_beyond_the_range_reaches_half_a_position_out():
    placed = expected(32, 16)
    assert placed[0].item() == pytest.approx(17 / 33 - 1)
    assert placed[-1].item() == pytest.approx(32 * 17 / 33 - 1)


def test_expected_is_the_mean_of_random_draws():
    keys = torch.rand(20000, 32, generator=torch.Generator().manual_seed(0))
    mean = randomized(16, 32, keys, keys[:, 0]).mean(dim=0)
    # The k-th of 16 out of 32 has a standard deviation below 3, so 4 errors are below 0.08.
    assert torch.allclose(mean, expected(16, 32), atol=0.08)
    assert not torch.allclose(mean, even(16, 32), atol=0.08)


@pytest.mark.parametrize("name", sorted(PLACEMENTS))
def test_refuses_an_empty_axis(name):
    with pytest.raises(ValueError, match="cannot place 0 patches in a range of 4 positions"):
        PLACEMENTS[name](0, 4)
