"""Where the figures come from: protocols, code, commit, packages, machine."""

import json
from collections import Counter

from reports.formats import NOTHING, counted, listed, percent
from reports.load import Json, Sweep
from reports.results import all_protocols, other_code_rows
from reports.tables import OTHER_CODE, Table, table


def protocol_table(sweep: Sweep) -> Table | None:
    """The protocols that the figures were measured by; None before there is a figure."""
    body = []
    for key, letter in all_protocols(sweep).items():
        rows = [row for row in sweep.rows if key in map(row.protocol_key, row.metrics)]
        protocol = json.loads(key)
        side, share = protocol.get("patch"), protocol.get("upsampled", 0)
        reference = f"{_told(protocol, 'reference_images')} ({_told(protocol, 'reference')})"
        reference += f", {percent(share)} upsampled" if share else ""
        body.append(
            [
                letter,
                ", ".join(dict.fromkeys(row.column.title for row in rows)),
                _told(protocol, "extractor"),
                _told(protocol, "extractor_sha256")[:16],
                _told(protocol, "samples"),
                _told(protocol, "labels"),
                reference,
                f"{_told(protocol, 'manifold_images')} ({_told(protocol, 'manifold')})",
                NOTHING if side is None else f"{side} px",
                str(len({row.evaluation for row in rows})),
            ]
        )
    if not body:
        return None
    header = ["protocol", "column", "extractor", "its weights' sha256", "samples", "labels",
              "real images of FID (id)", "of precision, recall ... (id)", "patch side",
              "evaluations"]  # fmt: skip
    return table("Protocols", header, body)


def code_notes(sweep: Sweep) -> list[str]:
    """Which code made the results; what is stale, and what is mixed."""
    counts: Counter[str] = Counter()
    for codes in {row.evaluation: row.code_ids for row in sweep.rows if row.metrics}.values():
        counts.update(codes)
    if not counts:
        return []
    told = listed(f"{code} ({counted(n, 'evaluation')})" for code, n in sorted(counts.items()))
    notes = [f"Code that trained or measured: {told}. Code that is here now: {sweep.code_id}."]
    if set(counts) != {sweep.code_id}:
        notes.append("Stale: this report has results of other code than the one that is here now.")
    if marked := other_code_rows(sweep):
        names = "; ".join(sweep.methods[cell_id] for cell_id in marked)
        notes.append(
            f"{OTHER_CODE} The results of {names} were made, in part or whole, by other code than "
            "the other rows: a difference to them may be the code's."
        )
    return notes


def machine_table(sweep: Sweep) -> Table | None:
    """The commits, packages and machines of all attempts; None before there is one."""
    found: dict[tuple[str, ...], int] = {}
    for run in sweep.runs:
        for attempt in {_attempt(one): None for one in run.provenance}:
            found[attempt] = found.get(attempt, 0) + 1
    if not found:
        return None
    header = ["commit", "state", "device", "host", "python", "packages", "runs"]
    body = [[*attempt, str(runs)] for attempt, runs in sorted(found.items())]
    return table("Code and machines", header, body)


def _attempt(one: Json) -> tuple[str, ...]:
    diff = one.get("diff")
    state = "unknown" if diff is None else "dirty: uncommitted changes" if diff else "clean"
    packages = ", ".join(f"{k} {v}" for k, v in sorted(one.get("packages", {}).items()) if v)
    ranks = one.get("ranks", 1)
    device = _told(one, "device")
    if device == "cpu" and one.get("processor"):
        device += f" ({one['processor']})"
    kernels = [f", {name}={value}" for name, value in sorted(one.get("kernels", {}).items())]
    device += "".join(kernels) + (f", {ranks} ranks" if ranks != 1 else "")
    commit = (one.get("commit") or "unknown")[:12]
    return commit, state, device, _told(one, "host"), _told(one, "python"), packages


def _told(values: Json, key: str) -> str:
    value = values.get(key)
    return NOTHING if value is None else str(value)
