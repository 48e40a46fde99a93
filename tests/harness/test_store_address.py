"""What is shown of an address, and how a store's troubles are said."""

import pytest

from harness.errors import UserError
from harness.store_address import check_address, explain, has_password, public, without_secrets

POSTGRES = "postgresql+psycopg2://me:p%40ss@db.example:5432/runs"


@pytest.mark.parametrize(
    ("uri", "shown", "secret"),
    [
        ("sqlite:////home/me/mlflow.db", "sqlite:////home/me/mlflow.db", False),
        ("http://host:5000", "http://host:5000", False),
        ("https://token@host/mlflow", "https://host/mlflow", False),
        ("http://me:p%40ss@host:5000", "http://host:5000", True),
        (POSTGRES, "postgresql+psycopg2://db.example:5432/runs", True),
        ("postgresql://db/runs?user=me&password=x", "postgresql://db/runs", True),
        ("databricks", "databricks", False),
    ],
)
def test_only_the_place_is_shown(uri: str, shown: str, secret: bool) -> None:
    assert public(check_address(uri)) == shown
    assert has_password(uri) == secret


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("htpp://me:p4ss@host", "did you mean 'http'?"),
        ("/home/p4ss/mlruns", "begins with none of sqlite, http"),
        ("file:///home/p4ss/mlruns", "begins with none of sqlite, http"),
        ("me:p4ss@host/runs", "begins with none of sqlite, http"),
        ("postgresql://me:p4ss:5/8@host/runs", "has no port that is a number"),
        ("http://host:p4ss", "has no port that is a number"),
        ("http://me:1234/p4ss@127.0.0.1:9", "after its host, a @"),
        ("http://me:/p4ss@host", "after its host, a @"),
        (
            "postgresql+psycopg2://me:77/p4ss@host/runs",
            "write %40 for @, %3A for :, %2F for /, %3F",
        ),
        ("http://me:77?p4ss@host", "after its host, a @"),
        ("http://me:77#p4ss@host", "has a #"),
        ("http://host/#p4ss", "has a #"),
    ],
)
def test_a_wrong_address_is_refused_without_being_shown(uri: str, message: str) -> None:
    with pytest.raises(UserError) as refused:
        check_address(uri)
    assert message in str(refused.value)
    assert "p4ss" not in str(refused.value)


def test_secrets_are_struck_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "t0ken")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "")
    text = "no 'http://me:p%40ss@host:5000/api?x' with p@ss or p%40ss, t0ken; is me@host well?"
    expected = "no 'http://host:5000/api?x' with *** or ***, ***; is me@host well?"
    assert without_secrets(text, "http://me:p%40ss@host:5000") == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('connection to server at "db" (::1), port 5432 failed: Connection refused Is it?',
         "no MLflow answers at postgresql+psycopg2://db.example:5432/runs"),
        ("server closed the connection unexpectedly This probably means",
         "no MLflow answers at postgresql+psycopg2://db.example:5432/runs"),
        ('connection to server at "db", port 5432 failed: FATAL:  the database system is starting '
         "up", "no MLflow answers at postgresql+psycopg2://db.example:5432/runs"),
        ('failed: FATAL:  password authentication failed for user "me" connection to server at "db"'
         ' (127.0.0.1), port 5432 failed: FATAL: x (Background on this error at: http)',
         "postgresql+psycopg2://db.example:5432/runs: password authentication failed for user "
         '"me"'),
        ("API request to endpoint /x failed with error code 401 != 200. Response body: ''",
         "postgresql+psycopg2://db.example:5432/runs wants other credentials: set "
         "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"),
        ("API request to http://me:p%40ss@db.example timed out", "no MLflow answers at "
         "postgresql+psycopg2://db.example:5432/runs"),
        ("odd p@ss [SQL: INSERT INTO x]", "RuntimeError: odd *** "),
    ],
)  # fmt: skip
def test_troubles_are_one_plain_line(text: str, said: str) -> None:
    assert explain(RuntimeError(text), POSTGRES) == said


def test_a_missing_driver_is_named() -> None:
    missing = ModuleNotFoundError("No module named 'psycopg'", name="psycopg")
    assert "pip install psycopg2-binary" in explain(missing, "postgresql://db/runs")
