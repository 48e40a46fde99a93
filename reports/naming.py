"""What a person calls a method: its name from the configuration and the inference settings."""

from collections.abc import Container, Iterable, Mapping
from typing import Any

from harness.canonical import PLACEMENT
from harness.kinds import shown
from reports.settings import Settings, differing, settings_of, short, size

Json = Mapping[str, Any]

ENCODINGS = {
    "rope": "RoPE",
    "rope-mixed": "RoPE-Mixed",
    "sincos": "sin-cos",
    "learned": "learned",
    "none": "no encoding",
}
SAMPLERS = {
    "randomized": "RPE-2D",
    "with-replacement": "RPE-2D with replacement",
    "unsorted": "RPE-2D unsorted",
    "order-statistics": "RPE-2D real-valued",
    "shift": "shift only",
    "affine": "affine only",
    "rescale": "DINOv3 rescale",
    "jitter": "DINOv3 jitter",
}
LAWS = {
    "pi": "PI",
    "ei": "EI",
    "ntk": "NTK",
    "yarn": "YaRN",
    "yarn-index": "YaRN (index ramp)",
    "lumina": "Lumina time-aware (paper)",
    "lumina-code": "Lumina switch (code)",
    "riflex": "RIFLEx",
    "dype-pi": "DyPE over PI",
    "dype-ntk": "DyPE over NTK",
    "dype-yarn": "DyPE over YaRN",
    "resonance": "Resonance",
    "resonance-yarn": "Resonance-YaRN",
}
# A factor for each axis of its own; FiT calls these three so.
PER_AXIS = {"pi": "Vision-PI", "ntk": "VisionNTK", "yarn": "VisionYaRN",
            "yarn-index": "VisionYaRN (index ramp)"}  # fmt: skip
WITH_TEMPERATURE = ("yarn", "yarn-index", "dype-yarn", "resonance-yarn")  # YaRN's is part of them
ATTENTION_SCALES = {"yarn": "YaRN", "fitv2-code": "FiTv2 (code)"}
SHIFTS = {"sd3": "SD3"}
RESIZES = {"lanczos": "Lanczos"}
IN_FRONT = {"data.resolution": "trained at"}  # of a value, in place of its key
# What a name has words for where it has to tell rows apart, and what then need not be said.
LAW, STAGE_IMAGES = "inference.law", "train.stage_images"
FOLLOWS = {STAGE_IMAGES: (STAGE_IMAGES, "train.images")}  # their sum
RESIZE_CROP, MICRO_CONDITIONING = " + resize-and-crop", " + micro-conditioning"


def training_name(config: Json, told: Container[str] = ()) -> str:
    """`RPE-2D ×2 (RoPE) + resize-and-crop`: what is trained, with no word of how it is sampled."""
    return _trained_part(config, told) + _additions(config)


def method_name(config: Json, inference: Json, told: Container[str] = ()) -> str:
    """`RoPE, YaRN`, `sin-cos, generated at 12 then bicubic`, ...: a training and its sampling.

    A setting that a method implies is not repeated: YaRN without its factor on the attention
    logits says so, and with it does not.

    Args:
        told: settings to put into words that usually go without saying (`LAW`, `STAGE_IMAGES`).
    """
    name = _trained_part(config, told) + _law(inference, told) + _placement(config, inference)
    if inference["resize"] != "none":
        resize = RESIZES.get(inference["resize"], inference["resize"])
        name += f", generated at {size(config['data']['resolution'])} then {resize}"
    name += _additions(config)
    if config["micro_conditioning"]["kind"] != "none":
        told = {"neutral": "", "centre_crop": " (centre crop)"}
        name += told.get(inference["micro_condition"], f" ({inference['micro_condition']})")
    scale = inference["attention_scale"]
    implied = "yarn" if inference["law"] in WITH_TEMPERATURE else "none"
    if scale != implied:
        told_scale = f" + attention scale {ATTENTION_SCALES.get(scale, scale)}"
        name += " without attention scale" if scale == "none" else told_scale
    shift = inference["timestep_shift"]
    if shift != "none":
        name += f" + timestep shift {SHIFTS.get(shift, shown(shift))}"
    return name


def _law(inference: Json, told: Container[str]) -> str:
    law = inference["law"]
    if law == "extrapolate":
        return ", extrapolated" if LAW in told and inference["resize"] == "none" else ""
    name = LAWS.get(law, law)
    if inference["law_scale"] == "per_axis" and law != "ei":  # which always is
        name = PER_AXIS.get(law, f"{name} per axis")
    return f", {name}"


def _placement(config: Json, inference: Json) -> str:
    usual = PLACEMENT.get(config["positions"]["sampler"], "even")
    placement, draws = inference["placement"], inference["draws"]
    if placement in (None, usual):
        return ""
    mean = f" (mean of {draws} draws)" if placement == "random" and draws > 1 else ""
    return f", {placement} placement{mean}"


def method_names(cells: Iterable[Json]) -> dict[str, str]:
    """Cell id -> a name that no other of these cells has.

    Whatever setting tells rows apart is in their names: those that differ from most rows in a
    setting with no words of its own say it as `key=value`.
    """
    cells = list(cells)
    settings = {cell["cell_id"]: settings_of(cell) for cell in cells}
    extra = differing(settings)
    laws: dict[tuple[str, str], set[str]] = {}
    for cell in cells:
        laws.setdefault(_trained_alike(cell), set()).add(cell["inference"]["law"])
    names = {}
    for cell in cells:
        own = extra[cell["cell_id"]]
        told = {*own, *([LAW] if len(laws[_trained_alike(cell)]) > 1 else [])}
        names[cell["cell_id"]] = method_name(cell["config"], cell["inference"], told) + _said(own)
    return _told_apart(names, settings)


def _trained_alike(cell: Json) -> tuple[str, str]:
    """Rows that have it alike are told apart by their laws."""
    return cell["config"]["model"]["encoding"], cell["config"]["positions"]["sampler"]


def training_names(cells: Iterable[Json]) -> dict[str, str]:
    """Group id -> a name of that training that no other training of these cells has."""
    cells = list(cells)
    settings = {cell["cell_id"]: settings_of(cell) for cell in cells}
    extra = differing(settings)
    names, trained = {}, {}
    for cell in cells:
        own = {k: v for k, v in extra[cell["cell_id"]].items() if _of_training(k)}
        names[cell["group_id"]] = training_name(cell["config"], own) + _said(own)
        every = settings[cell["cell_id"]].items()
        trained[cell["group_id"]] = {k: v for k, v in every if _of_training(k)}
    return _told_apart(names, trained)


def _trained_part(config: Json, told: Container[str]) -> str:
    encoding = config["model"]["encoding"]
    name = ENCODINGS.get(encoding, encoding)
    positions = config["positions"]
    if positions["sampler"] != "consecutive":
        sampler = SAMPLERS.get(positions["sampler"], positions["sampler"])
        drawn = {"sample": ""}.get(positions["granularity"], f" per {positions['granularity']}")
        name = f"{sampler} ×{shown(positions['range_multiplier'])}{drawn} ({name})"
    stages = _stages(config, STAGE_IMAGES in told)
    return name + (f", trained at {stages}" if stages else "")


def _stages(config: Json, with_images: bool) -> str:
    """`16 then 32`, `16 (60,000 images) then 32 (20,000)`; nothing without stages."""
    parts = []
    for place, stage in enumerate(config["train"]["stages"]):
        images = f" ({stage['images']:,}{'' if place else ' images'})" if with_images else ""
        parts.append(size(stage["resolution"]) + images)
    return " then ".join(parts)


def _additions(config: Json) -> str:
    text = " + DDPM objective" if config["objective"]["kind"] == "ddpm" else ""
    text += RESIZE_CROP if config["augmentation"]["kind"] == "resize_crop" else ""
    return text + (MICRO_CONDITIONING if config["micro_conditioning"]["kind"] != "none" else "")


def _said(settings: Settings) -> str:
    follows = {key for one in settings for key in FOLLOWS.get(one, ())}
    return "".join(
        f", {IN_FRONT[key]} {value}" if key in IN_FRONT else f", {short(key)}={value}"
        for key, value in settings.items()
        if key not in follows
    )


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
