"""Base files: what an ablation inherits, and where its path leads."""

from pathlib import Path

from harness.errors import UserError, got, nearest, short
from harness.settings import flatten
from harness.yamlfile import Value, load, plain

FIELDS = (
    "question", "base", "set", "axes", "zip", "include", "exclude", "when", "seeds", "evaluate",
    "baseline",
)  # fmt: skip


def read_base(path: Path, above: tuple[Path, ...]) -> dict[str, Value]:
    """Dotted keys of a base file on top of its own base, and `unit`, the pixels of 1x.

    Raises:
        UserError: the file is missing, or is its own base by way of others.
    """
    if path.resolve() in above:
        chain = " -> ".join(p.name for p in (*above, path))
        raise UserError(f"{above[-1]}: 'base' goes in a circle: {chain}; remove one of them")
    top = load(path)
    inherited: dict[str, Value] = {}
    if "base" in top:
        inherited = read_base(relative(top.pop("base"), path), (*above, path.resolve()))
    misplaced = next((name for name in top if name in FIELDS and name != "evaluate"), None)
    if misplaced:
        raise UserError(
            f"{top[misplaced].where}: '{misplaced}' belongs into an ablation, not into a base"
        )
    unit = {"unit": top.pop("unit")} if "unit" in top else {}
    return inherited | flatten(top) | unit


def relative(value: Value, path: Path) -> Path:
    """The file that `base:` in `path` names.

    Raises:
        UserError: it names none.
    """
    if not isinstance(value.data, str):
        raise UserError(
            f"{value.where}: base: got {got(plain(value))}; give the path of a YAML file"
        )
    file = path.parent / value.data
    if not _is_file(file):
        near = nearest(value.data, _yaml_files(path))
        raise UserError(
            f"{value.where}: base: there is no file {path.parent / short(value.data)}{near}"
        )
    return file


def found(base: Path, path: Path) -> Path:
    """The file of `--base`, from here or from the folder of the ablation `path`.

    Raises:
        UserError: there is none.
    """
    for candidate in (base, path.parent / base):
        if _is_file(candidate):
            return candidate
    raise UserError(
        f"--base {short(str(base))}: there is no such file, here or in {path.parent}"
        f"{nearest(str(base), _yaml_files(path))}"
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long for any file
        return False


def _yaml_files(beside: Path) -> list[str]:
    """What a misspelt base could have meant."""
    folder = beside.parent
    return [str(p.relative_to(folder)) for p in folder.glob("**/*.yaml") if p != beside]
