import json

import pytest

from harness.provenance import code_id, provenance


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
