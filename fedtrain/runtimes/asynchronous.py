"""Who computes contributions for ``train_async``: threads, or other processes.

``thread_executor`` is one process; ``fedtrain.runtimes.cluster`` hands clients to other
processes. Both run the same compiled program, one client at a time in each worker.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, NamedTuple, Self

from fedtrain.client_work.client_work import Broadcast, ClientWork
from fedtrain.core import seeds, validate
from fedtrain.rounds.executor import ClientResult
from fedtrain.rounds.runtime import CohortClient
from fedtrain.runtimes.client_program import ClientPrograms

Call = Callable[[Any, tuple[Any, ...]], Any]


class QueueExecutor:
    """A queue of clients, and workers that take the next one when they are free.

    Its threads do not keep the process alive, as those of a standard pool would: a
    client may never come back (a machine hangs), and the run must end all the same.

    Args:
      call: ``call(function, arguments)`` -> what the ``tf.function`` returns, computed
        wherever the executor computes.
      num_workers: Clients at a time.
    """

    def __init__(self, call: Call, num_workers: int) -> None:
        validate.positive_integer(num_workers=num_workers)
        self.num_workers = num_workers
        self._call = call
        self._programs = ClientPrograms()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        for number in range(num_workers):
            name = f"fedtrain-client-{number}"
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(
        self,
        work: ClientWork,
        message: Broadcast,
        client: CohortClient,
        seed: seeds.HostSeed,
    ) -> Future[ClientResult]:
        """Puts one client's work in the queue."""
        program = self._programs.of(work)

        def run() -> ClientResult:
            arguments = (message, program.packed(client, seed))
            return program.result(self._call(program.function, arguments))

        future: Future[ClientResult] = Future()
        self._jobs.put(_Job(future, run))
        return future

    def close(self) -> None:
        """Ends each thread when it is done with what it is doing."""
        for _ in range(self.num_workers):
            self._jobs.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            try:
                result = job.run()
            except BaseException as error:  # noqa: BLE001 - handed to who waits
                job.future.set_exception(error)
            else:
                job.future.set_result(result)


class _Job(NamedTuple):
    future: Future[ClientResult]
    run: Callable[[], ClientResult]


def thread_executor(num_workers: int = 1) -> QueueExecutor:
    """Computes ``num_workers`` clients at a time in threads of this process."""
    return QueueExecutor(lambda function, given: function(*given), num_workers)
