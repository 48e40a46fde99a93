"""Commands named as Slurm's, for what no real cluster does when asked: to stop within sbatch.

A folder is the cluster: `jobs` has a line for each job. sbatch does as its file `how` says, and
leaves `arrived` when it has begun to.
"""

import os
from pathlib import Path

import pytest

SBATCH = r"""#!/bin/bash
cd "$FAKE_SLURM" || exit 1
how=$(cat how 2>/dev/null)
count=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\)%.*/\1/p' "$1"); count=$((${count:-0} + 1))
name=$(sed -n 's/^#SBATCH --job-name=//p' "$1")
pause() { touch arrived; until [ -e go ]; do sleep 0.05; done; }
enter() {
  number=$(($(cut -d' ' -f1 jobs | sort -u | wc -l) + 100))
  for ((i = 0; i < count; i++)); do echo "$number $name $i"; done >>jobs
}
case $how in
  wait-before) pause; enter ;;
  wait-after) enter; pause ;;
  away) echo 'sbatch: error: Unable to contact slurm controller (connect failure)' >&2; exit 1 ;;
  killed) enter; kill -9 $$ ;;
  policy) echo 'sbatch: error: Batch job submission failed: Job violates accounting/QOS policy' \
    "(job submit limit, user's size and/or time limits)" >&2; exit 1 ;;
  full) # MaxJobCount, as 22.05 says it after two minutes
    echo 'sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying' >&2
    echo 'sbatch: error: Batch job submission failed: Resource temporarily unavailable' >&2
    exit 1 ;;
  few-nodes)
    if grep -q '^#SBATCH --exclude' "$1"; then
      echo 'sbatch: error: Requested node configuration is not available' >&2; exit 1
    fi
    enter ;;
  limit*)
    if [ $(($(wc -l <jobs) + count)) -gt "${how#limit}" ]; then
      echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1
    fi
    enter ;;
  *) enter ;;
esac
echo "Submitted batch job $number"
"""
SQUEUE = r"""#!/bin/bash
cd "$FAKE_SLURM" || exit 1
if [ "$(cat how 2>/dev/null)" = away ]; then
  echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1
fi
while read -r number name index; do echo "$name|$number|$index|PENDING||Priority"; done <jobs
"""
REFUSING = "#!/bin/bash\nexit 1\n"
CONFIG = '#!/bin/bash\necho "MaxArraySize = $(cat "$FAKE_SLURM/size")"\n'


class FakeSlurm:
    """The folder behind the commands."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        commands = {"sbatch": SBATCH, "squeue": SQUEUE, "scontrol": CONFIG, "srun": REFUSING,
                    "sacct": REFUSING, "sacctmgr": REFUSING}  # fmt: skip
        (folder / "bin").mkdir(parents=True)
        for name, text in commands.items():
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        (folder / "jobs").write_text("")
        (folder / "size").write_text("1001")
        monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
        monkeypatch.setenv("FAKE_SLURM", str(folder))

    def how(self, text: str) -> None:
        """What sbatch does from now on."""
        (self.folder / "how").write_text(text)

    def limit(self, jobs: int) -> None:
        """Accounting lets a user have so many jobs."""
        (self.folder / "bin" / "sacctmgr").write_text(f"#!/bin/bash\necho 'lab|{jobs}'\n")

    def foreign(self) -> None:
        """A job that is none of ours."""
        (self.folder / "jobs").write_text("99 other 0\n")

    def forget(self) -> None:
        """All jobs are over."""
        (self.folder / "jobs").write_text("")

    def size(self, elements: int) -> None:
        (self.folder / "size").write_text(str(elements))

    def arrived(self) -> bool:
        return (self.folder / "arrived").exists()

    def go(self) -> None:
        (self.folder / "go").touch()

    def jobs(self) -> list[list[str]]:
        """[number, name, index] of each element that was submitted."""
        return [line.split() for line in (self.folder / "jobs").read_text().splitlines()]
