"""Where an MLflow store is, and what may be shown of its address: never a password.

The address is --mlflow-uri, or RESOLUTE_MLFLOW_URI, which no process list shows. MLflow's own
MLFLOW_TRACKING_URI is not asked: no mirror lands on a shared server because a shell names it.
Credentials may stand in the address, or where MLflow and PostgreSQL look for them anyway:
MLFLOW_TRACKING_USERNAME and _PASSWORD, MLFLOW_TRACKING_TOKEN, PGPASSWORD, ~/.pgpass.
"""

import errno
import os
import re
import sys
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from harness.errors import UserError, nearest

VARIABLE = "RESOLUTE_MLFLOW_URI"
SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD")
KINDS = ("sqlite", "http", "https", "postgresql", "mysql", "mssql", "databricks")
QUOTED = "in a password write %40 for @, %3A for :, %2F for /, %3F for ? and %23 for #"


def named_store(given: str | None, outputs: Path) -> str | None:
    """The store that the option or the variable names; None for OUTPUTS/mlflow.db.

    A password among the words of the command is warned of.

    Raises:
        UserError: the address, or the folder, is none that MLflow can work with.
    """
    uri = given or os.environ.get(VARIABLE)
    if uri:
        check_address(uri)
    if given and has_password(given):
        told = f"the process list shows the password in --mlflow-uri; {VARIABLE} would not"
        print(f"MLflow mirror: {told}", file=sys.stderr)
    if not uri or not on_server(uri):
        check_folder(outputs)
    return uri or None


def on_server(uri: str) -> bool:
    """Whether the store is a server, which keeps the samples too."""
    return uri.startswith(("http://", "https://", "databricks"))


def check_folder(outputs: Path) -> None:
    """Refuse a folder that MLflow would take for another one.

    SQLAlchemy reads %3F in an address of sqlite as a question mark; MLflow itself does not.

    Raises:
        UserError: its path has a ? or a %.
    """
    if any(sign in str(outputs) for sign in "?%"):
        raise UserError(
            f"{outputs}: MLflow cannot keep its database or samples in a folder with a ? or % in "
            "its path; choose another one with --outputs (a sweep works there with --no-track)"
        )


def check_address(uri: str) -> str:
    """The address as it is, once its form is known to be right.

    Raises:
        UserError: it is none that MLflow has a store for; the message shows nothing of it.
    """
    kind = uri.split(":")[0].split("+")[0]
    if kind not in KINDS:
        near = nearest(kind, KINDS) if re.fullmatch(r"\w+", kind) else ""
        raise UserError(
            f"the address of MLflow begins with none of {', '.join(KINDS)}{near} "
            "(such as http://host:5000 or postgresql+psycopg2://user@host/database)"
        )
    try:
        parts = urlsplit(uri)
        if parts.port == 0:
            raise ValueError
    except ValueError:
        raise UserError(f"the address of MLflow has no port that is a number; {QUOTED}") from None
    # A / ? or # that stands in a password as it is ends the host too early.
    if kind != "sqlite" and ("#" in uri or "@" in parts.path + parts.query):
        raise UserError(f"the address of MLflow has a # or, after its host, a @; {QUOTED}")
    return uri


def has_password(uri: str) -> bool:
    return bool(urlsplit(uri).password or _in_query(uri))


def public(uri: str) -> str:
    """The address without user, password and options: what may be shown and written down."""
    if uri.startswith("sqlite:"):
        return uri
    parts = urlsplit(uri)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def without_secrets(text: str, uri: str) -> str:
    """A message of others with every secret of the address and of the environment struck out."""
    text = re.sub(r"(\w://)[^\s'\"]*@", r"\1", text)
    password = urlsplit(uri).password
    known = {password, *_in_query(uri), *(os.environ.get(name) for name in SECRETS)} - {None, ""}
    both = {str(secret) for secret in known} | {unquote(str(secret)) for secret in known}
    for secret in sorted(both, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _in_query(uri: str) -> set[str]:
    return {value for key, value in parse_qsl(urlsplit(uri).query) if "pass" in key}


def explain(error: BaseException, uri: str) -> str:
    """What went wrong with the store, in one line without secrets."""
    if isinstance(error, UserError):
        return str(error)
    text = without_secrets(" ".join(str(error).split()), uri)
    if (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "disk is full" in text:
        return "no space left on the disk"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ModuleNotFoundError) and str(error.name).startswith("psycopg"):
        return "PostgreSQL needs a driver: pip install psycopg2-binary, and an address that " \
            "begins with postgresql+psycopg2://"  # fmt: skip
    if "database is locked" in text:
        return "the database is locked by another process"
    for known in ("unable to open database file", "readonly database", "not a database"):
        if known in text:
            return f"{urlsplit(uri).path.replace('//', '/')}: {known}"
    place = public(uri)
    fatal = re.search(r"FATAL: +(.*?)(?= connection to server| \(Background|$)", text)
    if fatal and not re.match(r"the database system is|terminating connection", fatal[1]):
        return f"{place}: {fatal[1]}"
    if "error code 401" in text:
        return f"{place} wants other credentials: set MLFLOW_TRACKING_USERNAME and " \
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"  # fmt: skip
    # However it goes away and comes back, it is one trouble, and said once.
    if fatal or re.search(r"Max retries exceeded|[Cc]onnection|timed out|error code 50[234]", text):
        return f"no MLflow answers at {place}"
    text = text.split("[SQL:")[0].split("(Background on")[0]
    return f"{type(error).__name__}: {text[:200]}"
