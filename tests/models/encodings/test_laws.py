import math
import warnings
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.encodings.laws import LAWS, Axis, extrapolate, pi

axes = st.builds(
    Axis,
    theta=st.floats(1.5, 1e6),
    channels=st.integers(2, 64).map(lambda half: 2 * half),
    scale=st.floats(1, 16),
    length=st.integers(1, 300),
    time=st.floats(0, 1),
)


def law(name: str, theta: float, channels: int, scale: float, length: float, time: float = 0):
    return LAWS[name](Axis(theta, channels, scale, length, time))


def expected(name: str, b: float, d: int, s: float, length: int, t: float) -> list[float]:
    """One frequency at a time, as the papers write them."""
    plain = [b ** (-2 * j / d) for j in range(d // 2)]
    periods = [2 * math.pi / omega for omega in plain]
    kappa = 2 * t**2

    def ramp(alpha: float, beta: float) -> list[float]:
        kept = [((length / T) - alpha) / (beta - alpha) for T in periods]
        kept = [min(max(g, 0), 1) for g in kept]
        return [(1 - g) * omega / s + g * omega for g, omega in zip(kept, plain, strict=True)]

    def index_ramp() -> list[float]:
        low, high = (
            rounding(d * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(b)))
            for rounding, turns in ((math.floor, 32), (math.ceil, 1))
        )
        low, high = max(low, 0), max(min(high, d - 1), 0)
        high = high + 0.001 if high == low else high
        gone = [min(max((j - low) / (high - low), 0), 1) for j in range(d // 2)]
        return [omega / s * m + omega * (1 - m) for m, omega in zip(gone, plain, strict=True)]

    def with_base(base: float) -> list[float]:
        return [base ** (-2 * j / d) for j in range(d // 2)]

    def published_lumina() -> list[float]:
        stretched = with_base(b * s ** (d / ((d - 1) * (1 - t) + 1)))
        return [max(*pair) for pair in zip(stretched, (omega / s for omega in plain), strict=True)]

    def nearest_stretched() -> list[float]:
        distances = [abs(round(T) - length) for T in periods]
        k = distances.index(min(distances))
        return [0.9 * 2 * math.pi / (length * s) if j == k else plain[j] for j in range(d // 2)]

    def whole(frequencies: list[float]) -> list[float]:
        return [2 * math.pi / round(2 * math.pi / omega) for omega in frequencies]

    return {
        "extrapolate": lambda: plain,
        "ei": lambda: plain,
        "pi": lambda: [omega / s for omega in plain],
        "ntk": lambda: with_base(b * s ** (d / (d - 2))),
        "yarn": lambda: ramp(1, 32),
        "yarn-index": index_ramp,
        "lumina": published_lumina,
        "lumina-code": lambda: [omega / s for omega in plain] if 1 - t < 0.3 else with_base(b * s),
        "riflex": nearest_stretched,
        "dype-pi": lambda: [omega / s**kappa for omega in plain],
        "dype-ntk": lambda: [plain[j] / s ** (kappa * 2 * j / (d - 2)) for j in range(d // 2)],
        "dype-yarn": lambda: ramp(t**2, 32 * t**2) if t else plain,
        "resonance": lambda: whole(plain),
        "resonance-yarn": lambda: whole(ramp(1, 32)),
    }[name]()


@pytest.mark.parametrize("name", LAWS)
def test_equals_its_formula(name):
    values = product(
        (100, 10000), (16, 32, 36), (1.25, 1.5, 4), (6, 16, 33), (0, 0.05, 0.6, 0.8, 1)
    )
    for b, d, s, length, t in values:
        measured = law(name, b, d, s, length, t).numpy()
        np.testing.assert_allclose(measured, expected(name, b, d, s, length, t), rtol=1e-11)


@settings(deadline=None)
@given(axes, st.sampled_from(sorted(LAWS)))
def test_identity_at_scale_one_bit_for_bit(axis, name):
    same = Axis(axis.theta, axis.channels, 1.0, axis.length, axis.time)
    omega = LAWS[name](same)
    assert omega.dtype == torch.float64
    assert omega.shape == (axis.channels // 2,)
    assert torch.equal(omega, extrapolate(same))


# RIFLEx and Resonance move periods to whole numbers, DyPE goes as far as s^2.
BETWEEN = sorted(LAWS.keys() - {"riflex", "resonance", "resonance-yarn", "dype-pi", "dype-ntk"})


@settings(deadline=None)
@given(axes, st.sampled_from(BETWEEN))
def test_between_interpolation_and_extrapolation(axis, name):
    omega = LAWS[name](axis)
    assert (omega <= extrapolate(axis) * (1 + 1e-12)).all()
    assert (omega >= pi(axis) * (1 - 1e-12)).all()


def rope_utilities(kind: str, b: float, d: int, s: float, length: int):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import LlamaConfig
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        # `dynamic` derives its factor from the length asked for; the others are given it.
        given = {"rope_type": kind, "rope_theta": b, "factor": 1.0 if kind == "dynamic" else s}
        if kind == "yarn":
            given["original_max_position_embeddings"] = length
        config = LlamaConfig(
            hidden_size=d,
            num_attention_heads=1,
            head_dim=d,
            max_position_embeddings=length if kind == "dynamic" else int(length * s),
            rope_parameters=given,
        )
        return ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=int(length * s))


@pytest.mark.parametrize(
    ("name", "kind"), [("pi", "linear"), ("ntk", "dynamic"), ("yarn-index", "yarn")]
)
def test_equals_transformers(name, kind):
    for b, d, s, length in product((100.0, 10000.0), (16, 32, 36), (1.5, 2.0, 4.0), (16, 32, 64)):
        omega, temperature = rope_utilities(kind, b, d, s, length)
        np.testing.assert_allclose(law(name, b, d, s, length).numpy(), omega, rtol=2e-6)
        if kind == "yarn":
            assert temperature == pytest.approx(0.1 * math.log(s) + 1)


@pytest.mark.parametrize("time", [0.2, 0.69, 0.75, 1.0])
def test_luminas_code_equals_diffusers(time):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers.models.embeddings import get_1d_rotary_pos_embed

    late = time <= 0.7  # its own time runs the other way, and it stops interpolating at 0.3
    factors = {"ntk_factor": 2.0} if late else {"linear_factor": 2.0}
    turned = get_1d_rotary_pos_embed(36, 2, 10000.0, freqs_dtype=torch.float64, **factors)
    measured = law("lumina-code", 10000, 36, 2, 16, time)
    np.testing.assert_allclose(measured.numpy(), turned[1].angle().numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("dim", "periods"),
    [
        (36, [6.3, 10.5, 17.5, 29.2, 48.6, 81.2, 135, 226, 377, 628]),
        (32, [6.3, 11.2, 19.9, 35.3, 62.8, 112, 199, 353]),
    ],
)
def test_periods_of_published_heads(dim, periods):
    measured = 2 * math.pi / law("extrapolate", 10000, dim, 1, 16)
    np.testing.assert_allclose(measured[: len(periods)].numpy(), periods, rtol=0.005)


@pytest.mark.parametrize(
    ("dim", "length", "k"), [(36, 16, 2), (32, 16, 2), (36, 32, 3), (32, 32, 3)]
)
def test_riflex_stretches_the_intrinsic_frequency_alone(dim, length, k):
    plain, omega = (law(name, 10000, dim, 2, length) for name in ("extrapolate", "riflex"))
    assert (omega != plain).nonzero().flatten().tolist() == [k]
    assert 2 * math.pi / omega[k].item() == pytest.approx(2 * length / 0.9)


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
    measured = law("ntk", 10000, dim, scale, 16)[1].item() ** (-dim / 2)
    assert measured == pytest.approx(base, abs=0.5)


def test_ntk_keeps_the_first_and_interpolates_the_last():
    omega, plain = law("ntk", 100, 16, 2, 6), law("extrapolate", 100, 16, 2, 6)
    assert omega[0] == plain[0]
    assert omega[-1].item() == pytest.approx(plain[-1].item() / 2)


def kept(omega: torch.Tensor, dim: int, scale: float) -> np.ndarray:
    plain = law("extrapolate", 10000, dim, 1, 1)
    return ((omega - plain / scale) / (plain - plain / scale)).numpy()


@pytest.mark.parametrize(
    ("name", "length", "mask", "digits"),
    [
        ("yarn", 16, [0.05, 0.017, 0, 0, 0], 5e-4),
        ("yarn", 32, [0.13, 0.07, 0.03, 0.003, 0], 6e-3),
        ("yarn-index", 16, [1, 0.5, 0, 0, 0], 1e-12),
        ("yarn-index", 32, [1, 0.75, 0.5, 0.25, 0], 1e-12),
    ],
)
def test_yarn_masks(name, length, mask, digits):
    measured = kept(law(name, 10000, 36, 2, length), 36, 2)
    np.testing.assert_allclose(measured[:5], mask, atol=digits)
    np.testing.assert_allclose(measured[5:], 0, atol=1e-12)


def test_yarn_keeps_what_turns_often():
    omega, plain = law("yarn", 10000, 36, 4, 4096), law("extrapolate", 10000, 36, 1, 1)
    turns = 4096 * plain / (2 * math.pi)
    assert torch.equal(omega[turns > 32], plain[turns > 32])
    assert torch.equal(omega[turns < 1], plain[turns < 1] / 4)
    assert (turns > 32).any()
    assert (turns < 1).any()


def test_yarn_index_ramp_without_width():
    measured = kept(law("yarn-index", 10000, 16, 2, 6), 16, 2)
    np.testing.assert_allclose(measured, [1, 0, 0, 0, 0, 0, 0, 0], atol=1e-12)


def test_time_runs_from_noise_to_data():
    def at(name: str, time: float) -> torch.Tensor:
        return law(name, 100, 16, 2, 6, time)

    plain, interpolated = at("extrapolate", 0), at("pi", 0)
    for name in ("dype-pi", "dype-ntk", "dype-yarn"):
        assert torch.equal(at(name, 0.0), plain)
    half = math.sqrt(0.5)  # kappa = 1
    assert torch.allclose(at("dype-pi", half), interpolated)
    assert torch.allclose(at("dype-ntk", half), at("ntk", 0))
    assert torch.equal(at("dype-yarn", 1.0), at("yarn", 0))
    # Lumina goes the other way: it interpolates the noise, and stretches the base at the data.
    assert torch.equal(at("lumina", 1.0)[1:], interpolated[1:])
    assert torch.allclose(at("lumina", 0.0), law("extrapolate", 200, 16, 1, 6))
    assert torch.equal(at("lumina-code", 0.71), interpolated)
    assert torch.allclose(at("lumina-code", 0.7), at("lumina", 0.0))


@settings(deadline=None)
@given(axes)
def test_resonance_has_whole_periods(axis):
    for name in ("resonance", "resonance-yarn"):
        periods = 2 * math.pi / LAWS[name](axis)
        if axis.scale > 1:
            assert torch.allclose(periods, periods.round(), rtol=1e-12)


def test_sincos_frequencies_are_the_same_law():
    # DiT: omega_k = 10000^(-k/(D/4)); an axis has D/2 channels.
    width = 64
    published = 1 / 10000 ** (np.arange(width // 4, dtype=np.float64) / (width / 4))
    measured = law("extrapolate", 10000, width // 2, 1, 1).numpy()
    np.testing.assert_allclose(measured, published, rtol=1e-14)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((10000, 5, 1, 16), "even number of channels an axis, got 5"),
        ((1, 8, 1, 16), "theta above 1, got 1"),
        ((10000, 8, 0.5, 16), "scale of at least 1, got 0.5"),
        ((10000, 8, 1, 0), "positive number of trained positions, got 0"),
        ((10000, 8, 1, 16, 1.5), r"time between 0 \(data\) and 1 \(noise\), got 1.5"),
    ],
)
def test_plain_errors(values, message):
    with pytest.raises(ValueError, match=message):
        Axis(*values)


@pytest.mark.parametrize("name", ["ntk", "dype-ntk"])
def test_ntk_refuses_one_frequency(name):
    with pytest.raises(ValueError, match=f"the {name} law needs more than 2 channels an axis, got"):
        law(name, 10000, 2, 2, 16)
