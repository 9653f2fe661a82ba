"""A round whose clients are partners: the sum comes by wire, the rest is the same."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from aggregator.memory import ALIGNED_BYTES, trim
from aggregator.round_state import Kind
from aggregator.rounds import Collected, RoundCall, Rounds, RunStoppedError
from aggregator.secure_terms import SecureTerms
from fedtrain.client_work.client_work import Contribution
from fedtrain.core import nests, seeds
from fedtrain.core.errors import ConfigError, StoppedError, TooFewClientsError
from fedtrain.privacy.fixed_point_sum import from_ring_vector
from fedtrain.privacy.run_privacy import RunPrivacy
from fedtrain.project.config import ServiceSection
from fedtrain.project.crossing import (
    contribution_specs,
    empty_contribution,
    is_masked,
    leaves,
    nest_sha256,
    packed,
    specs,
)
from fedtrain.project.held_out import HeldOut
from fedtrain.rounds.client_evaluation import Scores
from fedtrain.rounds.round import Round, ServerState
from fedtrain.rounds.runtime import (
    Cohort,
    RoundResult,
    mean_metrics,
    refuse_order_statistics,
)
from fedtrain.runtimes.compiled import CompiledRuntime, round_key


class GrpcRuntime:
    """Runs the clients of a round at the partners, and waits for their contributions.

    The server's half is the compiled runtime's, and contributions are added one by one
    in the order of the cohort. A simulation with the same seeds has the same weights up
    to the last bits, which depend on the order in which clients are added up.

    Args:
      rounds: Where partners ask for tasks and leave their answers.
      run_id: The run's name.
      service: How many answers are waited for, and how long.
      ended: What the operator says who has ended the run for good; None until then.
      secure: The terms of secure aggregation, where contributions come masked.

    Attributes:
      charges: Who charges another attempt at a round: its noise is drawn anew, so it
        is another release. None without privacy.
    """

    def __init__(
        self,
        rounds: Rounds,
        *,
        run_id: str,
        service: ServiceSection,
        ended: Callable[[], str | None] = lambda: None,
        secure: SecureTerms | None = None,
    ) -> None:
        self._secure = secure
        self._rounds = rounds
        self._run_id = run_id
        self._service = service
        self._server = CompiledRuntime(strategy="graph")
        self._ended = ended
        self._empties: dict[Any, Contribution] = {}
        self.charges: RunPrivacy | None = None

    def run_round(
        self, round_: Round, state: ServerState, cohort: Cohort, seed: seeds.Seed
    ) -> RoundResult:
        """Waits until enough partners have answered, and takes the server's step.

        Raises:
          TooFewClientsError: If too few answered within all deadlines; resumable.
          StoppedError: If the operator has ended the run for good.
        """
        refuse_order_statistics(round_)
        number = int(state.round_number)
        if number:  # the loop has saved what the round before it led to
            self._rounds.committed(number - 1, nest_sha256(state))
        message = self._server.broadcast(round_, state)
        like = self._empty(round_, message)
        cohort_ids = tuple(client.client_id for client in cohort)
        again = partial(self._charge_again, number, cohort_ids, message)
        call = self._call("train", number, cohort_ids, (message, like), seed, again)
        call = call._replace(contribution=contribution_specs(round_, like))
        if is_masked(round_):
            call = self._masked(call)
        collected = self._collected(call)
        trim()
        total = _sum_of(collected, round_, like)
        return RoundResult(
            state=self._server.server_update(round_, state, total, seed),
            metrics=mean_metrics(total.metrics),
            client_states={},
            lost_clients=tuple(collected.lost),
        )

    def _empty(self, round_: Round, message: Any) -> Contribution:
        """What every contribution to ``round_`` is shaped like."""
        key = round_key(round_)
        if key not in self._empties:
            self._empties[key] = empty_contribution(round_, message)
        return self._empties[key]

    def _masked(self, call: RoundCall) -> RoundCall:
        """``call`` with secure aggregation, whose threshold closes a round."""
        if self._secure is None:
            raise ConfigError(
                "Contributions with a share of the noise are added up behind masks "
                "only: give GrpcRuntime(secure=secure_terms(...))."
            )
        least, regions = self._secure.parameters.threshold, self._secure.regions
        if regions:
            call = call._replace(cohort=regions, report_goal=len(regions))
        return call._replace(secure=self._secure, least_reports=least)

    def client_scores(
        self, held_out: HeldOut, round_: Round, state: ServerState, seed: seeds.Seed
    ) -> Scores:
        """What all partners together say of ``state``, from rows that they keep back.

        Zeros, which report no score, where too few answered within all deadlines: the
        journal says so, and the run goes on.

        Raises:
          StoppedError: If the operator has ended the run for good.
        """
        message = self._server.broadcast(round_, state)
        like, number = held_out.evaluation.zeros(), int(state.round_number) - 1
        again = partial(self._charge_scores_again, held_out, number, message)
        clients = tuple(self._service.clients)
        call = self._call("evaluate", number, clients, (message, like), seed, again)
        try:
            collected = self._collected(call)
        except TooFewClientsError:
            return like
        scores: Scores = packed(collected.total(), like=like)
        return scores

    def _collected(self, call: RoundCall) -> Collected:
        try:
            return self._rounds.collect(call)
        except RunStoppedError:
            text = self._ended()
            if text is None:
                raise
            raise StoppedError(f"The run was ended by the operator: {text}.") from None

    def _charge_again(
        self, round_number: int, cohort: Sequence[str], message: Any, attempt: int
    ) -> None:
        if attempt and self.charges is not None:
            inputs = f"attempt {attempt} at {nest_sha256(message)}"
            self.charges.before_round(round_number, cohort, inputs)

    def _charge_scores_again(
        self, held_out: HeldOut, round_number: int, message: Any, attempt: int
    ) -> None:
        if attempt and self.charges is not None and held_out.cost is not None:
            inputs = f"attempt {attempt} at scores {nest_sha256(message)}"
            self.charges.charge_release(
                f"scores after {round_number + 1} rounds, attempt {attempt}",
                held_out.cost,
                query=held_out.evaluation.asked,
                input_hash=hashlib.sha256(inputs.encode()).hexdigest(),
            )

    def _call(
        self,
        kind: Kind,
        number: int,
        clients: tuple[str, ...],
        crossing: tuple[Any, Any],
        seed: seeds.Seed,
        before_attempt: Callable[[int], None],
    ) -> RoundCall:
        service, (message, like) = self._service, crossing
        goal = min(service.report_goal or len(clients), len(clients))
        # Only a run that repeats a simulation tells clients what their draws are.
        info = {"seed": [int(word) for word in seed]}
        return RoundCall(
            run_id=self._run_id,
            round_number=number,
            kind=kind,
            cohort=clients,
            report_goal=goal,
            least_reports=min(service.least_reports or goal, goal),
            deadline_s=service.deadline_s,
            max_deadlines=service.max_deadlines,
            broadcast=leaves(message),
            contribution=specs(like),
            info=info if service.repeats_simulation else {},
            before_attempt=before_attempt,
        )


def _sum_of(collected: Collected, round_: Round, like: Contribution) -> Contribution:
    if is_masked(round_):
        (vector,) = collected.total()
        vector = vector.astype(np.uint32, copy=False)
        return nests.to_tensors(from_ring_vector(_tensor(vector), like=like))
    arrays = [_tensor(array) for array in collected.total()]
    total: Contribution = tf.nest.pack_sequence_as(like, arrays)
    return total


def _tensor(array: Any) -> Any:
    """``array``, which nobody changes any more, as a tensor that shares its memory.

    ``tf.constant`` would take two copies, one of them until it is called again.
    """
    is_shared = array.dtype.kind in "fiu" and array.ctypes.data % ALIGNED_BYTES == 0
    if not is_shared:
        return tf.constant(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
