"""The lines of shell that a job runs before python; every word from outside is quoted."""

import os
import shlex
from pathlib import Path

from harness.launch.profile import Profile
from harness.provenance import SNAPSHOT

PICKLE = "element-{}.pkl"  # in the batch's folder: what submitit is to call
PATIENT = ("sh", "-c", 'trap "" USR2; exec "$@"', "sh")  # before a command: it ignores SIGUSR2


def setup_lines(profile: Profile, snapshot: Path, data: Path) -> list[str]:
    """Modules, environment and the code's path; no job runs other code than its own.

    Args:
        snapshot: the folder of the code.
        data: what `harness.facts.data_folder` is to say in the job.
    """
    marker = shlex.quote(str(snapshot / SNAPSHOT))
    gone = shlex.quote(f"{snapshot}: the code of this job is gone; give the sweep again")
    lines = [f"test -e {marker} || {{ echo {gone} >&2; exit 1; }}"]
    if profile.modules:
        lines.append("type module >/dev/null 2>&1 || . /etc/profile")
    for name in profile.modules:
        lines.append(f"module load {shlex.quote(name)} || exit 1")
    variables = {"RESOLUTE_DATA": str(data), **profile.environment}
    lines += [f"export {name}={shlex.quote(str(value))}" for name, value in variables.items()]
    lines.append(f"export PYTHONPATH={shlex.quote(str(snapshot))}${{PYTHONPATH:+:$PYTHONPATH}}")
    return lines


def pickle_lines(batch: Path) -> list[str]:
    """Give the element's pickle the name under which submitit looks for it.

    submitit does this itself once sbatch has answered; but whoever submitted may be gone by then.

    Args:
        batch: the batch's folder.
    """
    return [
        'job="${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}"',
        f'ln -sfn "{PICKLE.format("${SLURM_ARRAY_TASK_ID:-0}")}" '
        f'{shlex.quote(str(batch))}/"${{job:-$SLURM_JOB_ID}}_submitted.pkl" || exit 1',
    ]


def python_words(profile: Profile, python: str) -> list[str]:
    """The command that starts Python in a job. python: the one in use here.

    A warning that comes before Python hears of signals, in a container that is slow to start, must
    not end the job.
    """
    words = [*profile.container, profile.python or python]
    return [*PATIENT, *(os.path.expanduser(word) for word in words)]
