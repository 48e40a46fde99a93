"""When a run that ended before its time is started again, and when it is given up."""

import pytest

from harness.files import Json
from harness.retries import bad_nodes, cause, give_up


def ended(why: str, reached: tuple[int, int, int] = (0, 0, 0), **more: object) -> Json:
    outcome = "failed" if why in ("error", "non-finite loss", "out of memory") else "interrupted"
    return {"outcome": outcome, "cause": why, "reached": list(reached), **more}


NEVER_ENDED: Json = {"reached": [0, 0, 0]}
OUTSIDE = ["preempted", "time limit", "lost", "node failure", "stopped"]


@pytest.mark.parametrize("why", OUTSIDE)
def test_what_is_done_from_outside_is_tried_again_so_many_times_in_a_row(why: str) -> None:
    assert give_up([ended(why)] * 2, [0, 0, 0], retries=2) == ""
    reason = give_up([ended(why)] * 3, [0, 0, 0], retries=2)
    assert reason == f"gave up after 3 attempts in a row without progress at step 0 ({why} 3 times)"


def test_different_reasons_count_together_and_never_ended_is_lost() -> None:
    attempts = [ended("preempted"), NEVER_ENDED, ended("time limit")]
    assert "(preempted, lost, time limit)" in give_up(attempts, [0, 0, 0], retries=2)


@pytest.mark.parametrize("further", [(10, 0, 0), (0, 1, 0), (0, 0, 3)])
def test_progress_of_any_kind_begins_the_count_anew(further: tuple[int, int, int]) -> None:
    attempts = [ended("preempted"), ended("preempted"), ended("preempted", further)]
    assert give_up(attempts, further, retries=1) == ""
    assert give_up([*attempts, ended("lost", further)], further, retries=1) != ""
    assert give_up([*attempts, ended("lost", further)], [99, 0, 0], retries=0) == ""


def test_finished_evaluations_weigh_more_than_the_shards_they_remove() -> None:
    assert give_up([ended("preempted", (20, 1, 7))], [20, 2, 0], retries=0) == ""
    assert give_up([ended("preempted", (20, 1, 7))], [20, 1, 7], retries=0) != ""


@pytest.mark.parametrize("why", ["error", "non-finite loss"])
def test_what_would_come_again_is_not_tried_again(why: str) -> None:
    assert give_up([ended(why, error="it broke")], [50, 0, 0], retries=9) == "it broke"


def test_memory_that_ran_out_gets_one_more_try() -> None:
    assert give_up([ended("out of memory")], [0, 0, 0], retries=0) == ""
    reason = give_up([ended("out of memory")] * 2, [0, 0, 0], retries=9)
    assert reason.startswith("out of memory 2 times in a row without progress; ask for more memory")
    assert give_up([ended("out of memory")] * 2, [50, 0, 0], retries=0) == ""


def test_a_full_disk_is_nobodys_failure() -> None:
    assert give_up([ended("full disk")] * 9, [0, 0, 0], retries=0) == ""


def test_nothing_tried_or_all_done_is_nothing_to_give_up() -> None:
    assert give_up([], [0, 0, 0], retries=0) == ""
    assert give_up([{"outcome": "done"}], [0, 0, 0], retries=0) == ""


def test_an_attempt_of_an_older_version_has_a_cause_too() -> None:
    found = [cause({}), cause({"outcome": "failed"}), cause({"outcome": "interrupted"})]
    assert found == ["lost", "error", "stopped"]
    assert cause({"outcome": "done", "cause": "error"}) == ""  # an evaluation failed


def test_one_without_an_end_was_stopped_lost_or_taken_along_with_its_job() -> None:
    assert cause(NEVER_ENDED) == "lost"
    assert cause(NEVER_ENDED | {"job": "7", "launcher": "host:1"}) == "lost"  # nobody watches it
    assert cause(NEVER_ENDED | {"launcher": "slurm job 7"}) == "node failure"
    stopped = {"launcher": "slurm job 7", "stopping": "preempted"}
    assert cause(NEVER_ENDED | stopped) == "preempted"


def lost_on(node: str, restart: int, **more: object) -> Json:
    return {"nodes": [node], "job": "7", "restart": restart, **more}


def test_a_node_is_bad_when_two_starts_were_lost_with_it() -> None:
    assert bad_nodes([[lost_on("a", 0)], [lost_on("a", 0)]]) == []  # packed: one loss
    assert bad_nodes([[lost_on("a", 0), lost_on("b", 1)], [lost_on("a", 2)]]) == ["a"]


def test_a_node_is_avoided_for_a_time() -> None:
    lost = [[lost_on("a", restart, started=when) for restart, when in ((0, 100.0), (1, 200.0))]]
    assert bad_nodes(lost, since=100.0) == ["a"]
    assert bad_nodes(lost, since=150.0) == []


def test_of_several_nodes_only_one_that_was_always_there_is_to_blame() -> None:
    def spread(nodes: str, restart: int) -> Json:
        return {"nodes": [*nodes], "job": "7", "restart": restart}

    assert bad_nodes([[spread("abcd", 0), spread("abcd", 1)]]) == []
    assert bad_nodes([[spread("abcd", 0), spread("aefg", 1)]]) == ["a"]
    assert bad_nodes([[spread("abc", 0), spread("abd", 1), lost_on("a", 2)]]) == ["a"]


def test_a_node_is_not_to_blame_for_what_slurm_stopped() -> None:
    assert bad_nodes([[lost_on("a", n, stopping="preempted") for n in range(3)]]) == []


def test_a_process_killed_alone_is_not_its_nodes_fault() -> None:
    killed = [ended("lost", nodes=["a"], job="7", restart=n) for n in range(3)]
    assert bad_nodes([killed]) == []
