"""One number about private data, noised and paid for: a count, a loss, an accuracy.

Whatever touched private data and is shown goes through the ledger. A mean of bounded
values over units is the Gaussian mechanism with a public denominator.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedtrain.core import seeds, validate
from fedtrain.core.errors import PrivacyError
from fedtrain.privacy import events
from fedtrain.privacy.run_privacy import RunPrivacy, release_hash


@dataclass(frozen=True, kw_only=True)
class MeanQuery:
    """A mean over units (rows, entities or clients, as the plan says).

    Attributes:
      name: What is released, for the ledger, such as ``"accuracy"``.
      bound: Each unit's value is clipped to ``[-bound, bound]``.
      noise_multiplier: Noise on the sum over ``bound``.
      expected_count: The public denominator.
    """

    name: str
    bound: float
    noise_multiplier: float
    expected_count: float

    def __post_init__(self) -> None:
        """Bound, noise and count are above zero."""
        validate.positive(
            bound=self.bound,
            noise_multiplier=self.noise_multiplier,
            expected_count=self.expected_count,
        )


def paid_mean(
    query: MeanQuery,
    values: Callable[[], npt.NDArray[Any]],
    *,
    privacy: RunPrivacy,
    input_hash: str,
    seed: seeds.Seed,
) -> float:
    """A noised mean, charged to every client before the values are read.

    Args:
      query: What is asked.
      values: Gives one number for each unit; not called before the charge is on disk.
        Non-finite numbers count as zero.
      privacy: Of the run; its plan must trust the aggregator.
      input_hash: Of everything that decides the values, such as the weights and the
        data. The same query on the same input is charged once and noised alike.
      seed: Of the run: the noise is simulated.

    Raises:
      BudgetExhaustedError: If the charge would pass the budget; nothing is read.
    """
    if privacy.plan.trust != "central":
        raise PrivacyError(
            f"trust is {privacy.plan.trust!r}, but a noised mean over all clients needs"
            " an aggregator that sees exact values. Evaluate on public data instead."
        )
    cost = Counter([events.gaussian(query.noise_multiplier)])
    asked = asdict(query)
    privacy.charge_release(query.name, cost, query=asked, input_hash=input_hash)
    finite = np.nan_to_num(values(), nan=0.0, posinf=0.0, neginf=0.0)
    clipped = np.clip(finite.astype(np.float64), -query.bound, query.bound)
    # Other values or another query never meet the same noise, or both could be solved
    # for the exact value.
    given = hashlib.sha256(clipped.tobytes()).hexdigest()
    named = release_hash(asked, input_hash)
    labels = ("release", privacy.run_id, query.name, named, given)
    noise = seeds.generator(seeds.derive(seed, *labels)).normal(
        scale=query.noise_multiplier * query.bound
    )
    return float((np.sum(clipped) + noise) / query.expected_count)
