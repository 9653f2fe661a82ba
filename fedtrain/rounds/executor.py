"""Who computes one client's contribution while the loop goes on."""

from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

from fedtrain.client_work.client_work import Broadcast, ClientWork, Contribution
from fedtrain.core import seeds
from fedtrain.rounds.runtime import CohortClient


class ClientResult(NamedTuple):
    """What one client gives back.

    Attributes:
      contribution: What it adds to a sum.
      state: What it keeps.
    """

    contribution: Contribution
    state: Any


class Executor(Protocol):
    """Computes clients' contributions, several at a time, in any order."""

    def submit(
        self,
        work: ClientWork,
        message: Broadcast,
        client: CohortClient,
        seed: seeds.HostSeed,
    ) -> Future[ClientResult]:
        """Starts one client's work, or puts it in a queue.

        Args:
          work: What the client computes.
          message: What it received; later updates do not change it.
          client: Its id, rows and state.
          seed: Of this participation; the client's own is ``client_seed(seed, id)``.

        Returns:
          A future. One that is cancelled before it runs is never computed. A worker
          that vanishes is no error: its client is computed elsewhere, or waits.
        """
        ...
