"""A site's profile: what a Slurm cluster wants to be told, and what a job asks of it.

    python -m harness.sweep ablations/range.yaml --launcher slurm --profile slurm/profiles/mine.yaml

`slurm/profiles/example.yaml` has every field. A profile is data: there is no field for free shell
text, and each word of it reaches a shell quoted.
"""

import math
import re
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from harness.config import Job, Section
from harness.errors import UserError, got, nearest, short
from harness.kinds import Positive, as_tuple
from harness.launch.sbatch_options import KNOWN, OURS
from harness.yamlfile import Value, load, plain

UNITS = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}  # MiB each
TIME = re.compile(r"(?:(\d{1,3})-)?(\d{1,4}):(\d\d):(\d\d)")
MEMORY = re.compile(r"(\d+(?:\.\d+)?)([KMGT])B?")


def _word(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("must be printable text on one line")
    return text


def _option(text: str) -> str:
    if "\\" in text:
        raise ValueError("Slurm drops \\ from its options; leave it out")
    return text


def _identifier(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("a variable's name has letters, digits and _ only")
    return name


def _minutes(value: object) -> object:
    """`90`, `1:30:00` or `1-12:00:00` -> minutes, rounded up."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = TIME.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("must be minutes, H:MM:SS or D-HH:MM:SS")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return math.ceil(((days * 24 + hours) * 60 + minutes) + seconds / 60)


def _megabytes(value: object) -> object:
    """`16G` -> MiB, rounded up."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError("must say its unit, such as 16G or 800M")
    found = MEMORY.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("must be a number with its unit, such as 16G or 800M")
    return math.ceil(float(found[1]) * UNITS[found[2]])


def _text(value: object) -> object:
    """Numbers as they are written; true, false and null are no text."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Word = Annotated[str, AfterValidator(_word)]
Option = Annotated[Word, AfterValidator(_option)]  # of an #SBATCH line, which Slurm reads
Words = Annotated[tuple[Word, ...], BeforeValidator(as_tuple)]
Variable = Annotated[str, AfterValidator(_identifier)]


class Profile(Section):
    """What is the same for every job on a cluster; `harness.config.Job` says what one run takes."""

    time: Annotated[Positive, Field(le=10**6), BeforeValidator(_minutes)] = Field(
        description="time limit of a job: minutes, H:MM:SS or D-HH:MM:SS; a run that needs longer "
        "goes on in the next one"
    )
    partition: Option | None = Field(None, description="partition, or several with commas")
    account: Option | None = Field(None, description="account that is charged")
    qos: Option | None = Field(None, description="quality of service")
    constraint: Option | None = Field(None, description="features that a node must have")
    memory: Annotated[Positive, BeforeValidator(_megabytes)] | None = Field(
        None, description="memory of one run, such as 16G; null: what the cluster gives"
    )
    gpu: Option | None = Field(
        None, description="kind of GPU as the cluster names it, such as a100"
    )
    warning: Annotated[Positive, Field(ge=10, le=86_400)] = Field(
        120, description="seconds before the time limit at which a job is told to write its state"
    )
    requeue: bool = Field(True, description="whether the site allows `scontrol requeue`")
    at_once: Positive = Field(1, description="runs that share a job's nodes at a time")
    runs_per_job: Positive | None = Field(
        None, description="runs that a job does, one after the other; null: those at once"
    )
    parallel: Positive | None = Field(None, description="jobs of a submission at a time")
    max_jobs: Positive | None = Field(
        None, description="jobs of a submission; where there are more runs, a job does several"
    )
    modules: Words = Field((), description="environment modules to load, in this order")
    environment: Mapping[Variable, Annotated[Word, BeforeValidator(_text)]] = Field(
        {}, description="environment variables; no secrets: they are kept beside the results"
    )
    container: Words = Field(
        (), description="words put before python, such as [apptainer, exec, --nv, image.sif]"
    )
    python: Word | None = Field(None, description="python on the nodes; null: the one in use here")
    sbatch: Mapping[str, Annotated[Option, BeforeValidator(_text)] | bool] = Field(
        {}, description="further options of sbatch, by their long names"
    )
    srun: Words = Field((), description="further words for srun")
    snapshots: Word | None = Field(
        None, description="folder of the code that jobs run; null: OUTPUTS/slurm/code"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "Profile":
        if self.warning >= 60 * self.time:
            raise ValueError(
                f"warning: {self.warning} seconds before a time limit of {self.time} minutes is "
                "before the start; give a longer time or a later warning"
            )
        if self.python and "/" in self.python and not self.python.startswith(("/", "~/")):
            raise ValueError(f"python: {self.python} depends on the folder that a job starts in; "
                             "give its whole path")  # fmt: skip
        if self.runs_per_job is not None and self.runs_per_job < self.at_once:
            raise ValueError(f"runs_per_job: {self.runs_per_job} is less than at_once "
                             f"{self.at_once}")  # fmt: skip
        return self


def read_profile(path: Path) -> Profile:
    """A profile from its YAML file.

    Raises:
        UserError: file, line, key, what was got and what is allowed.
    """
    values = load(path, "a profile needs at least 'time'")
    for key, value in values.items():
        if key not in Profile.model_fields:
            near = nearest(key, Profile.model_fields) or (
                f"; a profile has {', '.join(Profile.model_fields)}"
            )
            raise UserError(f"{value.where}: unknown key '{short(key)}'{near}")
    if "sbatch" in values and isinstance(options := values["sbatch"].data, dict):
        for name, option in options.items():
            _check_option(name, option)
    try:
        return Profile.model_validate({key: plain(value) for key, value in values.items()})
    except ValidationError as error:
        raise UserError(_explain(path, values, dict(error.errors()[0]))) from None


def _explain(path: Path, values: Mapping[str, Value], error: Mapping[str, Any]) -> str:
    reason = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not error["loc"]:
        return f"{path}: {reason}"
    key = str(error["loc"][0])
    meaning = Profile.model_fields[key].description
    if error["type"] == "missing":
        return f"{path}: '{key}' is missing: {meaning}"
    value, name = values[key], key
    inner = value.data
    if len(error["loc"]) > 1 and isinstance(inner, dict) and error["loc"][1] in inner:
        name, value = f"{key}.{short(str(error['loc'][1]))}", inner[error["loc"][1]]
    return f"{value.where}: {name}: got {got(plain(value))}: {reason} ({meaning})"


def _check_option(name: str, value: Value) -> None:
    """Refuse what sbatch does not know, what the launcher itself says, and what says nothing."""
    options = sbatch_options()
    if name not in options:
        near = nearest(name, options) or f"; it knows {', '.join(sorted(options))}"
        raise UserError(f"{value.where}: sbatch has no option '{short(name)}'{near}")
    if name in OURS:
        raise UserError(f"{value.where}: sbatch.{name}: {OURS[name]}")
    if value.data is False or value.data is None:
        raise UserError(f"{value.where}: sbatch.{name}: got {got(value.data)}: leave it out, or "
                        "give it a value (true for an option without one)")  # fmt: skip


@cache
def sbatch_options() -> frozenset[str]:
    """Long options of this machine's sbatch, and those of Slurm 22.05: its help has not all."""
    try:
        told = subprocess.run(["sbatch", "--help"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return KNOWN
    return KNOWN | frozenset(re.findall(r"(?<![\w-])--([a-z][a-z-]+)", told.stdout))


def runs_at_once(profile: Profile, job: Job) -> int:
    """How many runs share a job: one where a run spans several tasks."""
    return 1 if job.nodes > 1 else profile.at_once


def parameters(
    profile: Profile,
    job: Job,
    *,
    name: str,
    snapshot: Path,
    setup: Sequence[str] = (),
    parallel: int | None = None,
    excluded: Sequence[str] = (),
) -> dict[str, Any]:
    """What is asked of sbatch, in the names of submitit's `update_parameters`.

    A run on one node is one task, whose supervisor starts the ranks; a run over several nodes has
    a task for each rank.

    Args:
        name: of the Slurm job.
        snapshot: the folder of the code, in which the job starts.
        setup: lines of shell before python.
        parallel: elements of the array at a time; None: submitit's own default.
        excluded: nodes that are not to be used.

    Raises:
        UserError: what a run takes cannot be said to Slurm.
    """
    at_once = runs_at_once(profile, job)
    tasks = job.ranks // job.nodes if job.nodes > 1 else 1
    cpus = math.ceil(job.cpus / job.ranks) if job.nodes > 1 else job.cpus * at_once
    further = {key: value for key, value in profile.sbatch.items() if key != "exclude"}
    without = [str(profile.sbatch["exclude"])] if "exclude" in profile.sbatch else []
    found: dict[str, Any] = {
        "job_name": name,
        "time": profile.time,
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "exclude": ",".join([*without, *excluded]) or None,
        "nodes": job.nodes,
        "ntasks_per_node": tasks,
        "cpus_per_task": cpus,
        "gpus_per_node": _gpus(profile, job, at_once),
        "mem": profile.memory and f"{math.ceil(profile.memory * at_once / job.nodes)}M",
        "signal_delay_s": profile.warning,
        "array_parallelism": parallel,
        "stderr_to_stdout": True,
        # Without --export, `sbatch: {export: NONE}` would keep what `setup` sets from the tasks.
        "srun_args": [
            "--kill-on-bad-exit=1",
            f"--cpus-per-task={cpus}",
            "--export=ALL",
            *profile.srun,
        ],
        "setup": list(setup),
        "additional_parameters": {
            "chdir": str(snapshot),
            "requeue" if profile.requeue else "no-requeue": True,
            **further,
        },
    }
    # submitit's own key of accounting is unknown to most sites.
    return {key: value for key, value in found.items() if value is not None} | {"wckey": None}


def _gpus(profile: Profile, job: Job, at_once: int) -> str | int | None:
    """GPUs of a node: whole ones, of which runs with a fraction share each as many as fit."""
    if not job.gpus:
        return None
    if job.gpus < 1 and job.nodes == 1:
        count: float = math.ceil(at_once / math.floor(1 / job.gpus + 1e-9))
    else:
        count = job.gpus * at_once / job.nodes
    if count != int(count):
        raise UserError(
            f"job.gpus {job.gpus:g} over job.nodes {job.nodes}: Slurm gives whole GPUs; ask for a "
            "whole number on each node, or for a fraction on one node"
        )
    return f"{profile.gpu}:{int(count)}" if profile.gpu else int(count)
