"""Build the report of an ablation from what is on disk; nothing is trained or measured."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from harness.ablation import read_ablation
from harness.errors import UserError
from harness.files import read_json
from harness.grid import expand, to_json


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m reports", description=__doc__)
    parser.add_argument("ablation", type=Path, help="an ablation file (ablations/*.yaml)")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="as given to the sweep")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="default: outputs")
    parser.add_argument("--base", type=Path, help="another base under the same question")
    parser.add_argument(
        "--seeds",
        type=int,
        metavar="N",
        help="seeds 0 .. N-1 (default: those of the last sweep, else the file's)",
    )
    options = parser.parse_intermixed_args(arguments)
    try:
        if options.seeds is not None and options.seeds < 1:
            raise UserError(f"--seeds {options.seeds}: give 1 or more")
        ablation = read_ablation(
            options.ablation, tuple(options.changes), options.base, options.seeds
        )
        if not options.outputs.is_dir():
            raise UserError(f"--outputs {options.outputs}: there is no such folder")
        swept = options.outputs / "ablations" / f"{ablation.name}.json"
        if options.seeds is None and swept.exists():
            ablation = replace(ablation, seeds=tuple(read_json(swept, needs=("seeds",))["seeds"]))
        grid = expand(ablation)
        from reports.render import build  # slow to import; a typo is answered without it

        report = build(to_json(grid), options.outputs)
        headline = report.with_name("headline.txt").read_text()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"no report: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    print(headline + str(report))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
