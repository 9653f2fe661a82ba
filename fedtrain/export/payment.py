"""What an export asks of private rows: found affordable first, charged, then asked."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from fedtrain.core.errors import ConfigError, PrivacyError
from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.examples import Array, Examples
from fedtrain.export.record import Charged
from fedtrain.privacy import accounting, events
from fedtrain.privacy.account import Account, account_of
from fedtrain.privacy.paid_counts import (
    NOISE_SOURCE,
    CountsQuery,
    NoisedCounts,
    UnitRows,
    paid_counts,
)
from fedtrain.project.config import ExportSection
from fedtrain.project.ledger_identity import ledgers_of_test_rows
from fedtrain.project.load import LoadedRun
from fedtrain.project.paid_export import (
    CALIBRATION,
    EVALUATION,
    noise_multipliers,
)

MECHANISM = "Gaussian mechanism on sums of whole numbers"


class PrivateRows(NamedTuple):
    """Rows that may be asked only through a ``Payment``.

    Attributes:
      examples: The rows; nothing exact about them may be shown.
      units: Integer [rows]: rows of one unit share a number; None: each is a unit.
      parties: Integer [rows]: who adds noise to a row's sum.
      num_parties: How many add noise.
    """

    examples: Examples
    units: Array | None
    parties: Array
    num_parties: int

    def with_vectors(self, vectors: Iterable[Array]) -> UnitRows:
        """What ``Payment.ask`` takes; ``vectors`` cover all rows in order."""
        return UnitRows(vectors, self.units, self.parties, self.num_parties)


class Payment:
    """Queries that were announced, each charged when it is asked.

    Attributes:
      account: Whom it is charged to.
      charged: What was charged so far, for the record.
    """

    def __init__(
        self, account: Account, noise: dict[str, float], *, rows_per_unit: int
    ) -> None:
        """Raises BudgetExhaustedError unless all of ``noise`` is affordable."""
        if account.trust == "distributed":
            raise PrivacyError(
                'trust is "distributed": nobody may see exact sums over rows, so an '
                "export cannot ask them. Judge and calibrate on public rows."
            )
        account.check_affordable(noise)
        self.account = account
        self.charged: list[Charged] = []
        self._noise = noise
        self._rows_per_unit = 1 if account.unit == "example" else rows_per_unit

    def ask(
        self, name: str, rows: Callable[[], UnitRows], *, squared_norm: int
    ) -> NoisedCounts:
        """Noised sums over ``rows``, which are read after the charge is on disk."""
        query = CountsQuery(
            name=name,
            squared_norm=squared_norm,
            rows_per_unit=self._rows_per_unit,
            noise_multiplier=self._noise[name],
        )
        found = paid_counts(query, rows, account=self.account)
        self.charged.append(self._charged(query, found))
        return found

    def rows(self, dataset: FederatedDataset) -> PrivateRows:
        """The rows of ``dataset`` by unit and by who adds noise to them."""
        sizes = dataset.num_examples()
        clients = np.repeat(np.arange(dataset.num_clients), sizes)
        is_local = self.account.trust == "local"
        units = {
            "example": None,
            "entity": dataset.examples.entity_ids,
            "client": clients,
        }[self.account.unit]
        return PrivateRows(
            dataset.examples,
            units,
            clients if is_local else np.zeros_like(clients),
            dataset.num_clients if is_local else 1,
        )

    def check(self, dataset: FederatedDataset, *, knows_clients: bool = True) -> None:
        """Raises PrivacyError, before anything is spent, unless rows have their unit.

        Args:
          dataset: What will be asked; its values are not looked at.
          knows_clients: Whether it says which client each row belongs to.
        """
        unit, trust = self.account.unit, self.account.trust
        lacks_entity = unit == "entity" and dataset.examples.entity_ids is None
        lacks_client = not knows_clients and (unit == "client" or trust == "local")
        if lacks_entity or lacks_client:
            raise PrivacyError(
                f"The unit is {unit!r} and trust {trust!r}, but the rows of "
                f"{dataset.name} do not say whose they are. Judge by public rows "
                "(--data). Nothing was spent."
            )

    def _charged(self, query: CountsQuery, found: NoisedCounts) -> Charged:
        account = self.account
        cost = account.cost(query.noise_multiplier)
        head = account.ledgers[0].head()
        return Charged(
            name=query.name,
            mechanism=MECHANISM,
            noise_source=NOISE_SOURCE,
            sensitivity=query.sensitivity,
            noise_multiplier=query.noise_multiplier,
            noise_stddev=found.stddev,
            unit=account.unit,
            rows_per_unit=query.rows_per_unit,
            trust=account.trust,
            neighboring_relation=account.neighboring_relation,
            delta=account.delta,
            epsilon=account.epsilon(query.noise_multiplier),
            epsilon_in_all=account.spent(),
            accountant=accounting.accountant(events.joined(cost)),
            accountant_in_all=account.accountants(),
            amplification="none claimed",
            ledger_length=head["length"],
            ledger_hash=head["hash"],
        )


def payment_of(
    run: LoadedRun, settings: ExportSection, *, needs_ranges: bool
) -> Payment | None:
    """Pays for what ``settings`` ask of private rows; None where that is nothing.

    No row is read for this: what was promised is in the run's privacy report.

    Args:
      run: The run.
      settings: ``[export]``.
      needs_ranges: Whether any variant needs ranges of activations.

    Raises:
      BudgetExhaustedError: If the ledger cannot pay for all of it.
      ConfigError: If an epsilon is missing.
    """
    asked = _asked(run, settings, needs_ranges=needs_ranges)
    if not asked:
        return None
    report = run.privacy_report
    if report is None:
        raise PrivacyError(
            f"{run.config.name} was trained without [privacy], so there is no promise "
            "that scores of private rows or their ranges could be charged to. Judge "
            "and calibrate on public rows (--data)."
        )
    noise = noise_multipliers(settings, report)
    missing = [name for name in asked if name not in noise]
    if missing:
        key = "calibration" if CALIBRATION in missing else "evaluation"
        raise ConfigError(
            f"{missing[0]} of private rows cost privacy: say how much with "
            f"export.{key}_epsilon."
        )
    other = ledgers_of_test_rows(run.config.data, run.folder.path)
    account = account_of(
        {**report, "ledger_path": _ledger(run, report)},
        other_ledgers=other if EVALUATION in asked else (),
    )
    announced = {name: noise[name] for name in asked}
    return Payment(account, announced, rows_per_unit=settings.rows_per_unit)


def judges_private_rows(run: LoadedRun, settings: ExportSection) -> bool:
    """Whether variants are judged by private rows, as far as that is declared."""
    if settings.public_rows is not None or settings.evaluation_epsilon is None:
        return False
    data = run.config.data
    return (data.test_sensitivity or _sensitivity(run)) == "private"


def _asked(run: LoadedRun, settings: ExportSection, *, needs_ranges: bool) -> list[str]:
    asked = [EVALUATION] if judges_private_rows(run, settings) else []
    by_query = settings.calibration == "private_query" and needs_ranges
    return [*asked, CALIBRATION] if by_query else asked


def _sensitivity(run: LoadedRun) -> str:
    """Of the training rows, as the run noted it when it started."""
    info = run.folder.read_json(run.folder.info)
    return str(info.get("data", {}).get("sensitivity", "private"))


def _ledger(run: LoadedRun, report: Mapping[str, Any]) -> str:
    """Its absolute path, which the run noted when it started."""
    info = run.folder.read_json(run.folder.info)
    return str(info.get("ledger", report["ledger_path"]))
