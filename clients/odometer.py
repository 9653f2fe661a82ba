"""Epsilon of a data set, at the partner: charged before an answer leaves.

It is the privacy ledger of the rows, the one that simulations on them charge too. The
bound is the partner's policy, over all plans and runs; no plan can raise it, and
nothing is refunded. Every row of the file pays for every answer, under whatever name
the partner gives it: the names are the operators' to choose.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from clients.work import Cost, RoundTask
from fedtrain.core.errors import BudgetExhaustedError
from fedtrain.core.mechanism import Unit
from fedtrain.privacy import accounting
from fedtrain.privacy.ledger import Charge, Ledger
from fedtrain.privacy.spending import Spending
from fedtrain.wire.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Terms:
    """In which terms epsilon is counted: a figure without them says nothing.

    Attributes:
      unit: Whose privacy.
      neighboring_relation: What two data sets differ in.
      delta: The probability at which epsilon may fail.
    """

    unit: Unit
    neighboring_relation: str
    delta: float


def terms_of(plan: Plan) -> Terms:
    """The terms that ``plan`` promises in; a row's, where it promises nothing."""
    promise = plan.privacy
    if promise is None:
        return Terms(
            unit="example", neighboring_relation="add_or_remove_one", delta=1e-6
        )
    return Terms(
        unit=promise.unit,
        neighboring_relation=promise.neighboring_relation,
        delta=promise.delta,
    )


class Odometer:
    """What the rows of one ledger have spent, and the most that they may.

    Args:
      ledger: Of the rows.
      client_id: Who spends it, for the ledger's readers.
      terms: Of the plan that is being carried out.
    """

    def __init__(self, ledger: Ledger, *, client_id: str, terms: Terms) -> None:
        self._ledger = ledger
        self._client_id = client_id
        self._terms = terms

    def check(self, task: RoundTask, cost: Cost, *, max_epsilon: float) -> None:
        """Raises BudgetExhaustedError if ``charge`` would; nothing is written."""
        charge = self._charge(task, cost)
        if self._ledger.has(charge):
            return
        after = self._ledger.spending.after(cost.unit, cost.counts, None)
        self._refuse(charge, cost.most, max_epsilon, after)

    def charge(self, task: RoundTask, cost: Cost, *, max_epsilon: float) -> None:
        """Writes down what the answer to ``task`` spends; once, however often asked.

        Args:
          task: What is answered.
          cost: What that spends.
          max_epsilon: The policy's bound; infinite for none.

        Raises:
          BudgetExhaustedError: If it would pass the policy's bound, or the number of
            answers that the plan counts; nothing is written.
          LedgerError: If the ledger is damaged or cannot be written to.
        """
        charge = self._charge(task, cost)
        allowed = partial(self._refuse, charge, cost.most, max_epsilon)
        self._ledger.charge(charge, allowed=allowed)

    def spent(self) -> dict[str, Any]:
        """The epsilon so far with its terms, as plain values; None is no bound."""
        epsilon = self._epsilon(self._ledger.spending, accounting.QUICK)
        return {
            "epsilon": epsilon if math.isfinite(epsilon) else None,
            "delta": self._terms.delta,
            "unit": self._terms.unit,
            "neighboring_relation": self._terms.neighboring_relation,
            "accountant": accounting.ACCOUNTANT,
        }

    def head(self) -> dict[str, Any]:
        """Which ledger it is, its length, and the hash of its last entry."""
        return {"file": self._ledger.path.name, **self._ledger.head()}

    def expect(self, head: Mapping[str, Any]) -> None:
        """Raises LedgerError if the ledger that ``head`` is of lost an entry since."""
        if head["file"] == self._ledger.path.name:
            self._ledger.expect(head)

    def _epsilon(self, spending: Spending, interval: float) -> float:
        terms = self._terms
        return spending.epsilon(
            terms.unit, terms.delta, terms.neighboring_relation, interval=interval
        )

    def _charge(self, task: RoundTask, cost: Cost) -> Charge:
        inputs = f"{task.broadcast_sha256} {cost.noise}"
        return Charge(
            run=task.run_id,
            round_number=task.round_number,
            attempt=task.attempt,
            input_hash=hashlib.sha256(inputs.encode()).hexdigest(),
            unit=cost.unit,
            counts=cost.counts,
            clients=None,
            note=f"{task.kind} of {self._client_id}",
        )

    def _refuse(
        self, charge: Charge, most: int | None, max_epsilon: float, after: Spending
    ) -> None:
        """Neither more answers than the plan counts, nor more than the policy."""
        charged = self._ledger.num_charged(charge.run, charge.note)
        if most is not None and charged >= most:
            raise BudgetExhaustedError(
                f"The plan that you approved counts {most} answers in its epsilon ("
                f"{charge.note}): its rounds and further attempts. The aggregator asks "
                f"for another, in round {charge.round_number}. Nothing was sent. Leave "
                "the run here, or ask the operator for a plan with more "
                "further_attempts."
            )
        self._refuse_beyond(max_epsilon, after)

    def _refuse_beyond(self, max_epsilon: float, after: Spending) -> None:
        if self._epsilon(after, accounting.QUICK) <= max_epsilon:
            return
        epsilon = self._epsilon(after, accounting.FINE)
        if epsilon > max_epsilon:
            raise BudgetExhaustedError(
                f"This answer would bring epsilon of these rows to {epsilon:.4g} (unit "
                f"{self._terms.unit}, delta {self._terms.delta:g}; ledger "
                f"{self._ledger.path}), above max_epsilon = {max_epsilon:g} of your "
                "policy. Nothing was sent. Leave the run here, or raise max_epsilon in "
                "policy.toml."
            )
