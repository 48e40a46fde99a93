"""What a person calls a method: its name from the configuration and the inference settings."""

from collections.abc import Iterable, Mapping
from typing import Any

from harness.grid import shown

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

    Cells that would share a name get the settings in which they differ, as `key=value`.
    """
    cells = list(cells)
    settings = {cell["cell_id"]: _settings(cell) for cell in cells}
    plain = {cell["cell_id"]: method_name(cell["config"], cell["inference"]) for cell in cells}
    return _told_apart(plain, settings)


def training_names(cells: Iterable[Json]) -> dict[str, str]:
    """Group id -> a name of that training that no other training of these cells has."""
    configs = {cell["group_id"]: cell["config"] for cell in cells}
    settings = {group: _flat(config) for group, config in configs.items()}
    return _told_apart({g: training_name(config) for g, config in configs.items()}, settings)


def size(resolution: Iterable[int]) -> str:
    """`24` for 24x24 pixels, `16×24` for a height of 16 and a width of 24."""
    height, width = resolution
    return f"{height}" if height == width else f"{height}×{width}"


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


def _settings(cell: Json) -> dict[str, str]:
    """Every setting of a cell, dotted; of the measurements, those that are no column's."""
    settings = _flat(cell["config"]) | _flat({"inference": cell["inference"]})
    for measurement in cell["measurements"][:1]:
        evaluate = _flat({"evaluate": measurement["config"]["evaluate"]})
        settings |= {k: v for k, v in evaluate.items() if k not in measurement["column"]}
    return settings


def _flat(config: Json) -> dict[str, str]:
    return {
        f"{section}.{key}": shown(value)
        for section, fields in config.items()
        for key, value in fields.items()
    }


def _told_apart(names: Mapping[str, str], settings: Mapping[str, Json]) -> dict[str, str]:
    told = dict(names)
    for clash in _clashes(told):
        keys = dict.fromkeys(key for one in clash for key in settings[one])
        differ = [key for key in keys if len({settings[one].get(key) for one in clash}) > 1]
        for one in clash:
            extra = [f"{key}={settings[one][key]}" for key in differ if key in settings[one]]
            told[one] += "".join(f", {item}" for item in extra)
    for clash in _clashes(told):  # not by settings: what is left is the id
        for one in clash:
            told[one] += f" [{one}]"
    return told


def _clashes(names: Mapping[str, str]) -> list[list[str]]:
    by_name: dict[str, list[str]] = {}
    for one, name in names.items():
        by_name.setdefault(name, []).append(one)
    return [clash for clash in by_name.values() if len(clash) > 1]
