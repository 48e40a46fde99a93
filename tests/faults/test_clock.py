"""A clock that jumps, forwards and back, while a sweep works: times are told, never relied on."""

from pathlib import Path

import pytest

from tests.faults import disturbed as d
from tests.tiny import ROOT, wait_for

# What every Python process of the sweep does first: its clock is the machine's plus an offset.
CLOCK = """\
import os
import time

_time = time.time
time.time = lambda: _time() + float(open(os.environ["CLOCK_OFFSET"]).read() or 0)
"""


@pytest.mark.slow
def test_a_clock_that_jumps(tmp_path: Path, ablation: Path, undisturbed: d.Outcome) -> None:
    """Two hours on, three days back, a month on; files keep the machine's own time."""
    offset, outputs = tmp_path / "offset", tmp_path / "outputs"
    offset.write_text("0")
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    faked = {"CLOCK_OFFSET": str(offset), "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    with d.start(ablation, outputs, **faked) as sweep:
        for step, hours in ((10, 2), (40, -72), (70, 720)):
            wait_for(lambda step=step: d.steps(outputs) >= step or sweep.poll() is not None)  # type: ignore[misc]
            offset.write_text(str(hours * 3600))
        assert sweep.wait(300) == 0, (tmp_path / "said.txt").read_text()
    assert d.result(outputs) == undisturbed.result
    assert d.mirrored(outputs) == undisturbed.mirrored
    (run,) = d.runs(outputs)
    times = [line["time"] for line in run.metrics()]
    assert max(times) - min(times) > 86_400  # it did jump
    assert len(list((run.path / "attempts").glob("[0-9]*.json"))) == 1  # nobody took it for gone
