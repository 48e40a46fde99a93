"""What can be computed, but says less than it seems: told with the plan and in the report."""

from collections.abc import Iterable

from harness import extractors
from harness.config import Evaluation, Training
from harness.dataset import upsampled


def doubts(asked: Iterable[tuple[Training, Evaluation]]) -> list[str]:
    """A sentence for each extractor that knows other data, and for each training on enlarged ones.

    Args:
        asked: each evaluation with its training, canonical.
    """
    looks, sizes = set(), set()
    for training, evaluation in asked:
        data = training.data
        looks |= {(name, data.name) for name in evaluation.evaluate.extractors}
        sizes |= {(data, stage.resolution) for stage in training.train.stages or [data]}
    strange = [
        f"{name} knows {known} only: of {data} its figures compare methods roughly at best"
        for name, data in sorted(looks)
        if (known := extractors.facts(name).data) not in (None, data)
    ]
    enlarged = [
        f"training at {size[0]}x{size[1]}: {share:.0%} of the pictures are smaller and are enlarged"
        for data, size in sorted(sizes, key=lambda one: one[1])
        if (share := upsampled(data, size))
    ]
    return strange + enlarged
