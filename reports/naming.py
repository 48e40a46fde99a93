"""What a person calls a method: its name from the configuration and the inference settings."""

from collections.abc import Iterable, Mapping
from typing import Any

from harness.grid import shown
from reports.settings import Settings, differing, settings_of, short, size

Json = Mapping[str, Any]

ENCODINGS = {"rope": "RoPE", "sincos": "sin-cos", "learned": "learned", "none": "no encoding"}
LAWS = {"pi": "PI", "ntk": "NTK", "yarn": "YaRN", "yarn-index": "YaRN (index ramp)"}
RESIZE_CROP, MICRO_CONDITIONING = " + resize-and-crop", " + micro-conditioning"


def training_name(config: Json) -> str:
    """`RPE-2D ×2 (RoPE) + resize-and-crop`: what is trained, with no word of how it is sampled."""
    return _trained_part(config) + _additions(config)


def method_name(config: Json, inference: Json) -> str:
    """`RoPE, YaRN`, `sin-cos, generated at 12 then bicubic`, ...: a training and its sampling.

    A setting that a method implies is not repeated: YaRN without its factor on the attention
    logits says so, and with it does not.
    """
    name = _trained_part(config)
    law, scale = inference["law"], inference["attention_scale"]
    if law != "extrapolate":
        name += f", {LAWS.get(law, law)}"
    randomized = config["positions"]["sampler"] == "randomized"
    if inference["placement"] not in (None, "even" if randomized else "contiguous"):
        name += f", {inference['placement']} placement"
    if inference["resize"] != "none":
        name += f", generated at {size(config['data']['resolution'])} then {inference['resize']}"
    name += _additions(config)
    implied = "yarn" if law.startswith("yarn") else "none"
    if scale != implied:
        name += " without attention scale" if scale == "none" else f" + attention scale {scale}"
    return name


def method_names(cells: Iterable[Json]) -> dict[str, str]:
    """Cell id -> a name that no other of these cells has.

    Whatever setting tells rows apart is in their names: those that differ from most rows in a
    setting with no words of its own say it as `key=value`.
    """
    cells = list(cells)
    settings = {cell["cell_id"]: settings_of(cell) for cell in cells}
    extra = differing(settings)
    names = {
        cell["cell_id"]: method_name(cell["config"], cell["inference"])
        + _said(extra[cell["cell_id"]])
        for cell in cells
    }
    return _told_apart(names, settings)


def training_names(cells: Iterable[Json]) -> dict[str, str]:
    """Group id -> a name of that training that no other training of these cells has."""
    cells = list(cells)
    settings = {cell["cell_id"]: settings_of(cell) for cell in cells}
    extra = differing(settings)
    names, trained = {}, {}
    for cell in cells:
        own = {k: v for k, v in extra[cell["cell_id"]].items() if _of_training(k)}
        names[cell["group_id"]] = training_name(cell["config"]) + _said(own)
        every = settings[cell["cell_id"]].items()
        trained[cell["group_id"]] = {k: v for k, v in every if _of_training(k)}
    return _told_apart(names, trained)


def _trained_part(config: Json) -> str:
    encoding = config["model"]["encoding"]
    name = ENCODINGS.get(encoding, encoding)
    positions = config["positions"]
    if positions["sampler"] == "consecutive":
        return name
    known = {"randomized": "RPE-2D"}
    sampler = known.get(positions["sampler"], positions["sampler"])
    return f"{sampler} ×{shown(positions['range_multiplier'])} ({name})"


def _additions(config: Json) -> str:
    text = RESIZE_CROP if config["augmentation"]["kind"] == "resize_crop" else ""
    return text + (MICRO_CONDITIONING if config["micro_conditioning"]["kind"] != "none" else "")


def _said(settings: Settings) -> str:
    return "".join(f", {short(key)}={value}" for key, value in settings.items())


def _of_training(key: str) -> bool:
    return key.partition(".")[0] not in ("inference", "evaluate")


def _told_apart(names: Mapping[str, str], settings: Mapping[str, Settings]) -> dict[str, str]:
    told = dict(names)
    for clash in _clashes(told):
        keys = dict.fromkeys(key for one in clash for key in settings[one])
        differ = [key for key in keys if len({settings[one].get(key) for one in clash}) > 1]
        for one in clash:
            told[one] += _said({k: settings[one][k] for k in differ if k in settings[one]})
    for clash in _clashes(told):  # not by settings: what is left is the id
        for one in clash:
            told[one] += f" [{one}]"
    return told


def _clashes(names: Mapping[str, str]) -> list[list[str]]:
    by_name: dict[str, list[str]] = {}
    for one, name in names.items():
        by_name.setdefault(name, []).append(one)
    return [clash for clash in by_name.values() if len(clash) > 1]
