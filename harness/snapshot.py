"""A copy of the code for jobs that run later, so that editing the checkout changes none of them.

    <snapshots>/<commit>[-<hash>]/     the sources, named by commit and, where they differ from it,
        SNAPSHOT.json                  by their content; what `harness.provenance` says of them
        data                           a link to the checkout's data

A snapshot is made once and appears whole, by a rename. Beside one that was edited afterwards
another is made, with a number to its name. All are left where they are, because jobs in the queue
may need them.
"""

import hashlib
import shutil
import tempfile
from pathlib import Path

from harness.errors import UserError
from harness.files import FORMAT, Json, read_json, write_json
from harness.provenance import ROOMS, ROOT, SNAPSHOT, code_id_of, git, origin

FILES = ("pyproject.toml",)
LARGEST = 50 * 2**20  # bytes of one file


def snapshot(folder: Path, root: Path = ROOT) -> Path:
    """The snapshot of the code under `root`, made in `folder` unless it is there already.

    Raises:
        UserError: the folder cannot be written, or the code changed while it was copied.
    """
    if (root / SNAPSHOT).exists():  # a job submits a successor: it runs in one
        return root
    found = contents(root)
    content = content_id(found)
    name, facts = _facts(root, content)
    target, number = folder / name, 1
    while target.exists():
        if sound(target, content):
            return target
        number += 1
        target = folder / f"{name}.{number}"
    folder.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder))
    try:
        for path in found:
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / path, work / path)
            (work / path).chmod(0o444)
        if content_id(contents(work)) != content:
            raise UserError(f"{root}: the code changed while it was copied; try again")
        if (root / "data").exists():
            (work / "data").symlink_to((root / "data").resolve())
        write_json(work / SNAPSHOT, facts)
        work.chmod(0o755)
        try:
            work.rename(target)
        except OSError:
            if not sound(target, content):  # else another process was first
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def contents(root: Path) -> dict[str, str]:
    """Relative path -> sha256 of every file that belongs to a snapshot; hidden ones do not.

    Raises:
        UserError: one is too large to be code.
    """
    files = [root / name for name in FILES if (root / name).is_file()]
    for room in ROOMS:
        files += [path for path in (root / room).rglob("*") if path.is_file()]
    found = {}
    for path in sorted(files):
        relative = path.relative_to(root)
        hidden = any(part.startswith(".") or part == "__pycache__" for part in relative.parts)
        if not hidden and path.suffix != ".pyc":
            if (size := path.stat().st_size) > LARGEST:
                raise UserError(
                    f"{path}: {size / 2**20:.0f} MiB would be copied with the code of every "
                    "submission; move it out of the code's folders"
                )
            with path.open("rb") as file:
                found[str(relative)] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def content_id(found: dict[str, str]) -> str:
    """12 hex digits over paths and contents."""
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:12]


def sound(target: Path, content: str) -> bool:
    """Whether a snapshot is what its name says."""
    try:
        told = read_json(target / SNAPSHOT, needs=("content",))
    except UserError:
        return False
    return bool(told["content"] == content) and content_id(contents(target)) == content


def _facts(root: Path, content: str) -> tuple[str, Json]:
    """The name of a snapshot and what it says of itself."""
    code = code_id_of(root)
    own = git(root, "rev-parse", "--show-toplevel")
    known = bool(own) and Path(str(own)) == root  # not of a repository that it happens to lie in
    told = origin(root) if known else {"commit": None, "diff": None}
    facts: Json = {"format": FORMAT, **told, "code_id": code, "content": content}
    if told["commit"] is None:
        return f"{code}-{content}", facts
    status = ("status", "--porcelain", "--untracked-files=all", "--", *ROOMS, *FILES)
    commit = str(told["commit"])[:12]
    return (f"{commit}-{content}" if git(root, *status) else commit), facts
