from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def tff_runtime() -> Iterator[object]:
    """One TFF runtime, and so one worker process, for a whole test file."""
    pytest.importorskip("tensorflow_federated")
    from fedtrain.runtimes.tff import TffRuntime  # noqa: PLC0415 - Python 3.11 only

    with TffRuntime() as runtime:
        yield runtime
