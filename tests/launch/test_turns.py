"""What tasks of a job over several nodes tell each other by files."""

from pathlib import Path

from harness.launch.turns import Turn, Turns, port_of
from tests.tiny import wait_for


def test_what_the_leader_says_reaches_the_others(tmp_path: Path) -> None:
    leader, other = Turns(tmp_path / "t"), Turns(tmp_path / "t")
    assert other.now() is None
    first, end = Turn(1, 0, "node1", 20000), Turn(2, None, "", 0)
    leader.begin(first)
    wait_for(lambda: other.now() == first)
    leader.begin(end)
    wait_for(lambda: other.now() == end)


def test_reports_are_of_their_turn(tmp_path: Path) -> None:
    leader, other = Turns(tmp_path), Turns(tmp_path)
    assert leader.reports(1) == []
    other.report(1, 3, 75)
    wait_for(lambda: leader.reports(1) == [75])
    assert leader.reports(2) == []
    other.report(11, 1, 0)
    assert leader.reports(2) == []


def test_ports_differ_by_run_and_attempt() -> None:
    ports = [port_of(run, attempt) for run in "abcd" for attempt in (1, 2, 3, 4)]
    assert len(set(ports)) == len(ports)
    assert all(20000 <= port < 32000 for port in ports)
    assert port_of("a", 1) == port_of("a", 1)
