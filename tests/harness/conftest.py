from collections.abc import Iterator

import pytest

from tests.harness.mirrored_outputs import Server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    with made.process:
        yield made
        assert made.process.stdin is not None
        made.process.stdin.close()
