"""The signals of a job, and the processes that they are handed on to."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.launch.children import Children, Signals

OBEYS = "import signal, time; signal.signal(signal.SIGUSR2, lambda *_: exit(75))"
DEAF = "import signal; [signal.signal(s, signal.SIG_IGN) for s in (signal.SIGUSR2, signal.SIGTERM)]"
SLEEPS = "print('ready', flush=True)\nimport time\ntime.sleep(600)"

pytestmark = pytest.mark.slow


@pytest.fixture
def signals() -> Iterator[Signals]:
    kept = (signal.SIGUSR2, signal.SIGTERM, signal.SIGINT, signal.SIGCONT)
    before = {number: signal.getsignal(number) for number in kept}
    yield Signals()
    for number, handler in before.items():
        signal.signal(number, handler)


def process(code: str) -> subprocess.Popen[bytes]:
    started = subprocess.Popen([sys.executable, "-c", f"{code}\n{SLEEPS}"], stdout=subprocess.PIPE)
    assert started.stdout is not None
    assert started.stdout.readline() == b"ready\n"
    started.stdout.close()
    return started


def watched(
    signals: Signals, codes: dict[str, str], cancelled: str = "", send: int = 0
) -> tuple[Children, dict[str, int]]:
    """How the processes ended, by their names, when `send` came to this one."""
    children = Children()
    with ThreadPoolExecutor(len(codes)) as pool:
        threads = {}
        for name, code in codes.items():
            started = children.start(name, lambda code=code: [process(code)])  # type: ignore[misc]
            assert started is not None
            threads[name] = pool.submit(started[0].wait)
        if send:
            os.kill(os.getpid(), send)
        over = lambda: all(thread.done() for thread in threads.values())  # noqa: E731
        children.watch(signals, 0, lambda name: name == cancelled, over)
        return children, {name: thread.result() for name, thread in threads.items()}


def test_a_warning_is_handed_on_to_all_and_none_starts_after_it(signals: Signals) -> None:
    children, ended = watched(signals, {"a": OBEYS, "b": OBEYS}, send=signal.SIGUSR2)
    assert ended == {"a": 75, "b": 75}
    assert children.why_stopping == "preempted"
    assert children.start("c", lambda: [process(OBEYS)]) is None


def test_what_does_not_obey_is_killed_in_time(
    signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESOLUTE_JOB_ENDS", str(time.time() + 16))  # less what is to spare: 5 s
    children, ended = watched(signals, {"a": OBEYS, "deaf": DEAF}, send=signal.SIGUSR2)
    assert ended == {"a": 75, "deaf": -signal.SIGKILL}
    assert children.why_stopping == "time limit"


def test_a_cancelled_run_alone_is_stopped(signals: Signals) -> None:
    def also_ends(code: str) -> str:
        return code + "\nimport threading, os; threading.Timer(5, os._exit, (0,)).start()"

    children, ended = watched(signals, {"a": also_ends(OBEYS), "b": OBEYS}, cancelled="b")
    assert ended == {"a": 0, "b": -signal.SIGTERM}
    assert children.why_stopping == ""


def test_the_first_signal_says_what_is_handed_on(signals: Signals) -> None:
    assert (signals.first, signals.warned, signals.cause()) == (0, False, "stopped")
    os.kill(os.getpid(), signal.SIGTERM)
    assert (signals.first, signals.warned) == (signal.SIGTERM, False)
    os.kill(os.getpid(), signal.SIGUSR2)
    assert (signals.first, signals.warned, signals.cause()) == (signal.SIGTERM, True, "preempted")
    assert signals.patience(500) == 500
    assert signals.patience(0) == 30
