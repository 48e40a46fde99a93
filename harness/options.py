"""The options of `python -m harness.sweep`."""

import argparse
from pathlib import Path

WATCHING = ("status", "logs", "cancel", "wait", "profile")  # of jobs that Slurm holds


def parse(arguments: list[str] | None, description: str | None) -> argparse.Namespace:
    """The options; what cannot go together ends the command with status 2."""
    parser = argparse.ArgumentParser(
        prog="python -m harness.sweep",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("ablation", type=Path, metavar="FILE", help="the ablation, a YAML file (docs/grammar.md)")
    add("changes", nargs="*", metavar="KEY=VALUE", help="changes on top of the file's 'set'")
    add("--dry-run", action="store_true", help="show the plan and the reason for each run")
    add("--json", action="store_true", help="the plan for programs; implies --dry-run")
    add("--launcher", choices=("ray", "slurm", "inline"), default="ray",
        help="what starts the runs")  # fmt: skip
    add("--ray-address", metavar="HOST:PORT", help="a running Ray cluster ('auto' finds one)")
    add("--base", type=Path, metavar="FILE", help="another base under the same question")
    add("--only", metavar="PATTERN", help="cells whose label holds or matches PATTERN")
    add("--seeds", type=int, metavar="N", help="seeds 0 .. N-1 in place of the file's")
    add("--retry-failed", action="store_true", help="start failed runs again")
    add("--redo-stale", action="store_true", help="redo results of other code (old ones are kept)")
    add("--outputs", type=Path, default=Path("outputs"), metavar="DIR", help="default: outputs")
    add("--no-track", action="store_true", help="leave MLflow alone; fill it later with "
        "'python -m harness.track sync'")  # fmt: skip
    add("--mlflow-uri", metavar="URI", help="another MLflow than OUTPUTS/mlflow.db, such as "
        "http://host:5000")  # fmt: skip
    slurm = parser.add_argument_group("with --launcher slurm", "submits what is missing and ends")
    add = slurm.add_argument
    add("--profile", type=Path, metavar="FILE", help="the site's profile (slurm/README.md)")
    add("--wait", action="store_true", help="watch until nothing is queued; Ctrl-C leaves the jobs")
    add("--status", action="store_true", help="show where the runs stand; changes nothing")
    add("--logs", metavar="PATTERN", help="print the logs of runs whose label, id or job matches")
    add("--cancel", metavar="PATTERN", help="take such runs out of the queue")
    options = parser.parse_intermixed_args(arguments)
    for name in ("logs", "cancel", "only"):
        if getattr(options, name) == "":  # a shell variable that is not set
            parser.error(f"--{name} '': needs a pattern ('*' for all)")
    if options.seeds is not None and options.seeds < 1:
        parser.error(f"--seeds {options.seeds}: must be at least 1")
    if options.no_track and options.mlflow_uri:
        parser.error("--mlflow-uri: --no-track leaves MLflow alone; take one of them away")
    given = [name for name in WATCHING if getattr(options, name)]
    if given and options.launcher != "slurm":
        parser.error(f"--{given[0]}: is for --launcher slurm")
    alone = [name for name in ("status", "logs", "cancel", "wait", "dry_run") if
             getattr(options, name)]  # fmt: skip
    if len(alone) > 1:
        told = " and ".join(f"--{name.replace('_', '-')}" for name in alone)
        parser.error(f"{told}: take one of them")
    looks = options.json or any(name != "wait" for name in alone)
    if options.launcher == "slurm" and not options.profile and not looks:
        parser.error(
            "--launcher slurm: needs --profile FILE; slurm/profiles/example.yaml has every field"
        )
    return options
