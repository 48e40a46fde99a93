"""The names of methods: as people write them, and no two alike in one report."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models import names as choices
from reports.naming import method_name, method_names, training_names
from reports.settings import account, settings_of

CONFIG: dict[str, Any] = {
    "data": {"name": "fashion_mnist", "resolution": [12, 12]},
    "model": {"encoding": "rope", "theta": 100.0},
    "positions": {"sampler": "consecutive", "range_multiplier": 1.0},
    "augmentation": {"kind": "none", "max_scale": 2.0},
    "micro_conditioning": {"kind": "none"},
}
INFERENCE = {"law": "extrapolate", "placement": None, "attention_scale": "none", "resize": "none",
             "guidance": 1.0}  # fmt: skip
RANDOMIZED = {"positions": {"sampler": "randomized", "range_multiplier": 2.0}}


def changed(config: dict[str, Any]) -> dict[str, Any]:
    return {section: fields | config.get(section, {}) for section, fields in CONFIG.items()}


@pytest.mark.parametrize(
    ("config", "inference", "name"),
    [
        ({}, {}, "RoPE"),
        ({}, {"law": "pi"}, "RoPE, PI"),
        ({}, {"law": "ntk"}, "RoPE, NTK"),
        ({}, {"law": "yarn", "attention_scale": "yarn"}, "RoPE, YaRN"),
        ({}, {"law": "yarn"}, "RoPE, YaRN without attention scale"),
        ({}, {"law": "yarn-index", "attention_scale": "yarn"}, "RoPE, YaRN (index ramp)"),
        ({}, {"attention_scale": "log"}, "RoPE + attention scale log"),
        ({}, {"resize": "bicubic"}, "RoPE, generated at 12 then bicubic"),
        ({"data": {"resolution": [16, 24]}}, {"resize": "bicubic"},
         "RoPE, generated at 16×24 then bicubic"),
        ({"model": {"encoding": "sincos"}}, {"law": "pi"}, "sin-cos, PI"),
        ({"model": {"encoding": "none"}}, {}, "no encoding"),
        (RANDOMIZED, {}, "RPE-2D ×2 (RoPE)"),
        (RANDOMIZED, {"placement": "even"}, "RPE-2D ×2 (RoPE)"),
        (RANDOMIZED | {"model": {"encoding": "sincos"}}, {"placement": "expected"},
         "RPE-2D ×2 (sin-cos), expected placement"),
        ({}, {"placement": "centred"}, "RoPE, centred placement"),
        ({"augmentation": {"kind": "resize_crop"}, "micro_conditioning": {"kind": "crop"}}, {},
         "RoPE + resize-and-crop + micro-conditioning"),
        ({"model": {"encoding": "new"}}, {"law": "newer"}, "new, newer"),
    ],
)  # fmt: skip
def test_names(config: dict[str, Any], inference: dict[str, Any], name: str) -> None:
    assert method_name(changed(config), INFERENCE | inference) == name


def cell(number: int, config: dict[str, Any], inference: dict[str, Any], **evaluate: Any) -> Any:
    measurement = {"column": {}, "config": {"evaluate": {"samples": 500} | evaluate}}
    return {"cell_id": f"{number}", "group_id": f"g{config}", "config": changed(config),
            "inference": INFERENCE | inference, "measurements": [measurement]}  # fmt: skip


def names_of(*cells: Any) -> list[str]:
    return list(method_names(cells).values())


def test_what_no_name_speaks_of_is_added_where_a_row_differs_from_most() -> None:
    assert names_of(
        cell(0, {}, {}),
        cell(1, {}, {"law": "pi", "guidance": 2.5, "solver": "heun"}),
        cell(2, {}, {"law": "ntk"}),
        cell(3, {"model": {"encoding": "sincos"}}, {}, samples=5000),
    ) == ["RoPE", "RoPE, PI, guidance=2.5", "RoPE, NTK", "sin-cos, samples=5000"]


def test_labels_guided_channels_and_crops_are_said_where_they_differ() -> None:
    guided = {"guidance": 4.0, "guidance_channels": "all"}
    assert names_of(
        cell(0, {}, guided, labels="balanced", patch_size=None),
        cell(1, {}, guided | {"law": "pi"}, labels="random", patch_size=None),
        cell(2, {}, guided | {"law": "ntk"}, labels="balanced", patch_size=6),
        cell(
            3, {}, guided | {"guidance_channels": "first_three"}, labels="balanced", patch_size=None
        ),
    ) == [
        "RoPE", "RoPE, PI, labels=random", "RoPE, NTK, patch_size=6",
        "RoPE, guidance_channels=first_three",
    ]  # fmt: skip


def test_without_guidance_no_name_says_which_channels_are_guided() -> None:
    three = {"guidance": 4.0, "guidance_channels": "first_three"}
    none = {"guidance": 1.0, "guidance_channels": "all"}
    cells = [cell(0, {}, none), cell(1, {}, three), cell(2, {}, three | {"law": "pi"})]
    assert names_of(*cells) == ["RoPE, guidance=1", "RoPE", "RoPE, PI"]
    settings = {one["cell_id"]: settings_of(one) for one in cells}
    assert account(settings, ("inference.guidance_channels",), "rows") == (
        "of all rows: guidance_channels=first_three (guidance=4)"
    )


def test_without_a_most_common_value_every_row_says_its_own() -> None:
    assert names_of(cell(0, {}, {}), cell(1, {}, {"law": "pi", "guidance": 2.5})) == [
        "RoPE, guidance=1",
        "RoPE, PI, guidance=2.5",
    ]
    crop = {"kind": "resize_crop"}
    assert names_of(
        cell(0, {"data": {"resolution": [12, 12]}}, {}),
        cell(1, {"data": {"resolution": [12, 16]}, "augmentation": crop}, {}),
    ) == ["RoPE, data.resolution=12", "RoPE + resize-and-crop, data.resolution=12×16"]


def test_what_a_column_says_is_in_no_name() -> None:
    cells = [cell(i, {}, {"law": law, "guidance": 1.0 + i}) for i, law in enumerate(("pi", "ntk"))]
    for one in cells:
        one["measurements"][0]["column"] = {"inference.guidance": 2.0}
    assert names_of(*cells) == ["RoPE, PI", "RoPE, NTK"]


def test_a_setting_under_another_is_compared_where_that_is_the_same() -> None:
    """An encoding's base and a crop's size are no difference between rows that need others."""
    sincos = {"model": {"encoding": "sincos", "theta": 10000.0}}
    crop = {"augmentation": {"kind": "resize_crop", "max_scale": 3.0}}
    assert names_of(cell(0, {}, {}), cell(1, sincos, {}), cell(2, crop, {})) == [
        "RoPE",
        "sin-cos",
        "RoPE + resize-and-crop",
    ]
    smaller = {"augmentation": {"kind": "resize_crop", "max_scale": 1.5}}
    assert names_of(cell(0, {}, {}), cell(1, crop, {}), cell(2, smaller, {})) == [
        "RoPE",
        "RoPE + resize-and-crop, max_scale=3",
        "RoPE + resize-and-crop, max_scale=1.5",
    ]


def test_trainings_say_theirs_and_nothing_of_sampling() -> None:
    cells = [
        cell(0, {}, {}),
        cell(1, {"model": {"theta": 50.0}}, {"guidance": 2.0}),
        cell(2, {}, {"law": "pi"}),
    ]
    assert list(training_names(cells).values()) == ["RoPE", "RoPE, theta=50"]
    assert names_of(*cells)[1] == "RoPE, theta=50, guidance=2"


def test_account_of_common_settings() -> None:
    rows = {
        "a": {"model.encoding": "rope", "model.theta": "100", "train.batch": "64"},
        "b": {"model.encoding": "rope", "model.theta": "100", "train.batch": "64"},
        "c": {"model.encoding": "sincos", "model.theta": "10000", "train.batch": "32"},
        "d": {"model.encoding": "none", "model.theta": "100", "train.batch": "64"},
    }
    assert account(rows, ("model.theta", "train.batch", "train.images"), "trainings") == (
        "of all trainings: theta=100 (encoding=rope), theta=10000 (encoding=sincos); where a name "
        "does not say another: batch=64; as the columns say: images"
    )
    rows["e"] = rows["f"] = rows["c"] | {"model.theta": "5"}
    assert account(rows, ("train.batch",), "rows") == "as the names say: batch"


cells = st.builds(
    lambda encoding, theta, sampler, law, scale, placement, resize, guidance, samples: (
        {"model": {"encoding": encoding, "theta": theta}, "positions": sampler},
        {"law": law, "attention_scale": scale, "placement": placement, "resize": resize,
         "guidance": guidance},
        samples,
    ),
    st.sampled_from(choices.ENCODINGS),
    st.sampled_from([100.0, 50.0]),
    st.sampled_from([CONFIG["positions"], RANDOMIZED["positions"]]),
    st.sampled_from(choices.LAWS),
    st.sampled_from(choices.ATTENTION_SCALES),
    st.sampled_from([None, *choices.PLACEMENTS]),
    st.sampled_from(["none", "bicubic"]),
    st.sampled_from([1.0, 2.0]),
    st.sampled_from([500, 5000]),
)  # fmt: skip


@settings(max_examples=60)
@given(st.lists(cells, min_size=1, max_size=25))
def test_no_two_cells_have_one_name(points: list[Any]) -> None:
    """Also where a cell stands twice, which a grid never has."""
    made = [cell(i, c, inference, samples=s) for i, (c, inference, s) in enumerate(points)]
    names = method_names(made)
    assert list(names) == [one["cell_id"] for one in made]
    assert len(set(names.values())) == len(made)
    trainings = training_names(made)
    assert len(set(trainings.values())) == len({one["group_id"] for one in made})
