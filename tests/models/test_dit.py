from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.dit import DiT, patchify, unpatchify
from models.encodings.rope import angles, rotation
from models.geometry import Geometry, inference_geometry
from models.names import ENCODINGS

WIDTH, HEADS, CLASSES = 32, 2, 5
ROTARY = ("rope", "rope-mixed")


def build(
    encoding: str = "rope",
    micro: bool = False,
    qk_norm: bool = True,
    seed: int = 0,
    outputs: int = 1,
) -> DiT:
    torch.manual_seed(seed)
    return DiT(
        channels=2,
        classes=CLASSES,
        width=WIDTH,
        depth=2,
        heads=HEADS,
        mlp_ratio=2.0,
        patch=2,
        encoding=encoding,
        qk_norm=qk_norm,
        micro_conditioning=micro,
        lengths=(3, 3),
        theta=10.0,
        outputs=outputs,
    )


def awake(encoding: str, micro: bool = False) -> DiT:
    """A model whose every weight acts, as after some training."""
    model = build(encoding, micro)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.15 * torch.randn(parameter.shape, generator=generator)
    return model


def place(encoding: str, h: int = 3, w: int = 3, theta: float = 100.0, **change) -> Geometry:
    chosen = {"placement": "contiguous", "law": "extrapolate", "attention_scale": "none", **change}
    return inference_geometry(
        encoding=encoding,
        theta=theta,
        width=WIDTH,
        heads=HEADS,
        train_grid=(3, 3),
        length=(3, 3),
        grid=(h, w),
        law_scale="shared",
        batch=2,
        device="cpu",
        **chosen,
    )


def batch(h: int = 3, w: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 2, 2 * h, 2 * w, generator=generator)
    return x, torch.tensor([0.2, 0.8]), torch.tensor([1, CLASSES])


MICRO = torch.tensor([[0.0, 0.0, 6.0, 6.0], [2.0, 1.0, 9.0, 8.0]])


def test_patches_hold_their_own_pixels_and_come_back():
    x, _, _ = batch(3, 5)
    tokens = patchify(x, 2)
    assert tokens.shape == (2, 15, 8)
    assert torch.equal(tokens[1, 1 * 5 + 3], x[1, :, 2:4, 6:8].flatten())
    assert torch.equal(unpatchify(tokens, 2, 3, 5), x)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_starts_at_zero(encoding):
    x, t, y = batch()
    assert torch.count_nonzero(build(encoding)(x, t, y, place(encoding))) == 0
    assert torch.count_nonzero(awake(encoding)(x, t, y, place(encoding))) > 0


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("h", "w"), [(3, 3), (2, 5), (5, 2), (1, 1)])
def test_any_height_and_width(encoding, h, w):
    x, t, y = batch(h, w)
    out = awake(encoding)(x, t, y, place(encoding, h, w))
    assert out.shape == x.shape
    assert out.isfinite().all()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_gradients_are_finite_and_reach_every_weight(encoding):
    model = awake(encoding, micro=True)
    x, t, y = batch(3, 4)
    model(x, t, y, place(encoding, 3, 4), MICRO).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_variance_is_a_second_set_of_channels(encoding):
    x, t, y = batch(3, 4)
    model = build(encoding, outputs=2)
    torch.nn.init.normal_(model.final.proj.weight)
    out = model(x, t, y, place(encoding, 3, 4))
    assert out.shape == (2, 4, 6, 8)
    assert not torch.allclose(out[:, :2], out[:, 2:], atol=1e-2)


def test_starts_as_dit_does():
    model = build(micro=True)
    zero = ("modulation.weight", "final.proj.weight", "micro_embed.outer.weight")
    normal = ("label_embed.weight", "time_embed.inner.weight", "micro_embed.inner.weight")
    normal += ("time_embed.outer.weight",)
    for name, parameter in model.named_parameters():
        if name.endswith((*zero, ".bias")):
            assert torch.count_nonzero(parameter) == 0, name
        elif name in normal:
            # A sample of at least 192 normal numbers strays from its deviation by 5 % (1 sigma).
            assert parameter.std().item() == pytest.approx(0.02, rel=0.25), name
        elif parameter.dim() == 2:
            bound = (6 / sum(parameter.shape)) ** 0.5
            assert parameter.abs().max() <= bound, name
            assert parameter.std().item() == pytest.approx(bound / 3**0.5, rel=0.2), name
        else:
            assert torch.equal(parameter, torch.ones_like(parameter)), name


def permuted(x: Tensor, order: Tensor) -> Tensor:
    h, w = x.shape[2] // 2, x.shape[3] // 2
    return unpatchify(patchify(x, 2)[:, order], 2, h, w)


@settings(deadline=None, max_examples=10)
@given(st.permutations(range(9)))
def test_without_encoding_the_order_of_patches_does_not_matter(order):
    model, (x, t, y) = awake("none"), batch()
    turned = model(permuted(x, torch.tensor(order)), t, y, place("none"))
    straight = permuted(model(x, t, y, place("none")), torch.tensor(order))
    assert torch.allclose(turned, straight, atol=1e-4)


@pytest.mark.parametrize("encoding", ENCODINGS[1:])
def test_an_encoding_tells_the_order(encoding):
    model, (x, t, y) = awake(encoding), batch()
    order = torch.arange(9).flip(0)[torch.tensor([0, 2, 1, 3, 4, 5, 6, 7, 8])]
    turned = model(permuted(x, order), t, y, place(encoding))
    straight = permuted(model(x, t, y, place(encoding)), order)
    assert not torch.allclose(turned, straight, atol=1e-2)


def test_rotations_see_differences_of_positions_and_tables_positions():
    x, t, y = batch()
    for encoding in ENCODINGS[1:]:
        here = place(encoding)
        there = replace(here, rows=here.rows + 3, cols=here.cols + 7)
        model = awake(encoding)
        same = torch.allclose(model(x, t, y, here), model(x, t, y, there), atol=1e-4)
        assert same == (encoding in ROTARY)


@pytest.mark.parametrize("encoding", ENCODINGS[1:])
def test_rows_and_columns_are_not_confused(encoding):
    model, (x, t, y) = awake(encoding), batch(3, 4)
    geometry = place(encoding, 3, 4)
    plain = model(x, t, y, geometry)
    # With equal columns, patches may change columns; with equal rows, they may not.
    order = torch.arange(12).view(3, 4)[:, [2, 0, 3, 1]].flatten()
    alike = replace(geometry, cols=torch.zeros_like(geometry.cols))
    moved = permuted(model(x, t, y, alike), order)
    assert torch.allclose(model(permuted(x, order), t, y, alike), moved, atol=1e-4)
    alike = replace(geometry, rows=torch.zeros_like(geometry.rows))
    moved = permuted(model(x, t, y, alike), order)
    assert not torch.allclose(model(permuted(x, order), t, y, alike), moved, atol=1e-2)
    assert not torch.allclose(model(x, t, y, alike), plain, atol=1e-2)


@pytest.mark.parametrize("encoding", ROTARY)
def test_each_layer_turns_by_its_own_positions(encoding):
    model, (x, t, y) = awake(encoding), batch(3, 4)
    plain = place(encoding, 3, 4)
    rows = torch.stack((plain.rows, 2 * plain.rows + 1))  # [layers, B, h]
    cols = torch.stack((plain.cols * 1.5, plain.cols))  # [layers, B, w]
    seen = turns_of(model)
    out = model(x, t, y, replace(plain, rows=rows, cols=cols))
    assert not torch.allclose(out, model(x, t, y, plain), atol=1e-3)
    for layer in range(2):
        if encoding == "rope":
            phi = angles(rows[layer], cols[layer], plain.frequencies_h, plain.frequencies_w)
        else:
            phi = model.mixed[layer](rows[layer], cols[layer])
        for measured, expected in zip(seen[layer], rotation(phi), strict=True):
            assert torch.equal(measured.expand_as(expected), expected)
    same = replace(plain, rows=plain.rows.expand(2, 2, 3), cols=plain.cols.expand(2, 2, 4))
    assert torch.equal(model(x, t, y, same), model(x, t, y, plain))


def turns_of(model: DiT) -> list[tuple[Tensor, Tensor]]:
    """Fills up with the cosines and sines that each layer is given."""
    seen: list[tuple[Tensor, Tensor]] = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[2]))
    return seen


@pytest.mark.parametrize("encoding", ROTARY)
def test_turns_stay_float32(encoding):
    model, (x, t, y) = awake(encoding), batch()
    geometry = place(encoding)
    geometry = replace(geometry, rows=geometry.rows + 97.3, cols=geometry.cols + 55.1)
    seen = turns_of(model)
    exact = model(x, t, y, geometry)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(x, t, y, geometry)
    for layer in range(2):
        for plain, mixed in zip(seen[layer], seen[2 + layer], strict=True):
            assert mixed.dtype == torch.float32
            assert torch.equal(mixed, plain)
            assert not torch.equal(mixed, mixed.bfloat16().float())
    model.bfloat16()(x, t, y, geometry)
    assert {turn.dtype for turns in seen for turn in turns} == {torch.float32}
    if encoding == "rope":  # nothing of it is a weight
        assert all(torch.equal(*pair) for pair in zip(seen[4], seen[0], strict=True))
    assert exact.dtype == torch.float32


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_samples_do_not_touch_each_other(encoding):
    model, (x, t, y) = awake(encoding), batch()
    geometry = place(encoding)
    rows = torch.stack((geometry.rows[0], geometry.rows[0] * 2))
    mixed = Geometry(rows, geometry.cols, geometry.frequencies_h, geometry.frequencies_w)
    alone = Geometry(rows[1:], geometry.cols[1:], geometry.frequencies_h, geometry.frequencies_w)
    together = model(x, t, y, mixed)
    assert torch.allclose(together[1:], model(x[1:], t[1:], y[1:], alone), atol=1e-5)
    differs = not torch.allclose(together[1:], model(x, t, y, geometry)[1:], atol=1e-3)
    assert differs == (encoding != "none")


def test_models_of_other_theta_are_independent():
    x, t, y = batch()
    one, two = awake("rope"), awake("rope")
    first = one(x, t, y, place("rope", theta=100.0))
    other = two(x, t, y, place("rope", theta=10000.0))
    assert not torch.allclose(first, other, atol=1e-4)
    assert torch.equal(one(x, t, y, place("rope", theta=100.0)), first)
    assert torch.equal(two(x, t, y, place("rope", theta=100.0)), first)


def test_logit_scale_acts():
    model, (x, t, y) = awake("rope"), batch(6, 6)
    plain = model(x, t, y, place("rope", 6, 6))
    assert not torch.allclose(
        model(x, t, y, place("rope", 6, 6, attention_scale="log")), plain, atol=1e-4
    )


def test_time_label_and_micro_condition_act():
    model, (x, t, y) = awake("rope", micro=True), batch()
    geometry = place("rope")
    plain = model(x, t, y, geometry, MICRO)
    for changed in (
        model(x, t + 0.1, y, geometry, MICRO),
        model(x, t, y - 1, geometry, MICRO),
        model(x, t, y, geometry, MICRO + 1),
    ):
        assert not torch.allclose(changed, plain, atol=1e-3)


def test_the_condition_passes_a_silu_before_every_modulation():
    model, (x, t, y) = awake("rope"), batch()
    seen = []
    for layer in (*model.blocks, model.final):
        layer.modulation.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(x, t, y, place("rope"))
    condition = model.time_embed(t) + model.label_embed(y)
    expected = condition * torch.sigmoid(condition)
    assert len(seen) == 3
    assert all(torch.allclose(given, expected, atol=1e-6) for given in seen)


def test_fresh_micro_conditions_change_nothing():
    with_micro, without = build(micro=True), build(micro=False)
    own = without.state_dict()
    theirs = with_micro.state_dict()
    assert {name for name in theirs if name not in own} == {
        f"micro_embed.{name}"
        for name in ("inner.weight", "inner.bias", "outer.weight", "outer.bias")
    }
    assert all(torch.equal(theirs[name], own[name]) for name in own)
    with torch.no_grad():
        for model in (with_micro, without):
            generator = torch.Generator().manual_seed(3)
            for name, parameter in sorted(model.named_parameters()):
                if not name.startswith("micro_embed"):
                    parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    x, t, y = batch()
    geometry = place("rope")
    out = without(x, t, y, geometry)
    assert torch.equal(with_micro(x, t, y, geometry, MICRO), out)
    assert torch.count_nonzero(out) > 0


def test_weights_follow_the_generator_and_nothing_else():
    everything: dict[str, Tensor] = {}
    for encoding in ENCODINGS:
        for micro, qk_norm in ((False, False), (True, True)):
            state = build(encoding, micro, qk_norm).state_dict()
            shared = everything.keys() & state.keys()
            assert "blocks.1.mlp.outer.weight" in shared or not everything
            assert all(torch.equal(state[name], everything[name]) for name in shared)
            everything |= state
    assert {"learned.table", "mixed.1.weight", "micro_embed.inner.weight"} <= everything.keys()
    reference = build("rope").state_dict()
    other = build("rope", seed=1).state_dict()["patch_embed.weight"]
    assert not torch.equal(other, reference["patch_embed.weight"])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_autocast_and_bfloat16_weights(encoding):
    model, (x, t, y) = awake(encoding, micro=True), batch()
    geometry = place(encoding)
    exact = model(x, t, y, geometry, MICRO)
    residual = []
    model.blocks[1].register_forward_pre_hook(lambda module, inputs: residual.append(inputs[0]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(x, t, y, geometry, MICRO)
    low = model.bfloat16()(x, t, y, geometry, MICRO)
    # Sums over layers keep the weights' precision, the same with every encoding.
    assert [stream.dtype for stream in residual] == [torch.float32, torch.bfloat16]
    for out in (mixed, low):
        assert out.dtype == torch.float32
        assert not torch.equal(out, exact)
        assert (out - exact).norm() < 0.1 * exact.norm()


def test_plain_errors():
    model, (x, t, y) = build(), batch()
    with pytest.raises(ValueError, match="an image of 6x5 does not divide into patches of 2"):
        model(x[..., :5], t, y, place("rope"))
    with pytest.raises(ValueError, match="geometry places 3x4 patches, the image has 3x3"):
        model(x, t, y, place("rope", 3, 4))
    with pytest.raises(ValueError, match="was built without micro-conditions"):
        model(x, t, y, place("rope"), MICRO)
    with pytest.raises(ValueError, match="needs micro-conditions"):
        build(micro=True)(x, t, y, place("rope"))
    for encoding, layers in (("rope", 3), ("sincos", 2), ("learned", 2)):
        plain = place(encoding)
        rows, cols = (each.expand(layers, 2, 3) for each in (plain.rows, plain.cols))
        with pytest.raises(ValueError, match=f"positions of {layers} layers need a rotary"):
            build(encoding)(x, t, y, replace(plain, rows=rows, cols=cols))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "width of 32 does not divide into 3 heads"),
        ({"heads": 16}, "must be a multiple of 4, got 32/16 = 2"),
        ({"encoding": "sincos", "width": 30, "heads": 1}, "must be a multiple of 4, got 30"),
        ({"encoding": "roap"}, "encoding 'roap' is not one of none, sincos, learned, rope"),
        ({"encoding": "rope-mixed", "heads": 16}, "rope-mixed turns pairs .* got 32/16 = 2"),
        ({"encoding": "rope-mixed"}, "rope-mixed needs theta"),
        ({"encoding": "learned"}, "learned table needs lengths"),
    ],
)
def test_refuses_shapes_that_do_not_divide(change, message):
    given = {"width": 32, "heads": 2, "encoding": "rope", **change}
    with pytest.raises(ValueError, match=message):
        DiT(
            channels=1,
            classes=2,
            depth=1,
            mlp_ratio=2,
            patch=2,
            qk_norm=False,
            micro_conditioning=False,
            **given,
        )
