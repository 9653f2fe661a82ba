"""The replicas of a ``tf.distribute`` strategy, and what they tell each other.

One primitive carries everything: a sum over all replicas. What only one of them knows
is sent by adding zeros everywhere else.

Source: https://www.tensorflow.org/guide/distributed_training
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fedtrain.core.errors import ConfigError, WorkerLostError
from fedtrain.core.nests import Nest
from fedtrain.runtimes.flat import flattened, unflattened

_compiled = partial(tf.function, autograph=False, reduce_retracing=True)
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


class Replicas:
    """One replica for each device of each worker (process) of a strategy.

    Args:
      strategy: ``MirroredStrategy`` (the devices of one process),
        ``MultiWorkerMirroredStrategy`` (those of several) or ``TPUStrategy``.

    Attributes:
      devices: Of this worker's own replicas.
      first: The number of this worker's first replica.
      num_replicas: Of all workers together.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._strategy = strategy
        self.devices: tuple[str, ...] = tuple(strategy.extended.worker_devices)
        self.num_replicas: int = strategy.num_replicas_in_sync
        self.first: int = min(self._own_numbers())
        self._reduced = _compiled(self._all_reduce)
        self._flattened = _compiled(flattened)
        self._unflattened = _compiled(unflattened)

    @property
    def num_workers(self) -> int:
        """How many processes there are."""
        return self.num_replicas // len(self.devices)

    @property
    def worker(self) -> int:
        """The number of this process, from 0."""
        return self.first // len(self.devices)

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes files and charges ledgers."""
        return self.worker == 0

    def sum(self, nests: Sequence[Nest]) -> Nest:
        """The leaf-wise sum over all replicas; the same to the bit for each of them.

        Every worker has to call it, with nests of the same structure and shapes.

        Args:
          nests: One for each device of this worker.

        Raises:
          WorkerLostError: If a worker has ended or does not answer.
        """
        vectors = []
        for device, nest in zip(self.devices, nests, strict=True):
            with tf.device(device):
                vectors.append(self._flattened(nest))
        return self._unflattened(self._sum_of_vectors(vectors), nests[0])

    def broadcast(self, content: bytes) -> bytes:
        """The chief's ``content``, at every worker; nobody looks at that of others."""
        own = content if self.is_chief else b""
        length = _bytes(self._sum_of_own(_words(len(own).to_bytes(8, "little"))))
        size = int.from_bytes(length, "little")
        words = _words(own.ljust(size + size % 2, b"\0"))
        return _bytes(self._sum_of_own(words))[:size]

    def require_same(self, facts: Mapping[str, str]) -> None:
        """Checks that every worker has the same facts; the same names are given.

        Raises:
          ConfigError: Naming the worker and the fact that differs from the chief's.
        """
        own = [_words(hashlib.sha256(x.encode()).digest()) for x in facts.values()]
        table = np.zeros([self.num_workers, len(facts), 16], np.float32)
        table[self.worker] = own
        known = self._sum_of_own(table)
        for worker, name in np.argwhere((known != known[0]).any(axis=2)):
            raise ConfigError(
                f"Worker {worker} has other {list(facts)[name]} than the chief (worker "
                "0). All of them need the same project file, model, data and versions."
            )

    def _sum_of_own(self, array: npt.NDArray[np.float32]) -> Any:
        """The sum over workers of one array each."""
        zeros = [np.zeros_like(array)] * (len(self.devices) - 1)
        vectors = [(tf.constant(each.ravel()),) for each in (array, *zeros)]
        (total,) = self._sum_of_vectors(vectors)
        return np.asarray(total).reshape(array.shape)

    def _sum_of_vectors(
        self, vectors: list[tuple[tf.Tensor, ...]]
    ) -> tuple[tf.Tensor, ...]:
        with _losses_explained():
            summed = self._reduced(self._one_each(vectors))
        return tuple(self._strategy.experimental_local_results(v)[0] for v in summed)

    def _own_numbers(self) -> list[int]:
        numbers: list[int] = []

        def note(context: Any) -> tf.Tensor:
            numbers.append(int(context.replica_id_in_sync_group))
            return tf.constant(0)

        self._strategy.experimental_distribute_values_from_function(note)
        return numbers

    def _one_each(self, vectors: list[tuple[tf.Tensor, ...]]) -> Any:
        """The values of several devices as tf.distribute holds them."""

        def value(index: int, context: Any) -> tf.Tensor:
            return vectors[int(context.replica_id_in_sync_group) - self.first][index]

        spread = self._strategy.experimental_distribute_values_from_function
        return tuple(spread(partial(value, index)) for index in range(len(vectors[0])))

    def _all_reduce(self, vectors: Any) -> Any:
        def on_replica(*own: tf.Tensor) -> list[tf.Tensor]:
            context = tf.distribute.get_replica_context()
            sum_ = tf.distribute.ReduceOp.SUM
            # A function's argument is on no device yet; the reduction asks which.
            return [context.all_reduce(sum_, tf.identity(vector)) for vector in own]

        return self._strategy.run(on_replica, args=vectors)


def _words(content: bytes) -> npt.NDArray[np.float32]:
    """16 bits a number: exact in float32, the type that every device adds up."""
    return np.frombuffer(content, "<u2").astype(np.float32)


def _bytes(words: npt.NDArray[np.float32]) -> bytes:
    return words.astype("<u2").tobytes()


@contextmanager
def _losses_explained() -> Iterator[None]:
    try:
        yield
    except _LOST as error:
        raise WorkerLostError(
            "Another worker of this run has ended or does not answer, so the run ends "
            f"too ({_first_line(error)}). The rounds up to the newest checkpoint are "
            "kept: go on with fedtrain simulate --resume RUN, with any number of "
            "workers."
        ) from None


def _first_line(error: tf.errors.OpError) -> str:
    lines = [line for line in str(error.message).splitlines() if "aborted" in line]
    return (lines or str(error.message).splitlines() or ["no reason given"])[0][:200]
