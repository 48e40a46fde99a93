import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.encodings.laws import extrapolate, yarn_index
from models.geometry import Geometry, inference_geometry, law_scale, training_geometry
from models.names import ATTENTION_SCALES, ENCODINGS, LAWS_FOR, PLACEMENTS
from models.positions.placements import contiguous, even, expected

WIDTH, HEADS, THETA = 32, 2, 100.0


def train(encoding="rope", sampler="randomized", grid=(4, 6), length=(8, 9), seed=0, theta=THETA):
    generator = torch.Generator().manual_seed(seed)
    uniform_h = torch.rand(3, length[0], generator=generator)
    uniform_w = torch.rand(3, length[1], generator=generator)
    return training_geometry(
        encoding, sampler, theta, WIDTH, HEADS, grid, length, uniform_h, uniform_w, "cpu"
    )


def infer(
    encoding="rope",
    length=(6, 6),
    grid=(6, 6),
    placement="contiguous",
    law="extrapolate",
    attention_scale="none",
):
    return inference_geometry(
        encoding,
        THETA,
        WIDTH,
        HEADS,
        (6, 6),
        length,
        grid,
        placement,
        law,
        attention_scale,
        3,
        "cpu",
    )


def test_training_draws_each_axis_from_its_own_range():
    geometry = train()
    assert geometry.rows.shape == (3, 4)
    assert geometry.cols.shape == (3, 6)
    assert geometry.rows.max() <= 7
    assert geometry.cols.max() <= 8
    assert geometry.logit_scale == 1.0


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31), st.sampled_from(ENCODINGS))
def test_range_multiplier_one_is_plain_training_bit_for_bit(seed, encoding):
    drawn = train(encoding, "randomized", (4, 6), (4, 6), seed)
    plain = train(encoding, "consecutive", (4, 6), (4, 6), seed + 1)
    for name in ("rows", "cols", "frequencies_h", "frequencies_w"):
        assert torch.equal(getattr(drawn, name), getattr(plain, name))


@pytest.mark.parametrize(("encoding", "channels"), [("none", 0), ("sincos", 16), ("rope", 8)])
def test_frequencies_fill_the_axis(encoding, channels):
    for geometry in (train(encoding), infer(encoding)):
        assert len(geometry.frequencies_h) == len(geometry.frequencies_w) == channels // 2
        if channels:
            omega = extrapolate(THETA, channels, 1, 1).float()
            assert torch.equal(geometry.frequencies_h, omega)
            assert torch.equal(geometry.frequencies_w, omega)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_law_is_the_identity_at_the_training_size(encoding, placement):
    plain = train(encoding, "consecutive", (6, 6), (6, 6))
    for law in LAWS_FOR[encoding]:
        for attention_scale in ATTENTION_SCALES:
            geometry = infer(
                encoding, placement=placement, law=law, attention_scale=attention_scale
            )
            assert geometry.logit_scale == 1.0
            for name in ("rows", "cols", "frequencies_h", "frequencies_w"):
                assert torch.equal(getattr(geometry, name), getattr(plain, name))


def test_scale_is_the_larger_ratio_of_the_axes():
    assert law_scale(contiguous(9, 6), contiguous(12, 6), (6, 6)) == 2
    assert law_scale(contiguous(12, 6), contiguous(9, 6), (6, 6)) == 2
    assert law_scale(contiguous(9, 6), contiguous(9, 9), (6, 9)) == 1.5
    assert law_scale(contiguous(3, 6), contiguous(2, 6), (6, 6)) == 1
    assert law_scale(contiguous(12, 12), contiguous(12, 12), (12, 12)) == 1
    assert law_scale(even(12, 6), even(12, 6), (6, 6)) == 1
    assert law_scale(expected(12, 6), even(12, 6), (6, 6)) == pytest.approx(84 / 13 / 6)


def test_one_scale_for_both_axes():
    geometry = infer(grid=(6, 12), law="pi")
    plain = infer(grid=(6, 12))
    assert torch.equal(geometry.frequencies_h, plain.frequencies_h / 2)
    assert torch.equal(geometry.frequencies_w, plain.frequencies_w / 2)


def test_ramps_see_the_range_of_their_axis():
    geometry = infer(length=(8, 40), grid=(16, 40), law="yarn-index")
    assert torch.equal(geometry.frequencies_h, yarn_index(THETA, 8, 2, 8).float())
    assert torch.equal(geometry.frequencies_w, yarn_index(THETA, 8, 2, 40).float())
    assert not torch.equal(geometry.frequencies_h, geometry.frequencies_w)


def test_attention_scale_counts_tokens():
    geometry = infer(grid=(9, 12), attention_scale="log")
    assert geometry.logit_scale == pytest.approx(math.log(108) / math.log(36))
    # The tokens of training, not the positions they were drawn from.
    wide = infer(grid=(9, 12), length=(12, 12), attention_scale="log")
    assert wide.logit_scale == geometry.logit_scale
    assert infer(grid=(9, 12), attention_scale="yarn").logit_scale == pytest.approx(
        1.1434, abs=1e-4
    )


def test_inference_places_the_whole_batch_alike():
    geometry = infer(length=(12, 12), grid=(3, 5), placement="even")
    assert geometry.rows.tolist() == [[0, 5.5, 11]] * 3
    assert geometry.cols.shape == (3, 5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoding": "rop"}, "encoding 'rop' is not one of none, sincos, rope.*'rope'"),
        ({"placement": "evn"}, "placement 'evn' is not one of .* did you mean 'even'"),
        ({"law": "ntq"}, "frequency law for rope: 'ntq' is not one of"),
        ({"encoding": "sincos", "law": "yarn"}, "law for sincos: 'yarn' is not one of extrapolate"),
        ({"attention_scale": "loq"}, "attention scale 'loq' is not one of"),
    ],
)
def test_unknown_names(change, message):
    with pytest.raises(ValueError, match=message):
        infer(**change)
    with pytest.raises(ValueError, match="position sampler 'random'"):
        train(sampler="random")


def test_refuses_positions_in_half_precision():
    ones = torch.ones(1, 2)
    with pytest.raises(TypeError, match=r"expected cols in torch.float32, got torch.bfloat16"):
        Geometry(ones, ones.bfloat16(), ones[0], ones[0])
