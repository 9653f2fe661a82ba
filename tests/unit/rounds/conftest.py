import functools
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from fedtrain.core import seeds
from fedtrain.rounds import train_async
from fedtrain.rounds.executor import ClientResult
from fedtrain.rounds.runtime import client_seed
from fedtrain.runtimes.eager import contribute


class Disordered:
    """Computes in plain Python; of those at work, a seeded random one arrives first."""

    def __init__(self, seed=0, compute=contribute):
        self.random = seeds.generator(seeds.root(seed))
        self.compute = compute
        self.asked = []
        self.waiting = []

    def submit(self, work, message, client, seed):
        self.asked.append(client.client_id)
        own = client_seed(seed, client.client_id)
        future = Future()
        future.executor = self
        self.waiting.append((future, (work, message, client, own)))
        return future

    def arrive(self):
        index = int(self.random.integers(len(self.waiting)))
        future, given = self.waiting.pop(index)
        if future.set_running_or_notify_cancel():
            future.set_result(ClientResult(*self.compute(*given)))


@pytest.fixture(scope="module")
def disordered() -> Iterator[type[Disordered]]:
    """An executor in which arrivals are out of order, and the same in every run."""
    really_wait = train_async.wait

    def wait(futures, return_when):
        if not hasattr(futures[0], "executor"):
            really_wait(futures, return_when=return_when)
        while not any(future.done() for future in futures):
            futures[0].executor.arrive()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_async, "wait", wait)
        # The same round is traced once for all tests.
        patch.setattr(train_async, "_programs", functools.cache(train_async._programs))
        yield Disordered
