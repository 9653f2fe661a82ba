"""A round whose clients are partners: the sum comes by wire, the rest is the same."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from aggregator.rounds import RoundCall, Rounds
from fedtrain.core import seeds
from fedtrain.project.config import ServiceSection
from fedtrain.project.crossing import leaves, nest_sha256, packed, specs
from fedtrain.rounds.keepers import Charges
from fedtrain.rounds.round import Round, ServerState
from fedtrain.rounds.runtime import (
    Cohort,
    RoundResult,
    empty_total,
    mean_metrics,
    refuse_order_statistics,
)
from fedtrain.runtimes.compiled import CompiledRuntime


class GrpcRuntime:
    """Runs the clients of a round at the partners, and waits for their contributions.

    The server's half is the compiled runtime's, and contributions are added one by one
    in the order of the cohort. A simulation with the same seeds has the same weights up
    to the last bit: there TensorFlow may regroup the sum within its server step.

    Args:
      rounds: Where partners ask for tasks and leave their answers.
      run_id: The run's name.
      service: How many answers are waited for, and how long.

    Attributes:
      charges: Who charges another attempt at a round: its noise is drawn anew, so it
        is another release. None without privacy.
    """

    def __init__(self, rounds: Rounds, *, run_id: str, service: ServiceSection) -> None:
        self._rounds = rounds
        self._run_id = run_id
        self._service = service
        self._server = CompiledRuntime(strategy="graph")
        self.charges: Charges | None = None

    def run_round(
        self, round_: Round, state: ServerState, cohort: Cohort, seed: seeds.Seed
    ) -> RoundResult:
        """Waits until enough partners have answered, and takes the server's step.

        Raises:
          TooFewClientsError: If too few answered within all deadlines; resumable.
        """
        refuse_order_statistics(round_)
        number = int(state.round_number)
        if number:  # the loop has saved what the round before it led to
            self._rounds.committed(number - 1, nest_sha256(state))
        message = self._server.broadcast(round_, state)
        like = empty_total(round_.client_work, message)
        collected = self._rounds.collect(self._call(state, message, like, cohort, seed))
        total = packed(collected.total(), like=like)
        return RoundResult(
            state=self._server.server_update(round_, state, total, seed),
            metrics=mean_metrics(total.metrics),
            client_states={},
            lost_clients=tuple(collected.lost),
        )

    def _charge_again(
        self, round_number: int, cohort: Sequence[str], message: Any, attempt: int
    ) -> None:
        if attempt and self.charges is not None:
            inputs = f"attempt {attempt} at {nest_sha256(message)}"
            self.charges.before_round(round_number, cohort, inputs)

    def _call(
        self,
        state: ServerState,
        message: Any,
        like: Any,
        cohort: Cohort,
        seed: seeds.Seed,
    ) -> RoundCall:
        service = self._service
        goal = min(service.report_goal or len(cohort), len(cohort))
        # Only a run that repeats a simulation tells clients what their draws are.
        info = {"seed": [int(word) for word in seed]}
        number = int(state.round_number)
        names = tuple(client.client_id for client in cohort)
        return RoundCall(
            run_id=self._run_id,
            round_number=number,
            kind="train",
            cohort=names,
            report_goal=goal,
            least_reports=min(service.least_reports or goal, goal),
            deadline_s=service.deadline_s,
            max_deadlines=service.max_deadlines,
            broadcast=leaves(message),
            contribution=specs(like),
            info=info if service.repeats_simulation else {},
            before_attempt=partial(self._charge_again, number, names, message),
        )
