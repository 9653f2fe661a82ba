"""The second loop: no cohort waits for its slowest client.

A number of clients are always at work. Each was given the weights of the moment in
which it was asked. Contributions enter a buffer as they come, discounted by how many
updates they are late; a full buffer is one update of the server. The same client work
and aggregator as in ``train``; the same seed does not give the same bits, because who
is fast decides.

Source: Nguyen et al. (2022), Federated learning with buffered asynchronous aggregation
(FedBuff), https://arxiv.org/abs/2106.06639, Algorithm 1.
"""

import hashlib
import secrets
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import tensorflow as tf

from fedtrain.client_work.client_work import Broadcast, Contribution
from fedtrain.core import nests, seeds
from fedtrain.core.errors import BudgetExhaustedError, DivergedError
from fedtrain.rounds.async_run import AsyncRun
from fedtrain.rounds.checkpoint import Checkpoint, packed_like
from fedtrain.rounds.checks import evaluation, refuse_divergence
from fedtrain.rounds.executor import ClientResult
from fedtrain.rounds.invitations import Invitations, Invited
from fedtrain.rounds.report import RoundReport
from fedtrain.rounds.round import Round, ServerState
from fedtrain.rounds.runtime import (
    CohortClient,
    empty_total,
    mean_metrics,
    server_seed,
)
from fedtrain.rounds.staleness import checked_discount, discounted, refuse_integers
from fedtrain.rounds.train import TrainResult


class SavedAsyncState(NamedTuple):
    """What a checkpoint of ``train_async`` holds.

    Attributes:
      server: The server's state.
      participations: int32 [clients]: how often each client was asked.
      num_asked: int64 scalar: how many participations were numbered.
      wave: int64 scalar: how many waves the sampler has drawn.
    """

    server: ServerState
    participations: Any
    num_asked: Any
    wave: Any


class _Programs(NamedTuple):
    broadcast: Any
    zero: Any
    add: Any
    server_update: Any


class _AtWork(NamedTuple):
    invited: Invited
    client_id: str
    round_number: int
    future: Future[ClientResult]


class _Buffer(NamedTuple):
    """The contributions of the next update so far."""

    total: Contribution
    staleness: tuple[int, ...] = ()
    positions: tuple[int, ...] = ()
    lost: tuple[str, ...] = ()
    num_not_finite: int = 0
    client_states: Mapping[str, Any] = {}


def train_async(run: AsyncRun, state: ServerState) -> TrainResult:
    """Runs all updates that are still to do, from ``state`` or the newest checkpoint.

    Work that was in flight when a run stopped is lost and stays charged.

    Args:
      run: What to run.
      state: ``round_.init(weights)``; the newest checkpoint, if any, replaces it.

    Guarantees:
      A client is in a sum at most once, and is asked at most ``max_participations``
      times in the run, restarts included. Under DP each asking is charged before the
      client's rows are read. A contribution is only ever scaled down.

    Raises:
      BudgetExhaustedError: Before the data is read that would pass the budget, or when
        every client has been asked as often as it may be. Earlier updates are saved.
      DivergedError: When the weights, or all of a sum's contributions, are not finite.
      CheckpointError, LedgerError: When what was saved cannot be trusted.
    """
    loop = _Loop(run, state)
    reports = []
    try:
        while loop.round_number < run.num_rounds:
            report = loop.next_update()
            reports.append(report)
            for callback in run.on_round:
                callback(report, loop.state)
            loop.save()
    finally:
        loop.give_up_all()
    return TrainResult(loop.state, tuple(reports))


class _Loop:
    """What changes while ``train_async`` runs."""

    def __init__(self, run: AsyncRun, state: ServerState) -> None:
        self._run = run
        self._programs = _programs(run.round_)
        self._at_work: list[_AtWork] = []
        self._spent: float | None = None
        self._seed = _noise_seed(run)
        self._restore(state)
        refuse_integers(self._empty().total)

    def next_update(self) -> RoundReport:
        """Fills the buffer, lets the server take it in, and says how it went."""
        started = time.perf_counter()
        number = self.round_number
        lost = self._give_up_stale()
        message = self._programs.broadcast(self.state)
        buffer = self._empty()._replace(lost=lost)
        while len(buffer.staleness) < self._run.buffer_goal:
            self._ask(message, len(buffer.staleness))
            buffer = self._added(buffer, self._next_arrival())
        self._take_in(buffer)
        scores = evaluation(self._run, self.round_number, self.state)
        return RoundReport(
            round_number=number,
            metrics={
                **mean_metrics(buffer.total.metrics),
                **_lateness(buffer),
                **scores,
            },
            cohort_size=len(buffer.staleness),
            lost_clients=buffer.lost,
            seconds=time.perf_counter() - started,
            spent_epsilon=self._spent,
        )

    def save(self) -> None:
        """Saves the newest state if a checkpoint is due."""
        store = self._run.checkpoints
        if store is None or not store.is_due(self.round_number, self._run.num_rounds):
            return
        privacy = self._run.privacy
        head = None if privacy is None else privacy.head()
        saved = cast(Any, self._to_save())
        store.save(Checkpoint(self.round_number, saved, self._client_states, head))

    def give_up_all(self) -> None:
        """Cancels what has not begun; whatever still runs is not waited for."""
        for asked in self._at_work:
            asked.future.cancel()
        self._at_work.clear()

    def _restore(self, state: ServerState) -> None:
        run, store = self._run, self._run.checkpoints
        zeros = np.zeros(run.dataset.num_clients, np.int32)
        saved = SavedAsyncState(state, zeros, np.int64(0), np.int64(0))
        checkpoint = None if store is None else store.latest(cast(Any, saved))
        self.round_number, self._client_states = 0, dict[str, Any]()
        if checkpoint is not None:
            saved = cast(SavedAsyncState, checkpoint.state)
            self.round_number = checkpoint.round_number
            self._client_states = _restored_clients(run.round_, checkpoint, saved)
            if run.privacy is not None and checkpoint.ledger_head is not None:
                run.privacy.expect(checkpoint.ledger_head)
        self.state = saved.server
        self._invitations = _invitations(run, np.asarray(saved.participations))
        self._invitations.go_on_from(
            num_asked=int(saved.num_asked), wave=int(saved.wave)
        )

    def _to_save(self) -> SavedAsyncState:
        invitations = self._invitations
        return SavedAsyncState(
            self.state,
            invitations.participations,
            np.int64(invitations.num_asked),
            np.int64(invitations.wave),
        )

    def _empty(self) -> _Buffer:
        return _Buffer(self._programs.zero(self._programs.broadcast(self.state)))

    def _ask(self, message: Broadcast, num_buffered: int) -> None:
        """Puts clients to work, but no more than there is still a use for."""
        run = self._run
        still = (run.num_rounds - self.round_number) * run.buffer_goal - num_buffered
        while len(self._at_work) < min(run.concurrency, still):
            invited = self._invitations.next()
            if invited is None:
                break
            self._at_work.append(self._asked(message, invited))
        if not self._at_work:
            _refuse_used_up(run, self.round_number)

    def _asked(self, message: Broadcast, invited: Invited) -> _AtWork:
        run, number = self._run, invited.number
        client_id = run.dataset.client_id(invited.position)
        seed = seeds.derive(self._seed, "round", number)
        if run.privacy is not None:
            digest = hashlib.sha256(seed.tobytes() + client_id.encode()).hexdigest()
            self._spent = run.privacy.before_participation(client_id, digest)
        work = run.round_.client_work
        kept = self._client_states.get(client_id)
        client = CohortClient(
            client_id,
            run.dataset.client(invited.position),
            work.init_state(self.state.weights) if kept is None else kept,
        )
        future = run.executor.submit(work, message, client, seed)
        return _AtWork(invited, client_id, self.round_number, future)

    def _next_arrival(self) -> _AtWork:
        """The first of those that are done, in the order of asking."""
        wait([asked.future for asked in self._at_work], return_when=FIRST_COMPLETED)
        asked = next(asked for asked in self._at_work if asked.future.done())
        self._at_work.remove(asked)
        return asked

    def _added(self, buffer: _Buffer, asked: _AtWork) -> _Buffer:
        result = asked.future.result()
        staleness = self.round_number - asked.round_number
        factor = checked_discount(self._run.staleness_discount, staleness)
        given = tf.constant(factor, tf.float64)
        total, is_finite = self._programs.add(buffer.total, result.contribution, given)
        buffer = buffer._replace(
            total=total,
            staleness=(*buffer.staleness, staleness),
            positions=(*buffer.positions, asked.invited.position),
        )
        if not bool(is_finite):
            return buffer._replace(
                lost=(*buffer.lost, asked.client_id),
                num_not_finite=buffer.num_not_finite + 1,
            )
        states = {**buffer.client_states, asked.client_id: result.state}
        return buffer._replace(client_states=states)

    def _take_in(self, buffer: _Buffer) -> None:
        number = self.round_number
        if not self._run.round_.mechanisms:
            _refuse_nothing_finite(number, buffer)
        seed = server_seed(seeds.derive(self._seed, "round", number))
        state = self._programs.server_update(
            self.state, buffer.total, tf.constant(seed)
        )
        refuse_divergence(number, state)
        self.state = state
        self.round_number = number + 1
        self._invitations.free(buffer.positions)
        for client_id, kept in buffer.client_states.items():
            if tf.nest.flatten(kept):
                self._client_states[client_id] = kept

    def _give_up_stale(self) -> tuple[str, ...]:
        bound = self._run.max_staleness
        if bound is None:
            return ()
        stale = [a for a in self._at_work if self.round_number - a.round_number > bound]
        for asked in stale:
            asked.future.cancel()
            self._at_work.remove(asked)
        self._invitations.free([asked.invited.position for asked in stale])
        return tuple(asked.client_id for asked in stale)


def _programs(round_: Round) -> _Programs:
    compiled = partial(tf.function, autograph=False)
    return _Programs(
        broadcast=compiled(round_.broadcast),
        zero=compiled(partial(empty_total, round_.client_work)),
        add=compiled(_sum_with),
        server_update=compiled(round_.server_update),
    )


def _sum_with(total: Contribution, contribution: Contribution, factor: Any) -> Any:
    """The sum, and whether the contribution was finite; one that is not adds zero."""
    is_finite = nests.all_finite(contribution._replace(metrics={}))
    scaled = discounted(contribution, factor)
    kept = nests.where(is_finite, scaled, nests.zeros_like(scaled))
    return nests.add(total, kept), is_finite


def _noise_seed(run: AsyncRun) -> seeds.HostSeed:
    """The run's seed; where noise protects somebody, another one at each start.

    After a resume other contributions meet in a sum, or other weights at a client. The
    same noise on both would cancel in their difference.
    """
    if not run.round_.mechanisms:
        return run.seed
    return seeds.derive(run.seed, "start", secrets.token_hex(16))


def _invitations(run: AsyncRun, saved: Any) -> Invitations:
    """What the ledger knows counts too: it survives a crash between checkpoints."""
    participations = saved
    if run.privacy is not None:
        ids = map(run.dataset.client_id, range(run.dataset.num_clients))
        charged = [run.privacy.num_participations(client_id) for client_id in ids]
        participations = np.maximum(saved, np.asarray(charged, np.int32))
    # To leave out a client that has no rows would tell of a private one that it has
    # none, and would change who is in which sum.
    keeps_empty = bool(run.round_.mechanisms)
    return Invitations(
        run.sampler,
        run.seed,
        may_be_asked=keeps_empty | (run.dataset.num_examples() > 0),
        max_participations=run.max_participations,
        participations=participations,
    )


def _restored_clients(
    round_: Round, checkpoint: Checkpoint, saved: SavedAsyncState
) -> dict[str, Any]:
    like = round_.client_work.init_state(saved.server.weights)
    return {
        client_id: packed_like(leaves, like)
        for client_id, leaves in checkpoint.client_states.items()
    }


def _lateness(buffer: _Buffer) -> dict[str, float]:
    return {
        "staleness_mean": float(np.mean(buffer.staleness)),
        "staleness_max": float(np.max(buffer.staleness)),
    }


def _refuse_used_up(run: AsyncRun, num_done: int) -> None:
    raise BudgetExhaustedError(
        f"Nobody is left to ask after {num_done} of {run.num_rounds} updates: every "
        "client with rows is in the sum already, or was asked max_participations = "
        f"{run.max_participations} times (contributions that were lost count). Raise "
        "max_participations, or lower num_rounds or buffer_goal."
    )


def _refuse_nothing_finite(round_number: int, buffer: _Buffer) -> None:
    if buffer.num_not_finite == len(buffer.staleness):
        raise DivergedError(
            f"None of the {buffer.num_not_finite} contributions of update "
            f"{round_number} is finite: the clients diverge. Lower the client's "
            "learning rate, or clip. The updates before it are saved."
        )
