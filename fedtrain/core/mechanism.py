"""What a privacy mechanism says of itself: the value that the accountant reads.

The object that clips and adds the noise also makes its ``Mechanism``, from the same
numbers, so a statement about a run is derived from what runs.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Unit = Literal["example", "entity", "client"]
Trust = Literal["local", "distributed", "central"]
# Of ``noise_source`` in a mechanism's details: unpredictable, exact, on a grid.
CRYPTOGRAPHIC = "cryptographic"


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """One mechanism as applied once to the data of one client (or one cohort).

    Attributes:
      name: What is done, such as ``"gaussian"`` or ``"dp_sgd"``.
      unit: Whose privacy: one row, all rows of one entity, or one client's everything.
      trust: Who adds the noise.
      clipping_norm: L2 bound on the effect of one unit.
      noise_multiplier: ``noise_stddev_on_sum / clipping_norm``; dimensionless.
      noise_stddev_on_sum: Standard deviation of the noise, on the sum it is added to.
      dp_event: dp_accounting's description of one participation of one client in one
        round, before any amplification by the sampling of clients.
      min_separation: Correlated noise needs rounds between two participations.
      details: Further parameters for the report.
    """

    name: str
    unit: Unit
    trust: Trust
    clipping_norm: float
    noise_multiplier: float
    noise_stddev_on_sum: float
    dp_event: Any
    min_separation: int = 1
    details: tuple[tuple[str, Any], ...] = ()

    @property
    def is_released(self) -> bool:
        """Whether the noise is fit for release; otherwise it comes from a seed."""
        return dict(self.details).get("noise_source") == CRYPTOGRAPHIC

    def as_dict(self) -> dict[str, Any]:
        """The parameters as plain values, for a report."""
        values = asdict(self)
        values["dp_event"] = repr(self.dp_event)
        return values | {"details": dict(self.details)}
