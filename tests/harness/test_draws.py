import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.draws import generator, normal, permutation, uniform

PINNED = [3187957637, 3934235859, 2351705093]


@given(st.integers(0, 2**32), st.text(max_size=20), st.integers(0, 2**40))
def test_a_draw_is_a_function_of_seed_purpose_and_index(
    seed: int, purpose: str, index: int
) -> None:
    assert torch.equal(normal(seed, purpose, index, (3,)), normal(seed, purpose, index, (3,)))
    assert not torch.equal(
        normal(seed, purpose, index, (3,)), normal(seed, purpose, index + 1, (3,))
    )
    assert not torch.equal(
        normal(seed, purpose, index, (3,)), normal(seed + 1, purpose, index, (3,))
    )
    other = normal(seed, purpose + "'", index, (3,))
    assert not torch.equal(normal(seed, purpose, index, (3,)), other)


def test_streams_of_neighbouring_indices_do_not_overlap() -> None:
    first = generator(0, "sample", 0).integers(2**63, size=4096)
    second = generator(0, "sample", 1).integers(2**63, size=4096)
    assert not set(first) & set(second)


def test_the_stream_is_the_one_that_older_results_were_made_with() -> None:
    assert generator(0, "sample", 7).integers(2**32, size=3).tolist() == PINNED
    key = np.frombuffer(__import__("hashlib").blake2b(b"0/sample", digest_size=16).digest(), "<u8")
    again = np.random.Generator(np.random.Philox(key=key, counter=[0, 7, 0, 0]))
    assert again.integers(2**32, size=3).tolist() == PINNED


def test_distributions_over_indices() -> None:
    over = torch.cat([normal(3, "noise", index, (1,)) for index in range(4000)])
    assert stats.kstest(over.numpy(), "norm").pvalue > 1e-3
    flat = torch.cat([uniform(3, "rows", index, (1,)) for index in range(4000)])
    assert stats.kstest(flat.numpy(), "uniform").pvalue > 1e-3


def test_permutations() -> None:
    order = permutation(0, "order", 0, 500)
    assert sorted(order) == list(range(500))
    assert not np.array_equal(order, permutation(0, "order", 1, 500))
