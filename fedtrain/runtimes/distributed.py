"""The same round over ``tf.distribute``: several devices, several machines.

Each replica trains its share of the cohort with the compiled programs; then one
all-reduce adds up what the shares came to, and every worker makes the same server step
from the same sum, with the same seed and so the same noise. In the same sum travel

- new client states, each in a place of its own where all others add zero, and
- a fingerprint of what each worker started the round from. If it differs, the round
  ends before its sum is used.

Every worker runs the same program over the same rounds; see ``shared`` for what only
the first one does.
"""

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from fedtrain.client_work.client_work import Broadcast, Contribution
from fedtrain.core import seeds
from fedtrain.core.errors import FedtrainError
from fedtrain.rounds.round import Round, ServerState
from fedtrain.rounds.runtime import (
    Cohort,
    RoundResult,
    mean_metrics,
    refuse_order_statistics,
)
from fedtrain.runtimes.compiled import CohortSum, CompiledRuntime, round_key
from fedtrain.runtimes.replicas import Replicas


class DistributedRuntime:
    """Runs each round on all replicas; every worker has to run the same rounds.

    Args:
      replicas: Of a ``tf.distribute`` strategy.
      local: Makes the runtime of one device, given ``num_workers``.
      num_workers: Python threads of this process, by default one for each core; with
        several devices, each has one.

    Attributes:
      replicas: As given.
      local: The runtime of this worker's first device; also runs rounds by itself.
    """

    def __init__(
        self,
        replicas: Replicas,
        *,
        local: Callable[..., CompiledRuntime] = CompiledRuntime,
        num_workers: int | None = None,
    ) -> None:
        self.replicas = replicas
        several = len(replicas.devices) > 1
        threads = 1 if several else num_workers
        self._locals = [local(num_workers=threads) for _ in replicas.devices]
        self.local = self._locals[0]
        self._pool = ThreadPoolExecutor(len(replicas.devices)) if several else None
        self._untold: set[Any] = set()

    def begin(
        self,
        round_: Round,
        *,
        num_rounds: int,
        recorded: Mapping[str, Any] | None = None,
    ) -> None:
        """As ``CompiledRuntime.begin``; trials are each worker's, the choice one."""
        self.local.begin(round_, num_rounds=num_rounds, recorded=recorded)
        if recorded:
            for local in self._locals[1:]:
                local.begin(round_, num_rounds=num_rounds, recorded=recorded)
        else:
            self._untold.add(round_key(round_))

    def execution(self, round_: Round) -> Mapping[str, Any]:
        """How rounds like ``round_`` are run, for the run's records."""
        return self.local.execution(round_)

    def prepare(self, round_: Round, cohort: Cohort, seed: seeds.Seed) -> None:
        """Packs this worker's share of a coming round's cohort ahead of time."""
        for local, share in zip(self._locals, self._own_shares(cohort), strict=True):
            local.prepare(round_, share, seed)

    def run_round(
        self, round_: Round, state: ServerState, cohort: Cohort, seed: seeds.Seed
    ) -> RoundResult:
        """Runs one round over ``cohort``, of which each replica trains its share."""
        refuse_order_statistics(round_)
        message = self.local.broadcast(round_, state)
        shares = self._own_shares(cohort)
        sums = self._sums(round_, message, shares, seed)
        places = _Places(cohort)
        fingerprint = _fingerprint(state, cohort, seed)
        zeros = np.zeros_like(fingerprint)
        marks = [fingerprint, *[zeros] * (len(sums) - 1)]
        terms = [
            _Term(own.total, places.stacked(own.client_states), mark)
            for own, mark in zip(sums, marks, strict=True)
        ]
        everything: _Term = self.replicas.sum(terms)
        self._refuse_difference(fingerprint, everything.fingerprint)
        self._tell_choice(round_)
        total = everything.total
        return RoundResult(
            self.local.server_update(round_, state, total, seed),
            mean_metrics(total.metrics),
            places.by_client(everything.client_states),
        )

    def _own_shares(self, cohort: Cohort) -> list[Cohort]:
        everyones = shares(cohort, self.replicas.num_replicas)
        first = self.replicas.first
        return everyones[first : first + len(self.replicas.devices)]

    def _sums(
        self,
        round_: Round,
        message: Broadcast,
        own_shares: Sequence[Cohort],
        seed: seeds.Seed,
    ) -> list[CohortSum]:
        if self._pool is None:
            return [self.local.cohort_sum(round_, message, own_shares[0], seed)]

        def on_device(device: str, local: CompiledRuntime, share: Cohort) -> CohortSum:
            with tf.device(device):
                here = tf.nest.map_structure(tf.identity, message)
                return local.cohort_sum(round_, here, share, seed)

        each = (self.replicas.devices, self._locals, own_shares)
        return list(self._pool.map(on_device, *each))

    def _tell_choice(self, round_: Round) -> None:
        """After the first clients everyone goes on as the chief found to be fastest."""
        if round_key(round_) not in self._untold:
            return
        own = json.dumps(dict(self.local.execution(round_)))
        chosen = json.loads(self.replicas.broadcast(own.encode()))
        if not chosen:
            return  # the cohort was empty: trials are still due, everywhere
        self._untold.discard(round_key(round_))
        for local in self._locals:
            local.begin(round_, num_rounds=0, recorded=chosen)

    def _refuse_difference(self, own: Any, total: Any) -> None:
        if not np.array_equal(total, own * self.replicas.num_workers):
            raise FedtrainError(
                "The workers of this run do not hold the same weights, cohort and "
                "seed, so what they added up is not used. The rounds of the newest "
                "checkpoint are kept. Start all of them from the same state, with the "
                "same version of fedtrain and TensorFlow on the same kind of processor."
            )


class _Term(NamedTuple):
    """What one replica adds to the sum of all."""

    total: Contribution
    client_states: Any
    fingerprint: Any


def shares(cohort: Cohort, num_shares: int) -> list[Cohort]:
    """The cohort dealt out: about as many clients, and rows, for each.

    From the client with the most rows to the one with the fewest, back and forth, so
    each share has as many clients as the others or one more. Within a share the
    cohort's order stays.
    """
    sizes = [client.examples.num_examples for client in cohort]
    dealt: list[list[int]] = [[] for _ in range(num_shares)]
    for turn, position in enumerate(
        sorted(range(len(cohort)), key=lambda i: -sizes[i])
    ):
        lap, place = divmod(turn, num_shares)
        dealt[place if lap % 2 == 0 else -1 - place].append(position)
    return [[cohort[i] for i in sorted(share)] for share in dealt]


class _Places:
    """A place for the new state of each client of a cohort."""

    def __init__(self, cohort: Cohort) -> None:
        self._place = {c.client_id: i for i, c in enumerate(cohort)}
        self._like = cohort[0].state if cohort else ()

    def stacked(self, states: Mapping[str, Any]) -> Any:
        """Leaves [cohort, ...]: the given states in their places, zero elsewhere."""
        own = [(self._place[key], state) for key, state in states.items()]
        columns = zip(*(tf.nest.flatten(state) for _, state in own), strict=True)
        leaves = [np.asarray(leaf) for leaf in tf.nest.flatten(self._like)]
        stacked = [np.zeros([len(self._place), *x.shape], x.dtype) for x in leaves]
        for everyone, column in zip(stacked, columns, strict=False):
            for (place, _), leaf in zip(own, column, strict=True):
                everyone[place] = leaf
        return tf.nest.pack_sequence_as(self._like, stacked)

    def by_client(self, stacked: Any) -> dict[str, Any]:
        """Stacked states by client id."""
        return {
            client_id: tf.nest.map_structure(lambda leaf, i=i: leaf[i], stacked)
            for client_id, i in self._place.items()
        }


def _fingerprint(state: ServerState, cohort: Cohort, seed: seeds.Seed) -> Any:
    """Four bytes of a checksum, as numbers that stay exact when they are added.

    Against accidents, not against an adversary; Adler's is the quickest there is.
    """
    checksum = zlib.adler32(np.asarray(seed, np.int32).tobytes())
    for client in cohort:
        checksum = zlib.adler32(client.client_id.encode() + b"\0", checksum)
    for leaf in tf.nest.flatten(state):
        checksum = zlib.adler32(np.ascontiguousarray(leaf).data, checksum)
    return np.frombuffer(checksum.to_bytes(4, "little"), np.uint8).astype(np.float32)
