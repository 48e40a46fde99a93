import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.encodings.laws import Axis, extrapolate
from models.encodings.rope import angles, rotation, turn

D = 16  # head dimension: 4 frequencies an axis
OMEGA = extrapolate(Axis(100, D // 2, 1, 1)).float()


def rotate(x, phi):
    return turn(x, *rotation(phi))


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def grid(h: int, w: int, down: float = 0.0, right: float = 0.0) -> torch.Tensor:
    rows, cols = torch.arange(h)[None] + down, torch.arange(w)[None] + right
    return angles(rows, cols, OMEGA, OMEGA)


def logits(q: torch.Tensor, k: torch.Tensor, of_q: torch.Tensor, of_k: torch.Tensor):
    return rotate(q, of_q) @ rotate(k, of_k).transpose(-1, -2)


def test_angles_are_rows_then_columns_in_row_major_order():
    rows, cols = torch.tensor([[2.0, 5.0]]), torch.tensor([[0.0, 3.0, 4.0]])
    other = OMEGA / 3
    phi = angles(rows, cols, OMEGA, other)
    assert phi.shape == (1, 6, D // 2)
    for i in range(2):
        for j in range(3):
            expected = torch.cat((rows[0, i] * OMEGA, cols[0, j] * other))
            assert torch.equal(phi[0, i * 3 + j], expected)


def test_rotation_equals_complex_numbers():
    phi, x = grid(3, 4), normal(0, 2, 3, 12, D)
    pairs = x.double().numpy()
    z = pairs[..., 0::2] + 1j * pairs[..., 1::2]
    turned = z * np.exp(1j * phi[:, None].double().numpy())
    expected = np.stack((turned.real, turned.imag), axis=-1).reshape(pairs.shape)
    np.testing.assert_allclose(rotate(x, phi).numpy(), expected, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.floats(-40, 40),
    st.floats(-40, 40),
    st.integers(0, 2**31),
)
def test_logits_depend_on_differences_only(h, w, down, right, seed):
    q, k = normal(seed, 1, 2, h * w, D), normal(seed + 1, 1, 2, h * w, D)
    here, there = grid(h, w), grid(h, w, down, right)
    assert torch.allclose(logits(q, k, here, here), logits(q, k, there, there), atol=1e-3)


def test_logits_feel_a_shift_of_the_keys_alone():
    q, k = normal(0, 1, 2, 9, D), normal(1, 1, 2, 9, D)
    here = grid(3, 3)
    for moved in (grid(3, 3, down=1.0), grid(3, 3, right=1.0)):
        assert not torch.allclose(logits(q, k, here, here), logits(q, k, here, moved), atol=0.1)


@settings(deadline=None, max_examples=30)
@given(st.floats(-100, 100), st.floats(-100, 100), st.integers(0, 2**31))
def test_every_pair_keeps_its_norm(down, right, seed):
    x = normal(seed, 2, 2, 6, D)
    turned = rotate(x, grid(2, 3, down, right))
    assert torch.allclose(
        turned.unflatten(-1, (-1, 2)).norm(dim=-1),
        x.unflatten(-1, (-1, 2)).norm(dim=-1),
        atol=1e-5,
    )


def test_angles_stay_float32_under_autocast():
    plain = grid(4, 4, 97.3, 55.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = grid(4, 4, 97.3, 55.1)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, plain)
    assert not torch.equal(mixed, mixed.bfloat16().float())


def test_heads_may_turn_differently():
    phi = torch.stack((grid(2, 3), grid(2, 3, 1.0, 4.0)), dim=1)  # [1, 2, 6, d/2]
    x = normal(0, 1, 2, 6, D)
    turned = turn(x, *rotation(phi))
    for head in range(2):
        assert torch.equal(turned[:, head], turn(x, *rotation(phi[:, head]))[:, head])


def test_half_precision_input_is_turned_in_float32():
    x, phi = normal(0, 1, 2, 16, D).bfloat16(), grid(4, 4, 90.0, 90.0)
    turned = turn(x, *rotation(phi))
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, turn(x.float(), *rotation(phi)).bfloat16())
