import json
from uuid import uuid4

import pytest

from harness.provenance import EXECUTED, code_id, meaning, measuring_id, provenance, seeing_id
from tests.test_imports import imports
from tests.tiny import ROOT


def test_provenance_tells_the_code_and_the_machine_and_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secret = uuid4().hex  # what stands here would be in the diff
    monkeypatch.setenv("WANDB_API_KEY", secret)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    found = provenance("cpu")
    assert found["code_id"] == code_id()
    assert found["device"] == "cpu"
    assert found["processor"]
    assert found["kernels"]["OPENBLAS_CORETYPE"] == "Haswell"
    assert found["packages"]["torch"]
    assert len(found["commit"] or "0" * 40) == 40
    assert secret not in json.dumps(found)


def test_a_mended_comment_leaves_a_reference_valid_and_changed_code_does_not() -> None:
    before = 'def f(x: int) -> int:\n    """Twice."""\n    return 2 * x  # quick\n'
    after = '"""New."""\n\n\ndef f(x: int) -> int:\n    """Two\n    times x."""\n    return 2 * x\n'
    assert meaning(before) == meaning(after)
    assert meaning(before) != meaning(after.replace("2", "3"))
    assert len({code_id(), seeing_id(), measuring_id()}) == 3


def test_the_code_id_sees_every_source_that_makes_a_figure() -> None:
    """Whatever training and evaluating import is in it, but for what only carries values."""
    carries = {
        "claim", "config", "errors", "files", "kinds", "progress", "provenance", "record",
    }  # fmt: skip
    found, coming = set(), ["train", "evaluation"]
    while coming:
        name = coming.pop()
        found.add(name)
        for imported in imports(ROOT / "harness" / f"{name}.py"):
            parts = imported.split(".")
            if parts[0] == "harness" and len(parts) > 1 and parts[1] not in found:
                coming.append(parts[1])
    assert found - carries == set(EXECUTED) - {"run"}
