import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from models.encodings.laws import LAWS, Axis, extrapolate, yarn_index
from models.encodings.sincos import sincos
from models.geometry import Geometry, inference_geometry, law_scales, training_geometry
from models.names import (
    ATTENTION_SCALES,
    COMPRESSING,
    ENCODINGS,
    LAWS_FOR,
    PLAIN_AT_ONE,
    TIME_AWARE,
)
from models.positions.placements import PLACEMENTS, contiguous, even
from models.positions.samplers import SAMPLERS

WIDTH, HEADS, THETA = 32, 2, 100.0


UNIFORMS = ("uniform_h", "uniform_w", "shared")


def draws(length, seed, *batch):
    generator = torch.Generator().manual_seed(seed)
    sizes = (*batch, length[0]), (*batch, length[1]), batch
    return [torch.rand(*size, generator=generator) for size in sizes]


def train(encoding="rope", sampler="randomized", grid=(4, 6), length=(8, 9), seed=0, batch=(3,)):
    drawn = draws(length, seed, *batch)
    return training_geometry(encoding, sampler, THETA, WIDTH, HEADS, grid, length, *drawn, "cpu")


def infer(**change):
    given = {
        "encoding": "rope",
        "length": (6, 6),
        "grid": (6, 6),
        "placement": "contiguous",
        "law": "extrapolate",
        "law_scale": "shared",
        "attention_scale": "none",
    }
    return inference_geometry(
        theta=THETA,
        width=WIDTH,
        heads=HEADS,
        train_grid=(6, 6),
        batch=3,
        device="cpu",
        **(given | change),
    )


def test_training_draws_each_axis_from_its_own_range():
    geometry = train()
    assert geometry.rows.shape == (3, 4)
    assert geometry.cols.shape == (3, 6)
    assert geometry.rows.max() <= 7
    assert geometry.cols.max() <= 8
    assert geometry.logit_scale == 1.0


def test_each_layer_can_draw_its_own():
    geometry = train(batch=(2, 3))
    assert geometry.rows.shape == (2, 3, 4)
    assert geometry.cols.shape == (2, 3, 6)
    assert not torch.equal(geometry.rows[0], geometry.rows[1])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.sampled_from(ENCODINGS), st.sampled_from(PLAIN_AT_ONE))
def test_range_multiplier_one_is_plain_training_bit_for_bit(seed, encoding, sampler):
    drawn = train(encoding, sampler, (4, 6), (4, 6), seed)
    plain = train(encoding, "consecutive", (4, 6), (4, 6), seed + 1)
    for name in ("rows", "cols", "frequencies_h", "frequencies_w"):
        assert torch.equal(getattr(drawn, name), getattr(plain, name))


CHANNELS = [("none", 0), ("sincos", 16), ("learned", 0), ("rope", 8), ("rope-mixed", 2)]


@pytest.mark.parametrize(("encoding", "channels"), CHANNELS)
def test_frequencies_fill_the_axis(encoding, channels):
    for geometry in (train(encoding), infer(encoding=encoding)):
        assert len(geometry.frequencies_h) == len(geometry.frequencies_w) == channels // 2
        if channels:
            omega = extrapolate(Axis(THETA, channels, 1, 1)).float()
            assert torch.equal(geometry.frequencies_h, omega)
            assert torch.equal(geometry.frequencies_w, omega)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_law_is_the_identity_at_the_training_size(encoding, placement):
    plain = train(encoding, "consecutive", (6, 6), (6, 6))
    for law in LAWS_FOR[encoding]:
        for attention_scale in ATTENTION_SCALES:
            geometry = infer(
                encoding=encoding, placement=placement, law=law, attention_scale=attention_scale
            )
            assert (geometry.logit_scale == 1.0) == (attention_scale != "fitv2-code")
            assert geometry.interpolated == (False, False)
            for name in ("rows", "cols", "frequencies_h", "frequencies_w"):
                assert torch.equal(getattr(geometry, name), getattr(plain, name))


def scales_of(grid, length, kind, place=contiguous):
    return law_scales(place(grid[0], length[0]), place(grid[1], length[1]), length, kind)


def test_scales_are_how_far_positions_outgrow_the_range():
    assert scales_of((9, 12), (6, 6), "shared") == (2, 2)
    assert scales_of((12, 9), (6, 6), "shared") == (2, 2)
    assert scales_of((12, 9), (6, 6), "per_axis") == (2, 1.5)
    assert scales_of((9, 9), (6, 9), "shared") == (1.5, 1.5)
    assert scales_of((9, 9), (6, 9), "per_axis") == (1.5, 1)
    assert scales_of((3, 2), (6, 6), "per_axis") == (1, 1)
    assert scales_of((12, 12), (6, 6), "shared", even) == (1, 1)
    with pytest.raises(ValueError, match="law scale 'own' is not one of shared, per_axis"):
        scales_of((3, 3), (6, 6), "own")


@pytest.mark.parametrize("placement", COMPRESSING[:2])
def test_placements_that_stay_inside_leave_a_law_nothing_to_do(placement):
    asked = {"grid": (12, 16), "placement": placement}
    plain, stretched = infer(**asked), infer(law="pi", attention_scale="yarn", **asked)
    assert torch.equal(plain.frequencies_h, stretched.frequencies_h)
    assert stretched.logit_scale == 1


def test_one_scale_for_both_axes_or_each_its_own():
    plain = infer(grid=(9, 12))
    both, own = infer(grid=(9, 12), law="pi"), infer(grid=(9, 12), law="pi", law_scale="per_axis")
    for measured, scales in ((both, (2, 2)), (own, (1.5, 2))):
        assert torch.allclose(measured.frequencies_h, plain.frequencies_h / scales[0])
        assert torch.allclose(measured.frequencies_w, plain.frequencies_w / scales[1])
    for law_scale in ("shared", "per_axis"):  # the temperature has one scale, the larger
        tempered = infer(grid=(9, 12), attention_scale="yarn", law_scale=law_scale)
        assert tempered.logit_scale == pytest.approx(1.1434, abs=1e-4)


def test_rope_mixed_interpolates_by_a_factor():
    geometry = infer(encoding="rope-mixed", grid=(9, 12), law="pi", law_scale="per_axis")
    assert geometry.frequencies_h.tolist() == pytest.approx([1 / 1.5])
    assert geometry.frequencies_w.tolist() == [0.5]


def test_laws_see_the_time():
    for law in LAWS_FOR["rope"]:
        for time in (0.2, 0.9):
            geometry = infer(grid=(12, 12), law=law, time=time)
            expected = LAWS[law](Axis(THETA, 8, 2, 6, time)).float()
            assert torch.equal(geometry.frequencies_h, expected)
        same = torch.equal(geometry.frequencies_w, infer(grid=(12, 12), law=law).frequencies_w)
        assert same == (law not in TIME_AWARE)


@pytest.mark.parametrize(
    ("length", "grid"), [((6, 6), (9, 13)), ((4, 7), (6, 7)), ((6, 6), (6, 6))]
)
def test_ei_is_a_bilinear_resize_of_the_sincos_code(length, grid):
    def code(geometry):
        frequencies = geometry.frequencies_h, geometry.frequencies_w
        placed = geometry.rows[:1], geometry.cols[:1]
        return sincos(*placed, WIDTH, *frequencies, geometry.interpolated)[0]

    trained = code(infer(encoding="sincos", length=length, grid=length))
    picture = trained.view(*length, WIDTH).permute(2, 0, 1)[None]
    resized = F.interpolate(picture, grid, mode="bilinear", align_corners=False)
    measured = code(infer(encoding="sincos", length=length, grid=grid, law="ei"))
    assert torch.allclose(measured.view(*grid, WIDTH), resized[0].permute(1, 2, 0), atol=1e-5)


def test_ei_does_nothing_inside_the_range():
    for placement in PLACEMENTS:
        changed, plain = (
            infer(encoding="sincos", length=(12, 12), grid=(5, 7), placement=placement, law=law)
            for law in ("ei", "extrapolate")
        )
        assert torch.equal(changed.rows, plain.rows)
        assert changed.interpolated == (False, False)


def test_ei_leaves_an_axis_alone_that_outgrew_nothing():
    """Centred on an axis half as long, the positions are halves, and codes of their own."""
    changed, plain = (
        infer(encoding="sincos", length=(8, 8), grid=(12, 5), placement="centred", law=law)
        for law in ("ei", "extrapolate")
    )
    assert changed.interpolated == (True, False)
    assert torch.equal(changed.cols, plain.cols)


def test_ramps_see_the_range_of_their_axis():
    geometry = infer(length=(8, 40), grid=(16, 40), law="yarn-index")
    assert torch.equal(geometry.frequencies_h, yarn_index(Axis(THETA, 8, 2, 8)).float())
    assert torch.equal(geometry.frequencies_w, yarn_index(Axis(THETA, 8, 2, 40)).float())
    assert not torch.equal(geometry.frequencies_h, geometry.frequencies_w)


def test_attention_scale_counts_tokens():
    geometry = infer(grid=(9, 12), attention_scale="log")
    assert geometry.logit_scale == pytest.approx(math.log(108) / math.log(36))
    # The tokens of training, not the positions they were drawn from.
    wide = infer(grid=(9, 12), length=(12, 12), attention_scale="log")
    assert wide.logit_scale == geometry.logit_scale


def test_inference_places_the_whole_batch_alike():
    geometry = infer(length=(12, 12), grid=(3, 5), placement="even")
    assert geometry.rows.tolist() == [[0, 5.5, 11]] * 3
    assert geometry.cols.shape == (3, 5)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_random_placement_draws_as_training_does(sampler):
    given = dict(zip(UNIFORMS, draws((8, 9), 0, 3), strict=True), sampler=sampler)
    geometry = infer(length=(8, 9), grid=(4, 6), placement="random", law="pi", **given)
    trained = train(sampler=sampler)
    for name in ("rows", "cols", "frequencies_h", "frequencies_w"):
        assert torch.equal(getattr(geometry, name), getattr(trained, name))
    with pytest.raises(ValueError, match="cannot draw 9 distinct positions out of 8"):
        infer(length=(8, 9), grid=(9, 6), placement="random", **given)
    with pytest.raises(ValueError, match="'random' needs uniform_h, uniform_w and shared"):
        infer(placement="random", sampler=sampler)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoding": "rop"}, "encoding 'rop' is not one of none, sincos, learned, rope.*'rope'"),
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
    with pytest.raises(ValueError, match="position sampler 'random'"):
        infer(placement="random", sampler="random", **dict.fromkeys(UNIFORMS, torch.zeros(3, 6)))


def test_refuses_positions_in_half_precision():
    ones = torch.ones(1, 2)
    with pytest.raises(TypeError, match=r"expected cols in torch.float32, got torch.bfloat16"):
        Geometry(ones, ones.bfloat16(), ones[0], ones[0])
