"""What of an export has to be paid for, known from a run's settings alone."""

from collections.abc import Mapping
from typing import Any

from fedtrain.privacy.account import copies_of, noise_multiplier_for
from fedtrain.project.config import ExportSection, PrivacySection

EVALUATION, CALIBRATION = "scores of variants", "ranges of activations"


def paid_epsilons(export: ExportSection) -> dict[str, float]:
    """Epsilon of each query that ``[export]`` names, by what it is for."""
    asked = {EVALUATION: export.evaluation_epsilon}
    if export.calibration == "private_query":
        asked[CALIBRATION] = export.calibration_epsilon
    return {name: epsilon for name, epsilon in asked.items() if epsilon is not None}


def noise_multipliers(
    export: ExportSection, promise: PrivacySection | Mapping[str, Any]
) -> dict[str, float]:
    """Noise of each query, over what one unit moves it.

    Args:
      export: ``[export]``.
      promise: ``[privacy]``, or a privacy report.
    """
    values = promise if isinstance(promise, Mapping) else promise.model_dump()
    copies = copies_of(
        values["unit"], values["trust"], values["max_clients_per_entity"]
    )
    return {
        name: noise_multiplier_for(
            epsilon,
            delta=values["delta"],
            neighboring_relation=values["neighboring_relation"],
            copies=copies,
        )
        for name, epsilon in paid_epsilons(export).items()
    }
