import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.encodings.mixed import MixedFrequencies
from models.encodings.rope import rotation, turn

HEADS, D = 3, 16


def made(theta: float = 10.0) -> MixedFrequencies:
    torch.manual_seed(0)
    return MixedFrequencies(HEADS, D, theta)


def grid(h: int, w: int, down: float = 0.0, right: float = 0.0) -> tuple[torch.Tensor, ...]:
    return torch.arange(h)[None] + down, torch.arange(w)[None] + right


def test_angles_are_the_sum_of_both_axes():
    mixed = made()
    rows, cols = torch.tensor([[2.0, 5.5], [0.0, 1.0]]), torch.tensor([[0.0, 3.0, 4.0]] * 2)
    phi = mixed(rows, cols)
    assert phi.shape == (2, HEADS, 6, D // 2)
    f = mixed.weight.detach().numpy()
    for b in range(2):
        for i in range(2):
            for j in range(3):
                expected = rows[b, i].item() * f[0] + cols[b, j].item() * f[1]
                np.testing.assert_allclose(phi[b, :, 3 * i + j].detach(), expected, atol=1e-6)


@pytest.mark.parametrize("theta", [10.0, 100.0])
def test_starts_as_two_axes_turned_at_random_in_each_head(theta):
    by_row, by_col = made(theta).weight.detach().double().numpy()  # [heads, d/2] each
    # naver-ai/rope-vit: magnitude theta^(-4k/d) in two directions at a right angle.
    magnitude = theta ** (-np.arange(0, D, 4)[: D // 4] / D)
    np.testing.assert_allclose(np.hypot(by_row, by_col), [np.tile(magnitude, 2)] * 3, rtol=1e-5)
    directions = np.arctan2(by_row, by_col).reshape(HEADS, 2, D // 4)
    np.testing.assert_allclose(directions - directions[:, :, :1], 0, atol=1e-5)
    turned = (directions[:, 1, 0] - directions[:, 0, 0]) % (2 * math.pi)
    np.testing.assert_allclose(turned, math.pi / 2, atol=1e-5)
    assert len(np.unique(directions[:, 0, 0].round(3))) == HEADS


@settings(deadline=None, max_examples=20)
@given(st.floats(-40, 40), st.floats(-40, 40), st.integers(0, 2**31))
def test_logits_depend_on_differences_only(down, right, seed):
    mixed = made()
    generator = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, 1, HEADS, 12, D, generator=generator)

    def logits(of_q: torch.Tensor, of_k: torch.Tensor) -> torch.Tensor:
        return turn(q, *rotation(of_q)) @ turn(k, *rotation(of_k)).transpose(-1, -2)

    here, there = mixed(*grid(3, 4)), mixed(*grid(3, 4, down, right))
    assert torch.allclose(logits(here, here), logits(there, there), atol=1e-3)


def test_angles_stay_float32():
    mixed, positions = made(), grid(4, 4, 97.3, 55.1)
    plain = mixed(*positions)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mixed(*positions), plain)
    low = mixed.bfloat16()(*positions)
    assert low.dtype == torch.float32
    # Only the frequencies are rounded, not their product with the position.
    by_row, by_col = mixed.weight.float()[:, :, None]
    corner = positions[0][0, 0] * by_row + positions[1][0, 0] * by_col
    assert torch.equal(low[0, :, 0], corner[:, 0])
    assert not torch.equal(low, low.bfloat16().float())
