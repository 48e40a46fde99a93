"""Ids: what they tell apart, and what they do not depend on."""

from harness.canonical import canonical_training
from harness.config import Data, Evaluate, Evaluation, Positions, Train, Training
from harness.identity import digest, eval_id_of, group_id_of, run_id_of


def training(**parts: object) -> Training:
    given = {"data": Data(resolution=(12, 12)), "train": Train(images=640)} | parts
    return Training(**given)  # type: ignore[arg-type]


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": 2.5}) == digest({"b": 2.5, "a": 1})
    assert len(digest(3)) == 16


def test_ids_of_plain_multipliers_stay() -> None:
    known = {
        1: "d83443b42923e000",
        1.5: "4436f96bb3bb5793",
        2: "25d10da7c13c1c34",
        4: "d8a2be6140b104c3",
    }
    for multiplier, group_id in known.items():
        positions = Positions(sampler="randomized", range_multiplier=multiplier)
        assert group_id_of(canonical_training(training(positions=positions))) == group_id


def test_ids_tell_seeds_and_protocols_apart() -> None:
    group = group_id_of(canonical_training(training()))
    assert len({run_id_of(group, seed) for seed in range(1000)}) == 1000
    data = Data(resolution=(12, 12))
    one = Evaluation(evaluate=Evaluate(resolution=(24, 24)))
    more = Evaluation(evaluate=Evaluate(resolution=(24, 24), samples=600))
    assert eval_id_of(data, one) != eval_id_of(data, more)
