import pytest

from models.encodings.attention_scale import ATTENTION_SCALES


@pytest.mark.parametrize(("scale", "value"), [(1, 1), (1.5, 1.083), (2, 1.143), (4, 1.297)])
def test_yarn_temperature(scale, value):
    assert ATTENTION_SCALES["yarn"](256, 256, scale) == pytest.approx(value, abs=6e-4)


@pytest.mark.parametrize(
    ("train", "now", "root", "linear", "fitv2"),
    [
        (16, 20, 1.040, 1.081, 1.206),
        (16, 24, 1.071, 1.146, 1.271),
        (16, 32, 1.118, 1.250, 1.375),
        (16, 64, 1.225, 1.500, 1.625),
        (32, 48, 1.057, 1.117, 1.217),
        (32, 64, 1.095, 1.200, 1.300),
        (16, 16, 1, 1, 1.125),
        (16, 12, 0.947, 0.896, 1.021),
        (16, 8, 0.866, 0.750, 0.875),
    ],
)
def test_logarithmic_scales(train, now, root, linear, fitv2):
    tokens = train**2, now**2, max(now / train, 1)
    expected = {
        "none": 1,
        "sqrt-log": root,
        "log": linear,
        "log-clamped": max(linear, 1),
        "fitv2-code": fitv2,
    }
    for name, value in expected.items():
        assert ATTENTION_SCALES[name](*tokens) == pytest.approx(value, abs=1e-3), name


def test_nothing_at_the_training_size_but_for_the_published_code():
    for name, scale in ATTENTION_SCALES.items():
        assert (scale(36, 36, 1.0) == 1) == (name != "fitv2-code")


@pytest.mark.parametrize("name", ["sqrt-log", "log", "log-clamped", "fitv2-code"])
def test_logarithmic_scales_need_tokens(name):
    with pytest.raises(ValueError, match="at least 2 tokens in training"):
        ATTENTION_SCALES[name](1, 4, 2.0)
