"""What the training loop asks before each round: may it run, and what does it cost?"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import dp_accounting

from fedtrain.core import validate
from fedtrain.core.chain import digest
from fedtrain.core.errors import BudgetExhaustedError, PrivacyError
from fedtrain.core.mechanism import Mechanism
from fedtrain.data.cohorts import CohortSampler
from fedtrain.privacy import accounting, events
from fedtrain.privacy.kept_promise import check_mechanisms, check_sampler
from fedtrain.privacy.ledger import Charge, Ledger
from fedtrain.privacy.plan import PrivacyPlan
from fedtrain.privacy.spending import Spending

# What stops a run or describes it, and changes nothing that a round releases.
_NOT_RELEASED = (
    "target_epsilon",
    "accept_weak_privacy",
    "num_weights",
    "reserved",
    "further_attempts",
)


class Later(NamedTuple):
    """The rounds that are still to come.

    Attributes:
      num_rounds: Of the whole run.
      cohort_of: ``cohort_of(round_number)`` -> the ids of the clients that take part.
    """

    num_rounds: int
    cohort_of: Callable[[int], Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class RunPrivacy:
    """A run's plan, the mechanisms that keep it, and the ledger that counts.

    Attributes:
      plan: The promise; its ``target_epsilon`` is the budget of the ledger, so on a
        ledger that several runs share it bounds them all together.
      mechanisms: Of the round that is run: ``round_.mechanisms``.
      sampler: That draws the cohorts.
      ledger: Where charges go.
      run_id: The run's name in the ledger.
      is_private: Whether the data is private; decides how the report calls the run.
      noise_key: Fingerprint of the secret key that the noise is drawn from here; the
        same round under another key is another release. Empty for other noise.
      reserve_rounds: Rounds that are charged ahead in one go: one write and one sync
        for all of them. What a crash leaves unused stays spent, and rounds that are
        repeated after it are charged again.
    """

    plan: PrivacyPlan
    mechanisms: tuple[Mechanism, ...]
    sampler: CohortSampler
    ledger: Ledger
    run_id: str
    is_private: bool = True
    noise_key: str = ""
    reserve_rounds: int = 1

    def __post_init__(self) -> None:
        """The mechanisms keep the plan, and the sampler keeps the mechanisms' needs."""
        validate.positive_integer(reserve_rounds=self.reserve_rounds)
        check_mechanisms(self.plan, self.mechanisms)
        check_sampler(self.plan, self.mechanisms, self.sampler)
        _refuse_overspending(self)

    @property
    def amplifies(self) -> bool:
        """Whether rounds are charged as Poisson-sampled, to every client alike."""
        return (
            self.plan.unit == "client"
            and self.plan.trust == "central"
            and self.sampler.amplifies
        )

    def before_round(
        self, round_number: int, cohort_ids: Sequence[str], input_hash: str
    ) -> float:
        """Charges a round, unless it is reserved already.

        Args:
          round_number: From 0.
          cohort_ids: The clients that take part.
          input_hash: Of the seed, the state and the clients. With the plan and the
            mechanisms, which are added here, it says what the round releases: the
            same round of the same is charged once, however often it is retried.

        Returns:
          The epsilon spent, reserved rounds included.

        Raises:
          BudgetExhaustedError: If the round would pass the budget; nothing is written
            and no data may be used.
          PrivacyError: If the round lies beyond those that were planned, or the cohort
            breaks the participation pattern that correlated noise relies on.
        """
        _refuse_unplanned_round(self, round_number)
        _refuse_broken_pattern(self, round_number, cohort_ids)
        promised = _with_promise(self, input_hash)
        if not self._has_reserved(round_number, cohort_ids, promised):
            charge = self._charge(round_number, cohort_ids, promised)
            self.ledger.charge(charge, allowed=self._refuse_beyond_budget)
        return self._epsilon(self.ledger.spending, accounting.QUICK)

    def reserve(self, round_number: int, later: Later) -> None:
        """Charges ``reserve_rounds`` rounds from this one on, where none is reserved.

        Where the budget does not allow so many, it is half of them, and so on; where it
        allows none, nothing is written, and ``before_round`` says so.
        """
        if self.reserve_rounds == 1:
            return
        charges = [self._reservation(round_number, later.cohort_of(round_number))]
        if self.ledger.has_reserved(charges[0]):
            return
        stop = round_number + self.reserve_rounds
        for number in range(
            round_number + 1, min(stop, later.num_rounds, _num_planned(self))
        ):
            cohort_ids = () if self.amplifies else later.cohort_of(number)
            charges.append(self._reservation(number, cohort_ids))
        while charges:
            try:
                self.ledger.reserve(charges, allowed=self._refuse_beyond_budget)
            except BudgetExhaustedError:
                charges = charges[: len(charges) // 2]
            else:
                return

    def can_afford(self, round_number: int, cohort_ids: Sequence[str]) -> bool:
        """Whether ``before_round`` would accept the round, by what is known now.

        Nothing is written. The answer is for reading data ahead: before they are used,
        ``before_round`` has the last word, as another run may spend in between.
        """
        charge = self._reservation(round_number, cohort_ids)
        if self.ledger.has_reserved(charge):
            return True
        spending = self.ledger.spending
        try:
            _refuse_unplanned_round(self, round_number)
            _refuse_broken_pattern(self, round_number, cohort_ids)
            self._refuse_beyond_budget(
                spending.after(charge.unit, charge.counts, charge.clients)
            )
        except (BudgetExhaustedError, PrivacyError):
            return False
        return True

    def _charge(
        self, round_number: int, cohort_ids: Sequence[str], input_hash: str
    ) -> Charge:
        return Charge(
            run=self.run_id,
            round_number=round_number,
            attempt=0,
            input_hash=input_hash,
            unit=self.plan.unit,
            counts=events.counted(self.round_event()),
            clients=None if self.amplifies else tuple(sorted(cohort_ids)),
        )

    def _has_reserved(
        self, round_number: int, cohort_ids: Sequence[str], input_hash: str
    ) -> bool:
        if self.reserve_rounds == 1:
            return False
        reserved = self._reservation(round_number, cohort_ids)
        return self.ledger.use(reserved, input_hash=input_hash)

    def _reservation(self, round_number: int, cohort_ids: Sequence[str]) -> Charge:
        promised = _with_promise(self, "reserved")
        charge = self._charge(round_number, cohort_ids, promised)
        return replace(charge, note="round, reserved")

    def before_participation(self, client_id: str, input_hash: str) -> float:
        """Charges one client for one contribution to one later sum.

        For a loop without cohorts. The ledger's ``round`` is then the number of the
        client's own participation, from 0, so the ledger bounds them across restarts.

        Args:
          client_id: Who is about to be asked.
          input_hash: Another one each time a client is asked: a contribution that is
            computed anew enters another sum, so it is charged anew.

        Returns:
          The epsilon spent once the client has contributed.

        Raises:
          BudgetExhaustedError: If the contribution would pass the budget; nothing is
            written and no data may be read.
          PrivacyError: If the client has taken part as often as was planned, or rounds
            are charged as Poisson-sampled.
        """
        number = self.num_participations(client_id)
        charge = Charge(
            run=self.run_id,
            round_number=number,
            attempt=0,
            input_hash=_with_promise(self, input_hash),
            unit=self.plan.unit,
            counts=events.counted(self.round_event()),
            clients=(client_id,),
            note="participation",
        )

        def allowed(after: Spending) -> None:
            _refuse_participation(self, client_id, number)
            self._refuse_beyond_budget(after)

        self.ledger.charge(charge, allowed=allowed)
        return self._epsilon(self.ledger.spending, accounting.QUICK)

    def num_participations(self, client_id: str) -> int:
        """How often ``client_id`` was charged by itself in this run."""
        return len(self.ledger.rounds_of(self.run_id, client_id))

    def charge_release(
        self,
        name: str,
        counts: events.Counts,
        *,
        query: Mapping[str, Any],
        input_hash: str,
    ) -> float:
        """Charges every client for one more number that is about to be released.

        Args:
          name: What it is.
          counts: What it costs one unit, as counted events.
          query: All that is asked, as plain values.
          input_hash: Of everything else that decides the number; the same name, query
            and input are charged once in a run.

        Returns:
          The epsilon spent once it is released.

        Raises:
          BudgetExhaustedError: If the release would pass the budget.
        """
        charge = Charge(
            run=self.run_id,
            round_number=-1,
            attempt=0,
            input_hash=release_hash(query, input_hash),
            unit=self.plan.unit,
            counts=counts,
            clients=None,
            note=f"release: {name}",
        )
        self.ledger.charge(charge, allowed=self._refuse_beyond_budget)
        return self._epsilon(self.ledger.spending, accounting.QUICK)

    def round_event(self) -> Any:
        """What one unit of a charged client spends in a round."""
        joint = dp_accounting.ComposedDpEvent([m.dp_event for m in self.mechanisms])
        if self.amplifies:
            return self.sampler.dp_event(joint, 1)
        # In a central sum, an entity's clients are in the mechanism's own event.
        local_entity = self.plan.unit == "entity" and self.plan.trust == "local"
        copies = self.plan.max_clients_per_entity if local_entity else 1
        return events.times(joint, copies)

    def spent(self) -> float:
        """The headline epsilon of everything in the ledger."""
        return self._epsilon(self.ledger.spending, accounting.FINE)

    def spent_so_far(self) -> float:
        """As ``before_round`` gives it, with what was charged since."""
        return self._epsilon(self.ledger.spending, accounting.QUICK)

    def head(self) -> dict[str, Any]:
        """The ledger's length and head hash, for checkpoints and reports."""
        return self.ledger.head()

    def expect(self, head: Mapping[str, Any]) -> None:
        """Raises LedgerError if the ledger lost what a checkpoint remembers."""
        self.ledger.expect(head)

    def _epsilon(self, spending: Spending, interval: float) -> float:
        plan = self.plan
        return spending.epsilon(
            plan.unit, plan.delta, plan.neighboring_relation, interval=interval
        )

    def _refuse_beyond_budget(self, after: Spending) -> None:
        budget = self.plan.target_epsilon
        if budget is None or self._epsilon(after, accounting.QUICK) <= budget:
            return
        epsilon = self._epsilon(after, accounting.FINE)
        if epsilon > budget:
            raise BudgetExhaustedError(
                f"This would bring epsilon to {epsilon:.4g}, above the budget"
                f" of {budget:g} (unit {self.plan.unit}, delta {self.plan.delta:g}; "
                f"ledger {self.ledger.path}). Nothing was used or released. Raise "
                "target_epsilon, or plan with more noise or fewer rounds."
            )


def release_hash(query: Mapping[str, Any], input_hash: str) -> str:
    """Names one release: all that is asked, and everything else that decides it."""
    return digest({"input": input_hash, "query": dict(query)})


def _with_promise(privacy: RunPrivacy, input_hash: str) -> str:
    """``input_hash`` together with what plan, mechanisms and noise key decide."""
    plan = asdict(privacy.plan)
    promise = {
        "input": input_hash,
        "plan": {k: v for k, v in plan.items() if k not in _NOT_RELEASED},
        "mechanisms": [mechanism.as_dict() for mechanism in privacy.mechanisms],
        **({"noise_key": privacy.noise_key} if privacy.noise_key else {}),
    }
    plain = json.dumps(promise, sort_keys=True, default=repr)
    return hashlib.sha256(plain.encode()).hexdigest()


def _refuse_overspending(privacy: RunPrivacy) -> None:
    """The mechanisms spend no more in a round than the plan says."""
    plan = privacy.plan.calibrated()
    actual, planned = (
        accounting.epsilon(
            event, plan.delta, plan.neighboring_relation, interval=accounting.QUICK
        )
        for event in (privacy.round_event(), plan.round_event())
    )
    if actual > planned * (1.0 + 1e-6) + 1e-9:
        raise PrivacyError(
            f"A round spends epsilon {actual:.4g} by its mechanisms, but {planned:.4g} "
            "by the plan. Make both from the same numbers."
        )


def _num_planned(privacy: RunPrivacy) -> int:
    """Rounds that the plan and all of the mechanisms were made for."""
    details = [dict(mechanism.details) for mechanism in privacy.mechanisms]
    made_for = [d["num_rounds"] for d in details if "num_rounds" in d]
    return min([privacy.plan.num_rounds, *made_for])


def _refuse_unplanned_round(privacy: RunPrivacy, round_number: int) -> None:
    num_rounds = _num_planned(privacy)
    if round_number >= num_rounds:
        raise PrivacyError(
            f"Round {round_number} (the first is 0) lies beyond the {num_rounds} that "
            "the plan and the noise were made for. Raise num_rounds of the plan and of "
            "the mechanism, and start a new run."
        )


def _refuse_participation(privacy: RunPrivacy, client_id: str, number: int) -> None:
    """Called under the ledger's lock, when other processes' charges have been read."""
    if privacy.amplifies:
        raise PrivacyError(
            "Rounds are charged as Poisson-sampled, to all clients alike: one client's "
            "participation cannot be charged by itself. Plan without amplification."
        )
    if privacy.num_participations(client_id) != number:
        raise PrivacyError(
            f"Another process charges run {privacy.run_id!r} to {privacy.ledger.path} "
            "at the same time. Let one of them end."
        )
    if number >= privacy.plan.participations:
        raise PrivacyError(
            f"Client {client_id!r} has taken part {number} times, as often as the "
            "plan's max_participations allows. Plan for more, and start a new run."
        )


def _refuse_broken_pattern(
    privacy: RunPrivacy, round_number: int, cohort_ids: Sequence[str]
) -> None:
    details = [dict(mechanism.details) for mechanism in privacy.mechanisms]
    most = min((d.get("max_participations", 0) for d in details), default=0)
    if not most:
        return
    separation = max(mechanism.min_separation for mechanism in privacy.mechanisms)
    for client in cohort_ids:
        rounds = privacy.ledger.rounds_of(privacy.run_id, client) - {round_number}
        too_close = any(abs(round_number - other) < separation for other in rounds)
        if too_close or len(rounds) >= most:
            raise PrivacyError(
                f"Client {client!r} cannot take part in round {round_number}: the "
                f"correlated noise was made for at most {most} participations, "
                f"{separation} rounds apart; it was in {sorted(rounds)}."
            )
