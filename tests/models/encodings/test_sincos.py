import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.encodings.laws import Axis, extrapolate, pi
from models.encodings.sincos import sincos


def published(rows: np.ndarray, cols: np.ndarray, width: int) -> np.ndarray:
    """DiT's formula from its definition; the first half is the column's, as in its code."""
    omega = 1 / 10000 ** (np.arange(width // 4) / (width / 4))
    code = np.zeros((len(rows) * len(cols), width))
    for i, row in enumerate(rows):
        for j, col in enumerate(cols):
            blocks = [f(p * omega) for p in (col, row) for f in (np.sin, np.cos)]
            code[i * len(cols) + j] = np.concatenate(blocks)
    return code


@pytest.mark.parametrize(("h", "w"), [(4, 4), (3, 7)])
def test_equals_dit_with_its_halves_swapped(h, w):
    width = 32
    omega = extrapolate(Axis(10000, width // 2, 1, 1)).float()
    rows, cols = torch.arange(float(h)), torch.arange(float(w)) * 1.5
    code = sincos(rows, cols, width, omega, omega)
    assert code.shape == (1, h * w, width)
    assert code.dtype == torch.float32
    swapped = code[0].roll(width // 2, dims=1).numpy()
    np.testing.assert_allclose(swapped, published(rows.numpy(), cols.numpy(), width), atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 6), st.floats(0.25, 8))
def test_interpolation_divides_positions(h, w, scale):
    scale = max(scale, 1.0)
    rows, cols = torch.arange(float(h)), torch.arange(float(w))
    plain, slow = extrapolate(Axis(10000, 8, 1, 1)).float(), pi(Axis(10000, 8, scale, 1)).float()
    by_law = sincos(rows, cols, 16, slow, slow)
    by_position = sincos(rows / scale, cols / scale, 16, plain, plain)
    assert torch.allclose(by_law, by_position, atol=1e-5)


def test_interpolated_is_a_table_between_whole_positions():
    omega = extrapolate(Axis(10000, 8, 1, 1)).float()
    whole = torch.arange(5.0)
    table = sincos(whole, whole, 16, omega, omega)
    assert torch.equal(sincos(whole, whole, 16, omega, omega, (True, True)), table)
    between = sincos(whole + 0.25, whole, 16, omega, omega, (True, True)).view(5, 5, 16)
    assert torch.equal(
        sincos(whole + 0.25, whole, 16, omega, omega, (False, True)),
        sincos(whole + 0.25, whole, 16, omega, omega),
    )
    table = table.view(5, 5, 16)
    expected = 0.75 * table[:-1] + 0.25 * table[1:]
    assert torch.allclose(between[:-1], expected, atol=1e-6)


def test_each_sample_has_its_own_positions():
    omega = extrapolate(Axis(10000, 8, 1, 1)).float()
    rows = torch.tensor([[0.0, 1.0], [2.0, 5.0]])
    cols = torch.tensor([[0.0, 3.0, 4.0], [1.0, 2.0, 3.0]])
    code = sincos(rows, cols, 16, omega, omega)
    for b in range(2):
        assert torch.equal(code[b], sincos(rows[b], cols[b], 16, omega, omega)[0])
    assert not torch.equal(code[0], code[1])


def test_stays_float32_under_autocast():
    omega = extrapolate(Axis(10000, 8, 1, 1)).float()
    positions = torch.tensor([[97.0, 101.0]])
    plain = sincos(positions, positions, 16, omega, omega)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = sincos(positions, positions, 16, omega, omega)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, plain)


def test_refuses_frequencies_of_another_width():
    with pytest.raises(ValueError, match="width 16 needs 4 frequencies an axis, got 4 and 3"):
        sincos(torch.zeros(2), torch.zeros(2), 16, torch.ones(4), torch.ones(3))
