"""The settings of a grid's rows: which ones all rows share, and which ones tell rows apart. Pure.

A row's settings are its training configuration and how it is sampled and measured, as dotted key
-> value in YAML; what a column of the report says (a resolution, another axis) is not among them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.config import KEYS, TRAINING_KEYS, Stage
from harness.kinds import shown

Json = Mapping[str, Any]
Settings = Mapping[str, str]

# A staged training has these in place of `train.stages`: `16 then 32`.
STAGES = tuple(f"train.stage_{field}" for field in Stage.model_fields)
# What `reports.naming` puts into words; every other setting is said as `key=value`.
IN_WORDS = frozenset({
    "model.encoding", "positions.sampler", "positions.range_multiplier", "positions.granularity",
    "augmentation.kind", "micro_conditioning.kind", "objective.kind", "train.stage_resolution",
    "inference.law", "inference.law_scale", "inference.placement", "inference.draws",
    "inference.attention_scale", "inference.timestep_shift", "inference.micro_condition",
    "inference.resize",
})  # fmt: skip
# Settings that mean something only under another one, not where that has one of these values: they
# are compared among rows that have it alike.
UNDER: dict[str, tuple[str, tuple[str, ...]]] = {
    "data.folder": ("data.name", ("fashion_mnist", "glyphs")),
    "model.theta": ("model.encoding", ("none", "learned")),
    "augmentation.max_scale": ("augmentation.kind", ("none",)),
    "objective.timesteps": ("objective.kind", ("ddpm",)),
    "objective.precondition": ("objective.kind", ("ddpm",)),
    **dict.fromkeys(STAGES, ("train.stage_resolution", ("",))),
    "inference.guidance_channels": ("inference.guidance", ("1",)),
    "inference.solver": ("objective.kind", ()),
}
DDPM_SOLVERS = ("ddpm", "ddim")  # where rows differ in it, each says its own
SAMPLING = ("inference.solver", "inference.steps", "inference.guidance",
            "inference.guidance_channels", "evaluate.samples", "evaluate.labels")  # fmt: skip
TRAINING = tuple(
    key for key in (*TRAINING_KEYS, *STAGES) if key not in IN_WORDS and key != "train.stages"
)

_LAST = Counter(key.rpartition(".")[2] for key in KEYS)


def settings_of(cell: Json) -> dict[str, str]:
    """Every setting of a grid record's cell that no column says."""
    sections = dict(cell["config"]) | {"inference": cell["inference"]}
    stages = cell["config"]["train"]["stages"]
    said = {"evaluate.resolution", "train.stages", *(["data.resolution"] if stages else [])}
    for measurement in cell["measurements"][:1]:
        asked = measurement["config"]
        sections["evaluate"] = asked["evaluate"]
        # What an open choice of the solver comes to is in the canonical form alone.
        sections["inference"] = {**cell["inference"], "solver": asked["inference"]["solver"]}
        said |= {*measurement["column"]}
    flat = {
        f"{section}.{key}": _shown(key, value)
        for section, fields in sections.items()
        for key, value in fields.items()
    }
    for key in STAGES:
        name = key.removeprefix("train.stage_")
        flat[key] = " then ".join(_shown(name, stage[name]) for stage in stages)
    return {k: v for k, v in flat.items() if k not in said}


def _shown(key: str, value: Any) -> str:
    return size(value) if key == "resolution" else shown(value)


def size(resolution: Iterable[int]) -> str:
    """`24` for 24x24 pixels, `16×24` for a height of 16 and a width of 24."""
    height, width = resolution
    return f"{height}" if height == width else f"{height}×{width}"


def short(key: str) -> str:
    """`guidance` for `inference.guidance`; the whole key where its end could be another's."""
    last = key.rpartition(".")[2]
    return key if _LAST[last] > 1 or last == "name" else last


def differing(rows: Mapping[str, Settings]) -> dict[str, dict[str, str]]:
    """Row -> the settings that its name in words does not say and has to, key -> value.

    They are those in which the row differs from most rows; where no value is that of most rows,
    and for the solvers of DDPM, every row says its own.
    """
    told: dict[str, dict[str, str]] = {one: {} for one in rows}
    for key in dict.fromkeys(key for settings in rows.values() for key in settings):
        if key in IN_WORDS:
            continue
        for alike in _comparable(rows, key).values():
            usual = _usual(key, [rows[one][key] for one in alike])
            for one in alike:
                if rows[one][key] != usual:
                    told[one][key] = rows[one][key]
    return told


def account(rows: Mapping[str, Settings], keys: Sequence[str], whose: str) -> str:
    """`guidance=1, samples=500 in all rows.`, and which settings are to be read from the names.

    Args:
        whose: `rows` or `trainings`.
    """
    same: list[str] = []
    usual: list[str] = []
    named: list[str] = []
    columns: list[str] = []
    for key in keys:
        groups = _comparable(rows, key)
        if not any(key in settings for settings in rows.values()):
            columns.append(short(key))
        for under, alike in groups.items():
            values = [rows[one][key] for one in alike]
            where = f" ({under})" if under else ""
            value = _usual(key, values)
            if value is None:
                named.append(f"{short(key)}{where}")
            else:
                (usual if len(set(values)) > 1 else same).append(f"{short(key)}={value}{where}")
    sentences = [f"of all {whose}: {', '.join(same)}"] if same else []
    if usual:
        sentences.append(f"where a name does not say another: {', '.join(usual)}")
    if named:
        sentences.append(f"as the names say: {', '.join(named)}")
    if columns:
        sentences.append(f"as the columns say: {', '.join(columns)}")
    return "; ".join(sentences)


def _comparable(rows: Mapping[str, Settings], key: str) -> dict[str, list[str]]:
    """The rows among which a setting can differ; more than one group for the keys of `UNDER`.

    A group says what it is under, where that is not all rows.
    """
    groups: dict[str, list[str]] = {}
    for one, settings in rows.items():
        if key not in settings:
            continue
        other, without = UNDER.get(key, ("", ()))
        if other not in settings:  # none, or a column says it
            groups.setdefault("", []).append(one)
        elif settings[other] not in without:
            groups.setdefault(f"{short(other)}={settings[other]}", []).append(one)
    every = [*groups.values()][:1]
    return {"": every[0]} if every and len(every[0]) == len(rows) else groups


def _usual(key: str, values: Sequence[str]) -> str | None:
    """The value of more than half, if there is one; of all, for the solvers of DDPM."""
    value, count = Counter(values).most_common(1)[0]
    by_each = key == "inference.solver" and value in DDPM_SOLVERS
    enough = count == len(values) if by_each else 2 * count > len(values)
    return value if enough else None
