"""Evaluation at the clients: each scores the global weights on rows of its own.

Only sums leave a client: exact ones, or noised counts of right and wrong answers that
its privacy ledger pays for. Their sum over clients is what the server sees.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from fedtrain.core import seeds
from fedtrain.core.keystream import KeyStream, WordSource
from fedtrain.data.dataset import FederatedDataset
from fedtrain.data.examples import Examples
from fedtrain.models.model import ModelWeights, PerExample
from fedtrain.privacy.paid_counts import CountsQuery, UnitRows, noised_counts
from fedtrain.rounds.evaluation import Evaluator
from fedtrain.rounds.runtime import client_seed

NOISED_METRIC = "accuracy"
Scores = Mapping[str, PerExample]


@dataclass(frozen=True, kw_only=True)
class ClientEvaluation:
    """What one client answers in an evaluation round.

    Attributes:
      evaluator: Of the model.
      metrics: Names of what is answered.
      query: How right and wrong answers are counted under noise; None for exact sums.
      by_entity: Whether the query's unit is an entity, of whose rows only some count.
    """

    evaluator: Evaluator
    metrics: tuple[str, ...]
    query: CountsQuery | None = None
    by_entity: bool = False

    def zeros(self) -> Scores:
        """The sum over no clients: float64 totals and counts by name."""
        return {name: PerExample(np.zeros([]), np.zeros([])) for name in self.metrics}

    @property
    def asked(self) -> dict[str, Any]:
        """All that is asked of a row, as plain values."""
        query = None if self.query is None else asdict(self.query)
        return {"metrics": self.metrics, "by_entity": self.by_entity, "query": query}

    def scores(
        self, weights: ModelWeights, examples: Examples, *, source: WordSource
    ) -> Scores:
        """One client's sums.

        Args:
          weights: The global ones.
          examples: The rows that the client keeps back.
          source: Of the noise; not read where sums are exact.
        """
        if self.query is None:
            return self.evaluator.sums(weights, examples)
        vectors = self.evaluator.counts(weights, examples, NOISED_METRIC)
        units = examples.entity_ids if self.by_entity and len(vectors) else None
        given = UnitRows([vectors], units, np.zeros(len(vectors), np.int64), 1)
        # Copies of an entity at other clients are other noises, each paid for.
        found = noised_counts(self.query, given, most_parties=1, source=source)
        right, wrong = found.sums
        return {NOISED_METRIC: PerExample(np.asarray(right), np.asarray(right + wrong))}

    def means(self, total: Scores) -> dict[str, float]:
        """What a sum over clients says; nothing where too few rows were counted."""
        means = {
            name: float(value.total) / float(value.count)
            for name, value in total.items()
            if float(value.count) >= 1.0
        }
        if self.query is None:
            return means
        return {name: min(max(value, 0.0), 1.0) for name, value in means.items()}


def simulated_scores(
    evaluation: ClientEvaluation,
    weights: ModelWeights,
    dataset: FederatedDataset,
    seed: seeds.Seed,
) -> Scores:
    """The sum over all clients of ``dataset``, as partners' answers are added up."""
    total = evaluation.zeros()
    for i in range(dataset.num_clients):
        source = simulated_source(seed, dataset.client_id(i))
        own = evaluation.scores(weights, dataset.client(i), source=source)
        total = tf.nest.map_structure(np.add, total, own)
    return total


def simulated_source(seed: seeds.Seed, client_id: str) -> KeyStream:
    """A simulated client's noise: repeatable, and so NOT A RELEASE."""
    own: Any = np.asarray(client_seed(seed, client_id), "<i4")
    return KeyStream(hashlib.sha256(own.tobytes()).digest(), "evaluation")
