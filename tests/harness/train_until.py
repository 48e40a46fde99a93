"""One rank that trains several runs: `python -m tests.harness.train_until RUN:STEPS RUN:STEPS ...`.

Each does at most so many steps more. Many engines in one process, because it takes longer to start
one than all of their steps.
"""

import json
import sys
from pathlib import Path

from harness.config import Job, Training
from harness.ema import set_damaged_weights_aside
from harness.engine import World, join_world, make_deterministic, quiet
from harness.files import read_json
from harness.record import RunFolder
from harness.train import Interrupted, train


class After:
    """Asks for a stop after some steps, being asked once a step."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def work(run: RunFolder, steps: int, world: World) -> None:
    spec, job = run.spec(), Job(**read_json(run.path / "job.json"))
    training = Training.model_validate_json(json.dumps(spec["config"]))
    set_damaged_weights_aside(run, world)
    if run.done() is None:
        try:
            train(run, training, spec["seed"], job, world, "0" * 16, {}, After(steps))
        except Interrupted as stopped:
            print(run.run_id, stopped)


def main(arguments: list[str]) -> None:
    quiet()
    make_deterministic(1)
    world = join_world()
    for argument in arguments:
        folder, steps = argument.rsplit(":", 1)
        print(f"{folder}:", flush=True)
        work(RunFolder(Path(folder)), int(steps), world)
    world.leave()


if __name__ == "__main__":
    main(sys.argv[1:])
