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
    "positions": {"sampler": "consecutive", "range_multiplier": 1.0, "granularity": "sample"},
    "augmentation": {"kind": "none", "max_scale": 2.0},
    "micro_conditioning": {"kind": "none"},
    "objective": {"kind": "flow"},
    "train": {"images": 64, "stages": []},
}
INFERENCE = {"law": "extrapolate", "law_scale": "shared", "placement": None, "draws": 1,
             "attention_scale": "none", "timestep_shift": "none", "micro_condition": "neutral",
             "resize": "none", "guidance": 1.0, "solver": None}  # fmt: skip
STAGE = {"images": 32, "learning_rate": 2e-3, "warmup": 0.1, "decay_from": 0.6, "optimizer": "keep"}


def staged(*sizes: int, **last: Any) -> dict[str, Any]:
    """A training in stages, the last of which may be changed."""
    stages: list[dict[str, Any]] = [STAGE | {"resolution": [size, size]} for size in sizes]
    stages[-1] |= last
    return {"train": {"stages": stages}}


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
        ({"model": {"encoding": "learned"}}, {"law": "ei", "law_scale": "per_axis"}, "learned, EI"),
        ({"model": {"encoding": "rope-mixed"}}, {"law": "pi"}, "RoPE-Mixed, PI"),
        ({"positions": {"sampler": "order-statistics", "range_multiplier": 1.5,
                        "granularity": "layer"}}, {}, "RPE-2D real-valued ×1.5 per layer (RoPE)"),
        ({"positions": {"sampler": "unsorted", "granularity": "batch"}}, {"placement": "random"},
         "RPE-2D unsorted ×1 per batch (RoPE), random placement"),
        ({"positions": {"sampler": "shift", "range_multiplier": 2.0}},
         {"placement": "contiguous"}, "shift only ×2 (RoPE)"),
        ({"positions": {"sampler": "jitter", "range_multiplier": 2.0}},
         {"placement": "even"}, "DINOv3 jitter ×2 (RoPE), even placement"),
        (RANDOMIZED, {"placement": "random", "draws": 4},
         "RPE-2D ×2 (RoPE), random placement (mean of 4 draws)"),
        ({}, {"law": "ntk", "law_scale": "per_axis"}, "RoPE, VisionNTK"),
        ({}, {"law": "riflex", "law_scale": "per_axis"}, "RoPE, RIFLEx per axis"),
        ({}, {"law_scale": "per_axis"}, "RoPE"),
        ({}, {"law": "dype-yarn", "attention_scale": "yarn"}, "RoPE, DyPE over YaRN"),
        ({}, {"law": "resonance-yarn"}, "RoPE, Resonance-YaRN without attention scale"),
        ({}, {"law": "lumina"}, "RoPE, Lumina time-aware (paper)"),
        ({}, {"law": "lumina-code"}, "RoPE, Lumina switch (code)"),
        ({}, {"attention_scale": "fitv2-code"}, "RoPE + attention scale FiTv2 (code)"),
        ({}, {"timestep_shift": "sd3"}, "RoPE + timestep shift SD3"),
        ({}, {"timestep_shift": 2.0}, "RoPE + timestep shift 2"),
        ({}, {"resize": "lanczos"}, "RoPE, generated at 12 then Lanczos"),
        ({"micro_conditioning": {"kind": "crop"}}, {"micro_condition": "centre_crop"},
         "RoPE + micro-conditioning (centre crop)"),
        ({}, {"micro_condition": "centre_crop"}, "RoPE"),
        ({"objective": {"kind": "ddpm"}}, {}, "RoPE + DDPM objective"),
        (staged(6, 12), {"law": "pi"}, "RoPE, trained at 6 then 12, PI"),
    ],
)  # fmt: skip
def test_names(config: dict[str, Any], inference: dict[str, Any], name: str) -> None:
    assert method_name(changed(config), INFERENCE | inference) == name


def cell(number: int, config: dict[str, Any], inference: dict[str, Any], **evaluate: Any) -> Any:
    canonical = {"solver": inference.get("solver", "heun")}
    measured = {"evaluate": {"samples": 500} | evaluate, "inference": canonical}
    measurement = {"column": {}, "config": measured}
    return {"cell_id": f"{number}", "group_id": f"g{config}", "config": changed(config),
            "inference": INFERENCE | inference, "measurements": [measurement]}  # fmt: skip


def names_of(*cells: Any) -> list[str]:
    return list(method_names(cells).values())


def test_what_no_name_speaks_of_is_added_where_a_row_differs_from_most() -> None:
    assert names_of(
        cell(0, {}, {}),
        cell(1, {}, {"law": "pi", "guidance": 2.5}),
        cell(2, {}, {"law": "ntk"}),
        cell(3, {"model": {"encoding": "sincos"}}, {}, samples=5000),
    ) == ["RoPE, extrapolated", "RoPE, PI, guidance=2.5", "RoPE, NTK", "sin-cos, samples=5000"]


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
        "RoPE, extrapolated", "RoPE, PI, labels=random", "RoPE, NTK, patch_size=6",
        "RoPE, extrapolated, guidance_channels=first_three",
    ]  # fmt: skip


def test_without_guidance_no_name_says_which_channels_are_guided() -> None:
    three = {"guidance": 4.0, "guidance_channels": "first_three"}
    none = {"guidance": 1.0, "guidance_channels": "all"}
    cells = [cell(0, {}, none), cell(1, {}, three), cell(2, {}, three | {"law": "pi"})]
    assert names_of(*cells) == ["RoPE, extrapolated, guidance=1", "RoPE, extrapolated", "RoPE, PI"]
    settings = {one["cell_id"]: settings_of(one) for one in cells}
    assert account(settings, ("inference.guidance_channels",), "rows") == (
        "of all rows: guidance_channels=first_three (guidance=4)"
    )


def test_without_a_most_common_value_every_row_says_its_own() -> None:
    assert names_of(cell(0, {}, {}), cell(1, {}, {"law": "pi", "guidance": 2.5})) == [
        "RoPE, extrapolated, guidance=1",
        "RoPE, PI, guidance=2.5",
    ]
    crop = {"kind": "resize_crop"}
    assert names_of(
        cell(0, {"data": {"resolution": [12, 12]}}, {}),
        cell(1, {"data": {"resolution": [12, 16]}, "augmentation": crop}, {}),
    ) == ["RoPE, trained at 12", "RoPE + resize-and-crop, trained at 12×16"]


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


def test_stages_are_compared_among_trainings_with_the_same_sizes() -> None:
    """What stages have in common with none is no difference, nor is it between other sizes."""
    cells = [
        cell(0, {}, {}),
        cell(1, staged(6, 12), {}),
        cell(2, staged(6, 12), {"attention_scale": "log"}),
        cell(3, staged(6, 12, optimizer="reset", images=320), {}),
        cell(4, staged(4, 6, 12), {}),
    ]
    assert names_of(*cells) == [
        "RoPE",
        "RoPE, trained at 6 then 12",
        "RoPE, trained at 6 then 12 + attention scale log",
        "RoPE, trained at 6 (32 images) then 12 (320), stage_optimizer=keep then reset",
        "RoPE, trained at 4 then 6 then 12",
    ]
    rows = {one["cell_id"]: settings_of(one) for one in cells}
    assert account(rows, ("train.stage_warmup",), "trainings") == (
        "of all trainings: stage_warmup=0.1 then 0.1 (stage_resolution=6 then 12), "
        "stage_warmup=0.1 then 0.1 then 0.1 (stage_resolution=4 then 6 then 12)"
    )


def test_the_solver_that_an_objective_takes_by_itself_is_no_difference() -> None:
    ddpm = {"objective": {"kind": "ddpm"}}
    cells = [cell(0, {}, {}), cell(1, {}, {"law": "pi"}), cell(2, ddpm, {"solver": "ddpm"})]
    assert names_of(*cells) == [
        "RoPE, extrapolated",
        "RoPE, PI",
        "RoPE, extrapolated + DDPM objective",
    ]
    rows = {one["cell_id"]: settings_of(one) for one in cells}
    assert account(rows, ("inference.solver",), "rows") == (
        "of all rows: solver=heun (objective.kind=flow), solver=ddpm (objective.kind=ddpm)"
    )
    rows.pop("2")
    assert account(rows, ("inference.solver",), "rows") == "of all rows: solver=heun"


def test_rows_of_one_objective_say_their_solvers_where_these_differ() -> None:
    ddpm = {"objective": {"kind": "ddpm"}}
    cells = [
        cell(0, {}, {}),
        cell(1, ddpm, {"solver": "ddim"}),
        cell(2, ddpm | {"model": {"encoding": "sincos"}}, {"solver": "ddim"}),
        cell(3, ddpm, {"solver": "ddpm"}),
    ]
    assert names_of(*cells) == [
        "RoPE",
        "RoPE + DDPM objective, solver=ddim",
        "sin-cos + DDPM objective, solver=ddim",
        "RoPE + DDPM objective, solver=ddpm",
    ]


def test_images_of_stages_stand_in_for_their_sum() -> None:
    stages = staged(6, 12)["train"]["stages"]
    more = [stages[0] | {"images": 20_000}, stages[1]]
    cells = [
        cell(0, {"train": {"images": 64, "stages": stages}}, {}),
        cell(1, {"train": {"images": 20_032, "stages": more}}, {}),
    ]
    assert names_of(*cells) == [
        "RoPE, trained at 6 (32 images) then 12 (32)",
        "RoPE, trained at 6 (20,000 images) then 12 (32)",
    ]
    assert list(training_names(cells).values()) == names_of(*cells)


def test_extrapolation_is_said_beside_other_laws_of_the_same_training() -> None:
    cells = [
        cell(0, {}, {}),
        cell(1, {}, {"law": "pi"}),
        cell(2, {}, {"resize": "bicubic"}),
        cell(3, {"model": {"encoding": "sincos"}}, {}),
        cell(4, RANDOMIZED | {"positions": CONFIG["positions"] | RANDOMIZED["positions"]}, {}),
    ]
    assert names_of(*cells) == [
        "RoPE, extrapolated",
        "RoPE, PI",
        "RoPE, generated at 12 then bicubic",
        "sin-cos",
        "RPE-2D ×2 (RoPE)",
    ]


def test_trainings_say_theirs_and_nothing_of_sampling() -> None:
    cells = [
        cell(0, {}, {}),
        cell(1, {"model": {"theta": 50.0}}, {"guidance": 2.0}),
        cell(2, {}, {"law": "pi"}),
    ]
    assert list(training_names(cells).values()) == ["RoPE", "RoPE, theta=50"]
    assert names_of(*cells)[1] == "RoPE, extrapolated, theta=50, guidance=2"


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


def sections(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({key: st.sampled_from(each) for key, each in fields.items()})


cells = st.tuples(
    st.fixed_dictionaries({
        "model": sections(encoding=choices.ENCODINGS, theta=[100.0, 50.0]),
        "positions": sections(
            sampler=choices.SAMPLERS, range_multiplier=[1.0, 2.0],
            granularity=["sample", "batch", "layer"],
        ),
        "objective": sections(kind=["flow", "ddpm"]),
        "micro_conditioning": sections(kind=["none", "crop"]),
        "train": st.sampled_from([{}, *(staged(*sizes)["train"] for sizes in ((8, 12), (6, 12)))]),
    }),
    sections(
        law=choices.LAWS, law_scale=choices.LAW_SCALES, attention_scale=choices.ATTENTION_SCALES,
        placement=[None, *choices.PLACEMENTS], draws=[1, 4], timestep_shift=["none", "sd3", 2.0],
        micro_condition=["neutral", "centre_crop"], resize=["none", "bicubic", "lanczos"],
        guidance=[1.0, 2.0], solver=["heun", "ddim"],
    ),
    st.sampled_from([500, 5000]),
)  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "values"),
    [("model.encoding", choices.ENCODINGS), ("positions.sampler", choices.SAMPLERS),
     ("inference.law", choices.LAWS), ("inference.placement", choices.PLACEMENTS),
     ("inference.attention_scale", choices.ATTENTION_SCALES)],
)  # fmt: skip
def test_every_method_has_a_name_of_its_own_in_words(kind: str, values: tuple[str, ...]) -> None:
    section, key = kind.split(".")
    names = [
        method_name(changed({section: {key: value}}), INFERENCE | {key: value}) for value in values
    ]
    assert len(set(names)) == len(values)
    assert not any("=" in name or "_" in name for name in names)


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
