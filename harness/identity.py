"""Identity: which trainings and which evaluations are the same one.

An id is the hash of the full canonical form (`harness.canonical`), not of its difference from the
defaults. So one training serves every method that differs only at inference, and one evaluation
every law at scale 1.
"""

import hashlib
import json
from functools import lru_cache
from typing import Any

from harness.config import Data, Evaluation, Positions, Training
from harness.dataset import facts
from harness.extractors import patch_side, weights_sha256
from harness.files import FORMAT

# Fields that came later, with the value that every earlier result had: at it they are left out of
# the hash, so that a new version finds what an old one computed.
ADDED: dict[str, object] = {
    "data.folder": None,
    "positions.granularity": "sample",
    "objective.kind": "flow",
    "objective.data_variance": 0.45,
    "train.stages": [],
    "train.snapshots": [],
    "inference.law_scale": "shared",
    "inference.draws": 1,
    "inference.timestep_shift": "none",
    "inference.micro_condition": "neutral",
    "evaluate.after": 1.0,
}

Pair = tuple[int, int]
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def digest(value: object) -> str:
    """16 hex digits (64 bits) of the SHA-256 of `value` as JSON with sorted keys."""
    return hashlib.sha256(_ENCODER.encode(value).encode()).hexdigest()[:16]


def grid_of(resolution: Pair, patch: int) -> Pair:
    """Patches along height and width."""
    return resolution[0] // patch, resolution[1] // patch


def position_lengths(training: Training) -> Pair:
    """Length L of the position range along each axis, for all stages (see `lengths_of`)."""
    return lengths_of(training.positions, grid_of(training.data.resolution, training.model.patch))


def lengths_of(positions: Positions, grid: Pair) -> Pair:
    """Range multiplier x patches along each axis, half to even."""
    return round(positions.range_multiplier * grid[0]), round(positions.range_multiplier * grid[1])


def training_json(training: Training) -> dict[str, Any]:
    """The canonical training and its data's digest."""
    return {
        "format": FORMAT,
        "config": training.model_dump(mode="json"),
        "data_digest": facts(training.data).digest,
    }


def group_id_of(training: Training) -> str:
    """Id of a canonical training without its seed, wherever the folder of its data lies."""
    known = training_json(training)
    known["config"]["data"]["folder"] = None
    return digest(known | {"config": _hashed(known["config"])})


def _hashed(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the later fields at the value that they had before they were."""
    return {
        section: {
            name: value
            for name, value in fields.items()
            if (key := f"{section}.{name}") not in ADDED or value != ADDED[key]
        }
        for section, fields in config.items()
    }


def run_id_of(group_id: str, seed: int) -> str:
    """Id of one training run: its group and its seed."""
    return digest({"group": group_id, "seed": seed})


def protocol_of(data: Data, evaluation: Evaluation) -> dict[str, Any]:
    """By what an evaluation measures: for each extractor its weights, reference and crops."""
    evaluate = evaluation.evaluate
    size = evaluate.resolution
    return {
        "extractors": {
            name: {
                "sha256": weights_sha256(name),
                "reference": reference_id(data, size, evaluate.reference_images),
                "manifold": reference_id(data, size, evaluate.manifold_images),
                "patch": evaluate.patch_size or patch_side(name, size),
            }
            for name in evaluate.extractors
        }
    }


@lru_cache(maxsize=65536)
def reference_id(data: Data, resolution: Pair, images: int) -> str:
    """Id of `images` real training images at `resolution`: content, size and count."""
    return digest([facts(data).digest, "train", list(resolution), images])


@lru_cache(maxsize=65536)
def eval_id_of(data: Data, evaluation: Evaluation) -> str:
    """Id of a canonical evaluation, within its run's folder."""
    return digest(
        {
            "format": FORMAT,
            "config": _hashed(evaluation.model_dump(mode="json")),
            "protocol": protocol_of(data, evaluation),
        }
    )
