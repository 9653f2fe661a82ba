"""What a finished run may still spend: its promise, its ledgers, and its budget.

Taken from the run's privacy report, so that nothing is asked of the rows to know what
asking them would cost.
"""

import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fedtrain.core.errors import BudgetExhaustedError
from fedtrain.core.mechanism import Trust, Unit
from fedtrain.privacy import accounting, events
from fedtrain.privacy.calibration import Target, least_noise_multiplier
from fedtrain.privacy.ledger import Charge, Ledger
from fedtrain.privacy.plan import NeighboringRelation
from fedtrain.privacy.spending import Spending


@dataclass(frozen=True, kw_only=True)
class Account:
    """Ledgers that a release of a finished run is charged to.

    Attributes:
      run_id: The run's name in the ledgers.
      unit: Whose privacy, as all that follows the run's own promise.
      trust: Who adds the noise.
      neighboring_relation: What two neighbouring data sets differ in.
      delta: Of every epsilon.
      budget: The run's ``target_epsilon``; None for no budget.
      max_clients_per_entity: Clients at which one entity may have rows.
      ledgers: Each is charged; the first one counts the run's training.
    """

    run_id: str
    unit: Unit
    trust: Trust
    neighboring_relation: NeighboringRelation
    delta: float
    budget: float | None
    max_clients_per_entity: int
    ledgers: tuple[Ledger, ...]

    @property
    def copies(self) -> int:
        """How often one unit pays for one query: once for each noise that covers it."""
        return copies_of(self.unit, self.trust, self.max_clients_per_entity)

    def cost(self, noise_multiplier: float) -> events.Counts:
        """What one unit pays for a Gaussian query."""
        return events.counted(
            events.times(events.gaussian(noise_multiplier), self.copies)
        )

    def epsilon(self, noise_multiplier: float) -> float:
        """Epsilon of one Gaussian query by itself."""
        event = events.joined(self.cost(noise_multiplier))
        return accounting.epsilon(event, self.delta, self.neighboring_relation)

    def spent(self) -> float:
        """The largest epsilon that stands in any of the ledgers."""
        return max(
            self._epsilon(ledger.spending, accounting.FINE) for ledger in self.ledgers
        )

    def accountants(self) -> str:
        """Who proves ``spent``, by name and version."""
        worst = [
            event
            for ledger in self.ledgers
            for event in ledger.spending.largest(self.unit)
        ]
        return ", ".join(sorted({accounting.accountant(event) for event in worst}))

    def check_affordable(self, noise_multipliers: Mapping[str, float]) -> None:
        """Raises BudgetExhaustedError unless all queries together can be paid.

        Args:
          noise_multipliers: Of each query, by its name.
        """
        total: Counter[Any] = Counter()
        for noise_multiplier in noise_multipliers.values():
            total.update(self.cost(noise_multiplier))
        names = " and ".join(noise_multipliers)
        for ledger in self.ledgers:
            after = ledger.spending.after(self.unit, total, None)
            self._refuse_beyond_budget(ledger, names, after)

    def charge(self, name: str, noise_multiplier: float) -> None:
        """Charges every unit for one Gaussian query that is about to be made.

        It is charged anew each time: its noise is drawn anew.

        Raises:
          BudgetExhaustedError: If it would pass the budget; nothing may be read.
        """
        self.check_affordable({name: noise_multiplier})
        charge = Charge(
            run=self.run_id,
            round_number=-1,
            attempt=0,
            input_hash=secrets.token_hex(32),
            unit=self.unit,
            counts=self.cost(noise_multiplier),
            clients=None,
            note=f"release: {name}",
        )
        for ledger in self.ledgers:
            allowed = partial(self._refuse_beyond_budget, ledger, name)
            ledger.charge(charge, allowed=allowed)

    def _refuse_beyond_budget(self, ledger: Ledger, name: str, after: Spending) -> None:
        if self.budget is None or self._epsilon(after, accounting.QUICK) <= self.budget:
            return
        epsilon = self._epsilon(after, accounting.FINE)
        if epsilon > self.budget:
            raise BudgetExhaustedError(
                f"To pay for {name} would bring epsilon to {epsilon:.4g}, above the "
                f"budget of {self.budget:g} (unit {self.unit}, delta {self.delta:g}; "
                f"ledger {ledger.path}). No row was looked at and nothing was "
                "released. Name the epsilon in [export] before training, so that the "
                "plan keeps it back, or use public rows."
            )

    def _epsilon(self, spending: Spending, interval: float) -> float:
        return spending.epsilon(
            self.unit, self.delta, self.neighboring_relation, interval=interval
        )


def account_of(
    report: Mapping[str, Any], *, other_ledgers: tuple[Path, ...] = ()
) -> Account:
    """The account of the run whose privacy report is ``report``.

    Args:
      report: As ``privacy_report.json`` holds it.
      other_ledgers: Of further data sets that will be asked.

    Raises:
      LedgerError: If the run's ledger lost what the report remembers.
    """
    own = Ledger(report["ledger_path"])
    own.expect({"length": report["ledger_length"], "hash": report["ledger_hash"]})
    others = [Ledger(path) for path in other_ledgers if path != own.path]
    return Account(
        run_id=report["run_id"],
        unit=report["unit"],
        trust=report["trust"],
        neighboring_relation=report["neighboring_relation"],
        delta=report["delta"],
        budget=report["target_epsilon"],
        max_clients_per_entity=report["max_clients_per_entity"],
        ledgers=(own, *others),
    )


def copies_of(unit: Unit, trust: Trust, max_clients_per_entity: int) -> int:
    """How often one unit pays for a query that every client, or the aggregator, noises.

    An entity at several clients, each of which adds noise of its own, pays at each.
    """
    return max_clients_per_entity if (unit, trust) == ("entity", "local") else 1


def noise_multiplier_for(
    epsilon: float, *, delta: float, neighboring_relation: str, copies: int = 1
) -> float:
    """The least noise that keeps one Gaussian query within ``epsilon`` by itself."""
    target = Target(epsilon=epsilon, delta=delta, relation=neighboring_relation)
    return least_noise_multiplier(
        lambda noise: events.times(events.gaussian(noise), copies), target
    )
