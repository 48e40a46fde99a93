"""Which of a job's GPUs belong to which of the runs that it works on at once."""

import math
from collections.abc import Sequence


def share(devices: Sequence[str], slot: int, gpus: float) -> list[str] | None:
    """The devices of the run in place `slot` (0, 1, ...), of those that the job was given.

    Args:
        devices: the job's, as CUDA_VISIBLE_DEVICES names them.
        gpus: `job.gpus`: a whole number for each run its own, a fraction to share one.

    Returns:
        None where there is nothing to deal out: the job has none, or the run reserves none and
        may use any.
    """
    if not devices or gpus <= 0:
        return None
    if gpus < 1:
        first, count = slot // math.floor(1 / gpus + 1e-9), 1
    else:
        first, count = slot * math.ceil(gpus), math.ceil(gpus)
    # Where the job has fewer than its runs ask for, they share: slower, not wrong.
    return [devices[(first + i) % len(devices)] for i in range(min(count, len(devices)))]


def visible(written: str | None) -> list[str]:
    """The devices in a CUDA_VISIBLE_DEVICES: numbers, or UUIDs of GPUs and parts of them."""
    return [one.strip() for one in (written or "").split(",") if one.strip()]
