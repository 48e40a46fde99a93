"""What a sweep shows: its plan, then a live table on a terminal or plain lines elsewhere."""

import threading
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from harness.claim import last_attempt
from harness.plan import Plan, PlannedRun, state_of

STYLES = {"done": "green", "running": "cyan", "queued": "blue", "failed": "red",
          "stale": "yellow", "stopped": "yellow", "new": "dim"}  # fmt: skip
UPSAMPLED = "§"  # the reference is of enlarged images
PLAIN_EVERY = 15.0  # seconds between a run's plain lines


def duration(seconds: float) -> str:
    """`42 s`, `3 min 10 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def status(run: PlannedRun, queued: str = "", ended: str = "") -> dict[str, str]:
    """One run's line, read from its folder: state, work, loss, images/s, time left, figures.

    Args:
        queued: what is said of the job that holds it. ended: how its last job ended.
    """
    state, reason, evaluations = state_of(run.folder, run.evaluations, queued, ended)
    measured = sum(s in ("done", "stale") for s, _ in evaluations.values())
    line = {
        "run": run.run_id[:8],
        "seed": str(run.seed),
        "cell": run.label,
        "state": state,
        "work": reason if state != "done" else "",
        "loss": "",
        "images/s": "",
        "left": "",
        "evaluations": f"{measured}/{len(evaluations)}",
        "figures": figures(run),
    }
    attempt = last_attempt(run.folder) if state == "running" else None
    progress = attempt.data.get("progress", {}) if attempt else {}
    if attempt and not progress:
        line["work"] = "starting"
    if progress.get("stage") == "train":
        line["work"] = f"step {progress['step']}/{progress['steps']}"
    elif progress.get("stage") == "evaluate":
        height, width = progress["resolution"]
        line["work"] = f"sample {progress['samples']}/{progress['of']} at {height}x{width}"
    elif progress.get("stage") == "measure":
        line["work"] = "measure at {}x{}".format(*progress["resolution"])
    if "loss" in progress:
        line["loss"] = f"{progress['loss']:.4f}"
    if progress.get("images_per_second"):
        line["images/s"] = f"{progress['images_per_second']:.0f}"
        line["left"] = duration(progress["seconds_left"])
    return line


def figures(run: PlannedRun) -> str:
    """`best fid.fashion-cnn 4.1 @12x12  12.9 @18x18`: the run's best at each size so far.

    Figures of snapshots or of fewer samples are not compared with others: those of the longest
    training and the largest count are shown. A size with a reference that is upsampled has a sign.
    """
    found: dict[str, dict[tuple[int, int], list[tuple[tuple[float, int], float]]]] = {}
    signs: dict[tuple[int, int], str] = {}
    for eval_id, evaluation in run.evaluations.items():
        result, asked = run.folder.result(eval_id), evaluation.evaluate
        name = _fid(result) if result else None
        if result and name:
            sized = found.setdefault(name, {}).setdefault(asked.resolution, [])
            sized.append(((asked.after, asked.samples), result["metrics"][name]))
            if result.get("protocol", {}).get("upsampled"):
                signs[asked.resolution] = UPSAMPLED
    told = []
    for name, sizes in sorted(found.items()):
        each = []
        for (height, width), measured in sorted(sizes.items()):
            most = max(kind for kind, _ in measured)
            value = min(value for kind, value in measured if kind == most)
            early = f" after {100 * most[0]:.3g} %" if most[0] < 1 else ""
            sign = signs.get((height, width), "")
            each.append(f"{value:.3g} @{height}x{width}{sign}{early}")
        told.append(f"best {name} {'  '.join(each)}")
    return "  ".join(told)


def _fid(result: Mapping[str, Any]) -> str | None:
    """The name of the FID to show: the first without a mark, if there is one."""
    names = [name for name in result["metrics"] if name.partition(".")[0] == "fid"]
    sound = [name for name in names if name not in result.get("marks", {})]
    return next(iter([*sound, *names]), None)


def show_plan(plan: Plan, console: Console, every_run: bool) -> None:
    """The plan for people."""
    grid, counts = plan.grid, plan.counts()
    evaluations = sum(len(run.evaluations) for run in plan.runs)
    measured = sum(
        state in ("done", "stale")
        for run in plan.runs
        for state, _ in run.evaluation_states.values()
    )
    console.print(f"[bold]{escape(grid.ablation.question)}[/]")
    console.print(
        f"{counted(len(grid.cells), 'cell')} x {counted(len(grid.ablation.seeds), 'seed')}: "
        f"{counted(len(plan.runs), 'training')} "
        f"({', '.join(f'{n} {state}' for state, n in sorted(counts.items()))}), "
        f"{counted(evaluations, 'evaluation')} ({measured} done)"
    )
    saved = plan.trainings_without_sharing - len(plan.runs)
    if saved:
        console.print(
            f"sharing saves {saved} of {counted(plan.trainings_without_sharing, 'training')} "
            f"({plan.images_saved():,} training images{_gpu_hours(plan)})"
        )
    for rule, count in grid.dropped.items():
        console.print(f"exclude '{rule}' dropped {counted(count, 'cell')}", markup=False)
    for note in grid.notes:
        console.print(note, markup=False)
    if not every_run:
        return
    table = Table(box=None, pad_edge=False)
    for column in ("run", "seed", "state", "evaluations", "cell", "reason"):
        table.add_column(column, overflow="fold")
    for run in plan.runs:
        done = sum(state in ("done", "stale") for state, _ in run.evaluation_states.values())
        state = f"[{STYLES[run.state]}]{run.state}[/]"
        table.add_row(run.run_id[:8], str(run.seed), state, f"{done}/{len(run.evaluations)}",
                      escape(run.label), escape(run.reason))  # fmt: skip
    console.print(table)


def counted(count: int, thing: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _gpu_hours(plan: Plan) -> str:
    """What the saved images would have taken at the speed of the trainings that are done."""
    speeds = []
    for run in plan.runs:
        done = run.folder.done() if run.folder.exists() else None
        if done and done["seconds"]:
            speeds.append(done["images"] / done["seconds"])
    if not speeds:
        return ""
    hours = plan.images_saved() / (sum(speeds) / len(speeds)) / 3600
    kind = "GPU" if plan.grid.job.gpus else "CPU"
    return f", {hours:.2g} {kind} hours at {sum(speeds) / len(speeds):.0f} images/s"


class Watch:
    """Shows the runs from a thread while the launcher works in the main one."""

    def __init__(self, runs: list[PlannedRun], console: Console) -> None:
        self.runs, self.console = runs, console
        # Of each run id, what `status` takes; whoever knows sets them anew.
        self.queued: Mapping[str, str] = {}
        self.ended: Mapping[str, str] = {}
        self._stop = threading.Event()
        target = self._live if console.is_terminal else self._plain
        self._thread = threading.Thread(target=target, name="table", daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _live(self) -> None:
        with Live(self._table(), console=self.console, refresh_per_second=2) as live:
            while not self._stop.wait(1.0):
                live.update(self._table())
            live.update(self._table())

    def lines(self) -> list[dict[str, str]]:
        """Every run's line as it is now."""
        return [
            status(run, self.queued.get(run.run_id, ""), self.ended.get(run.run_id, ""))
            for run in self.runs
        ]

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        lines = self.lines()
        height = max(5, self.console.height - 6)
        working = [line for line in lines if line["state"] == "running"]
        others = [line for line in lines if line["state"] != "running"]
        shown = (working + others)[:height]
        for column in ("run", "seed", "cell", "state", "work", "loss", "images/s", "left",
                       "evaluations", "figures"):  # fmt: skip
            right = column in ("seed", "loss", "images/s", "left", "evaluations")
            table.add_column(column, justify="right" if right else "left", overflow="fold")
        for line in shown:
            state = line["state"]
            cells = {key: escape(text) for key, text in line.items()}
            cells["state"] = f"[{STYLES[state]}]{state}[/]"
            table.add_row(*cells.values())
        captions = []
        if len(lines) > len(shown):
            left = len(lines) - len(shown)
            captions.append(f"and {counted(left, 'more run')}")
        if any(UPSAMPLED in line["figures"] for line in shown):
            captions.append(f"{UPSAMPLED} measured against upsampled images")
        table.caption = "; ".join(captions) or None
        return table

    def _plain(self) -> None:
        told: dict[str, tuple[str, float]] = {}
        while True:
            stopping = self._stop.wait(1.0)
            for run, line in zip(self.runs, self.lines(), strict=True):
                key = f"{line['state']} {line['evaluations']}"
                before, when = told.get(run.run_id, ("", 0.0))
                due = line["state"] == "running" and time.monotonic() - when > PLAIN_EVERY
                if (key != before and (before or line["state"] != "new")) or due:
                    told[run.run_id] = (key, time.monotonic())
                    print(plain_line(line), flush=True)
            if stopping:
                return


def plain_line(line: dict[str, str]) -> str:
    """A run's line as text."""
    parts = [line["run"], f"seed {line['seed']}", line["cell"], line["state"], line["work"]]
    if line["loss"]:
        parts.append(f"loss {line['loss']}")
    if line["images/s"]:
        parts += [f"{line['images/s']} images/s", f"{line['left']} left"]
    parts += [f"{line['evaluations']} evaluations", line["figures"]]
    return "  ".join(part for part in parts if part)
