"""What every training loop checks before it starts and after each round."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

from fedtrain.core.errors import ConfigError, DivergedError, PrivacyError
from fedtrain.data.cohorts import CohortSampler
from fedtrain.data.dataset import FederatedDataset
from fedtrain.rounds.keepers import Charges
from fedtrain.rounds.round import Round, ServerState

Evaluate = Callable[[ServerState], Mapping[str, float]]


class Run(Protocol):
    """The parts that a run of any loop has.

    Attributes:
      round_: What one round is.
      dataset: The population.
      sampler: Who takes part.
      num_rounds: Rounds in all.
      privacy: Charges the ledger.
      evaluate: Scores a state.
      evaluate_every: Rounds between two evaluations.
    """

    @property
    def round_(self) -> Round: ...  # noqa: D102 - attributes are described above

    @property
    def dataset(self) -> FederatedDataset: ...  # noqa: D102

    @property
    def sampler(self) -> CohortSampler: ...  # noqa: D102

    @property
    def num_rounds(self) -> int: ...  # noqa: D102

    @property
    def privacy(self) -> Charges | None: ...  # noqa: D102

    @property
    def evaluate(self) -> Evaluate | None: ...  # noqa: D102

    @property
    def evaluate_every(self) -> int: ...  # noqa: D102


def evaluation(run: Run, num_done: int, state: ServerState) -> Mapping[str, float]:
    """Scores of ``state`` after ``num_done`` rounds; empty where none are due."""
    last = num_done == run.num_rounds
    if run.evaluate is None or not (last or num_done % run.evaluate_every == 0):
        return {}
    return run.evaluate(state)


def refuse_divergence(round_number: int, state: ServerState) -> None:
    """Raises DivergedError unless every weight is finite."""
    if not all(map(_is_finite, tf.nest.flatten(state.weights))):
        raise DivergedError(
            f"Round {round_number + 1} left weights that are not finite: training "
            "diverged. The likely cause is a learning rate that is too high; lower "
            "the client's (or the server's), or clip. The rounds before it are saved."
        )


def _is_finite(leaf: Any) -> bool:
    # In numpy: TensorFlow's calls would take as long as a round of a small model.
    array = np.asarray(leaf)
    is_float = tf.as_dtype(array.dtype).is_floating
    return not is_float or bool(np.isfinite(array).all())


def check_privacy(run: Run) -> None:
    """Nothing that touched private data leaves unprotected beside what is protected.

    Raises:
      PrivacyError, ConfigError: Where the ledger would not be charged for what runs.
    """
    mechanisms = run.round_.mechanisms
    if mechanisms and run.privacy is None:
        raise PrivacyError(
            f"{run.round_.name} has the {mechanisms[0].name} mechanism, but privacy is "
            "None, so nothing would charge the ledger. Give privacy=RunPrivacy(...)."
        )
    if run.privacy is not None and not mechanisms:
        raise ConfigError(
            f"privacy is given, but {run.round_.name} has no privacy mechanism. Add "
            "one, such as gaussian_mechanism(...) or dp_sgd(...), or leave privacy out."
        )
    private = run.dataset.sensitivity == "private"
    if mechanisms and private and run.round_.reports_metrics:
        raise PrivacyError(
            "reports_metrics would send exact sums of loss and accuracy of private "
            "data beside the protected update. Use reports_metrics=False, or declare "
            'the data set sensitivity="public" if it is.'
        )
    if run.privacy is not None:
        _check_promise(run, run.privacy)


def _check_promise(run: Run, privacy: Charges) -> None:
    """What the ledger is charged for is what runs, on the population it speaks of."""
    same = {
        "mechanisms": (privacy.mechanisms, run.round_.mechanisms),
        "sampler": (privacy.sampler, run.sampler),
        "num_clients": (privacy.plan.num_clients, run.dataset.num_clients),
        "is_private": (privacy.is_private, run.dataset.sensitivity == "private"),
    }
    for name, (promised, actual) in same.items():
        if promised != actual:
            raise PrivacyError(
                f"privacy speaks of {name} = {promised!r}, but what runs has "
                f"{actual!r}. Make both from the same objects."
            )
    if run.num_rounds > privacy.plan.num_rounds:
        raise PrivacyError(
            f"num_rounds is {run.num_rounds}, but the privacy plan was made for "
            f"{privacy.plan.num_rounds}. Plan for all of them."
        )
