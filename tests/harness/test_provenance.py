import json

import pytest

from harness.provenance import code_id, meaning, measuring_id, provenance, seeing_id


def test_provenance_tells_the_code_and_the_machine_and_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "hunter2-secret")
    found = provenance("cpu")
    assert found["code_id"] == code_id()
    assert found["device"] == "cpu"
    assert found["packages"]["torch"]
    assert len(found["commit"] or "0" * 40) == 40
    assert "hunter2" not in json.dumps(found)


def test_a_mended_comment_leaves_a_reference_valid_and_changed_code_does_not() -> None:
    before = 'def f(x: int) -> int:\n    """Twice."""\n    return 2 * x  # quick\n'
    after = '"""New."""\n\n\ndef f(x: int) -> int:\n    """Two\n    times x."""\n    return 2 * x\n'
    assert meaning(before) == meaning(after)
    assert meaning(before) != meaning(after.replace("2", "3"))
    assert len({code_id(), seeing_id(), measuring_id()}) == 3
