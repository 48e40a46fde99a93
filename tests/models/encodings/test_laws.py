import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.encodings.laws import (
    ATTENTION_SCALES,
    LAWS,
    extrapolate,
    ntk,
    pi,
    yarn,
    yarn_index,
)

dims = st.integers(2, 64).map(lambda half: 2 * half)
bases = st.floats(1.5, 1e6)
lengths = st.integers(1, 300).map(float)


@settings(deadline=None)
@given(bases, dims, lengths, st.sampled_from(sorted(LAWS)))
def test_identity_at_scale_one_bit_for_bit(theta, dim, length, name):
    omega = LAWS[name](theta, dim, 1.0, length)
    assert omega.dtype == torch.float64
    assert omega.shape == (dim // 2,)
    assert torch.equal(omega, extrapolate(theta, dim, 1.0, length))


@settings(deadline=None)
@given(bases, dims, st.floats(1, 16), lengths, st.sampled_from(sorted(LAWS)))
def test_between_interpolation_and_extrapolation(theta, dim, scale, length, name):
    omega = LAWS[name](theta, dim, scale, length)
    assert (omega <= extrapolate(theta, dim, scale, length) * (1 + 1e-12)).all()
    assert (omega >= pi(theta, dim, scale, length) * (1 - 1e-12)).all()


def test_extrapolate_equals_numpy():
    j = np.arange(18)
    expected = 10000.0 ** (-2 * j / 36)
    np.testing.assert_allclose(extrapolate(10000, 36, 4, 16).numpy(), expected, rtol=1e-14)
    np.testing.assert_allclose(pi(10000, 36, 4, 16).numpy(), expected / 4, rtol=1e-14)


@pytest.mark.parametrize(
    ("dim", "periods"),
    [
        (36, [6.3, 10.5, 17.5, 29.2, 48.6, 81.2, 135, 226, 377, 628]),
        (32, [6.3, 11.2, 19.9, 35.3, 62.8, 112, 199, 353]),
    ],
)
def test_periods_of_published_heads(dim, periods):
    measured = 2 * math.pi / extrapolate(10000, dim, 1, 16)
    np.testing.assert_allclose(measured[: len(periods)].numpy(), periods, rtol=0.005)


@pytest.mark.parametrize(
    ("dim", "scale", "base"),
    [
        (36, 1.5, 15362),
        (36, 2, 20832),
        (36, 4, 43399),
        (32, 1.5, 15411),
        (32, 2, 20946),
        (32, 4, 43873),
    ],
)
def test_ntk_base(dim, scale, base):
    # omega_1 = base^(-2/dim)
    assert ntk(10000, dim, scale, 16)[1].item() ** (-dim / 2) == pytest.approx(base, abs=0.5)


def test_ntk_keeps_the_first_and_interpolates_the_last():
    omega, plain = ntk(100, 16, 2, 6), extrapolate(100, 16, 2, 6)
    assert omega[0] == plain[0]
    assert omega[-1].item() == pytest.approx(plain[-1].item() / 2)


def kept(omega: torch.Tensor, dim: int, scale: float) -> np.ndarray:
    plain = extrapolate(10000, dim, 1, 1)
    return ((omega - plain / scale) / (plain - plain / scale)).numpy()


@pytest.mark.parametrize(
    ("law", "length", "mask", "digits"),
    [
        (yarn, 16, [0.05, 0.017, 0, 0, 0], 5e-4),
        (yarn, 32, [0.13, 0.07, 0.03, 0.003, 0], 6e-3),
        (yarn_index, 16, [1, 0.5, 0, 0, 0], 1e-12),
        (yarn_index, 32, [1, 0.75, 0.5, 0.25, 0], 1e-12),
    ],
)
def test_yarn_masks(law, length, mask, digits):
    measured = kept(law(10000, 36, 2, length), 36, 2)
    np.testing.assert_allclose(measured[:5], mask, atol=digits)
    np.testing.assert_allclose(measured[5:], 0, atol=1e-12)


def test_yarn_keeps_what_turns_often():
    omega = yarn(10000, 36, 4, 4096)
    plain = extrapolate(10000, 36, 1, 1)
    turns = 4096 * plain / (2 * math.pi)
    assert torch.equal(omega[turns > 32], plain[turns > 32])
    assert torch.equal(omega[turns < 1], plain[turns < 1] / 4)
    assert (turns > 32).any()
    assert (turns < 1).any()


def test_yarn_index_ramp_without_width():
    measured = kept(yarn_index(10000, 16, 2, 6), 16, 2)
    np.testing.assert_allclose(measured, [1, 0, 0, 0, 0, 0, 0, 0], atol=1e-12)


def test_sincos_frequencies_are_the_same_law():
    # DiT: omega_k = 10000^(-k/(D/4)); an axis has D/2 channels.
    width = 64
    published = 1 / 10000 ** (np.arange(width // 4, dtype=np.float64) / (width / 4))
    np.testing.assert_allclose(extrapolate(10000, width // 2, 1, 1).numpy(), published, rtol=1e-14)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10000, 5, 1, 16), "even number of channels an axis, got 5"),
        ((1, 8, 1, 16), "theta above 1, got 1"),
        ((10000, 8, 0.5, 16), "scale of at least 1, got 0.5"),
        ((10000, 8, 1, 0), "positive number of trained positions, got 0"),
    ],
)
@pytest.mark.parametrize("name", sorted(LAWS))
def test_plain_errors(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        LAWS[name](*arguments)


def test_ntk_refuses_one_frequency():
    with pytest.raises(ValueError, match="more than 2 channels an axis, got 2"):
        ntk(10000, 2, 2, 16)


@pytest.mark.parametrize(("scale", "value"), [(1, 1), (1.5, 1.083), (2, 1.143), (4, 1.297)])
def test_yarn_temperature(scale, value):
    assert ATTENTION_SCALES["yarn"](256, 256, scale) == pytest.approx(value, abs=6e-4)


@pytest.mark.parametrize(
    ("train", "test", "root", "linear"),
    [
        (16, 20, 1.040, 1.081),
        (16, 24, 1.071, 1.146),
        (16, 32, 1.118, 1.250),
        (16, 64, 1.225, 1.500),
        (32, 48, 1.057, 1.117),
        (32, 64, 1.095, 1.200),
        (16, 16, 1, 1),
        (16, 12, 0.947, 0.896),
        (16, 8, 0.866, 0.750),
    ],
)
def test_logarithmic_scales(train, test, root, linear):
    tokens = train**2, test**2, max(test / train, 1)
    assert ATTENTION_SCALES["sqrt-log"](*tokens) == pytest.approx(root, abs=1e-3)
    assert ATTENTION_SCALES["log"](*tokens) == pytest.approx(linear, abs=1e-3)
    assert ATTENTION_SCALES["log-clamped"](*tokens) == pytest.approx(max(linear, 1), abs=1e-3)
    assert ATTENTION_SCALES["none"](*tokens) == 1


@pytest.mark.parametrize("name", ["sqrt-log", "log", "log-clamped"])
def test_logarithmic_scales_need_tokens(name):
    with pytest.raises(ValueError, match="at least 2 tokens in training"):
        ATTENTION_SCALES[name](1, 4, 2.0)
