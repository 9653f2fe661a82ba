"""Which rows of a client each local step sees.

A batching gives row indices, int32 [steps, batch], with -1 where a place stays empty.
They are drawn on the host from the client's own seed, so every runtime trains on the
same batches in the same order.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fedtrain.core import seeds, validate
from fedtrain.core.errors import DataError
from fedtrain.data.examples import Examples

Indices = npt.NDArray[np.int32]


class Batching(Protocol):
    """Which rows of a client each local step sees."""

    def indices(self, examples: Examples, seed: seeds.Seed) -> Indices:
        """Row indices int32 [steps, batch]; -1 marks padding."""
        ...


@dataclass(frozen=True, kw_only=True)
class Epochs:
    """``local_epochs`` passes over all rows; the last batch of a pass may be smaller.

    Attributes:
      batch_size: Rows in a batch.
      local_epochs: Passes over the client's rows.
      shuffle: Whether each pass has its own random order.
      max_steps: Optional bound on the number of steps.
    """

    batch_size: int
    local_epochs: int = 1
    shuffle: bool = True
    max_steps: int | None = None

    def __post_init__(self) -> None:
        """Sizes are positive."""
        validate.positive_integer(
            batch_size=self.batch_size,
            local_epochs=self.local_epochs,
            max_steps=self.max_steps or 1,
        )

    def indices(self, examples: Examples, seed: seeds.Seed) -> Indices:
        """Row indices int32 [steps, batch]; -1 marks padding."""
        rows = examples.num_examples
        random = seeds.generator(seed)
        batch_size = min(self.batch_size, max(rows, 1))
        width = -(-rows // batch_size) * batch_size
        table = np.full([self.local_epochs, width], -1, np.int32)
        for epoch in range(self.local_epochs):
            table[epoch, :rows] = _order(rows, random, shuffle=self.shuffle)
        return table.reshape([-1, batch_size])[: self.max_steps]


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Exactly ``local_steps`` full batches, running through shuffled passes."""

    batch_size: int
    local_steps: int
    shuffle: bool = True

    def __post_init__(self) -> None:
        """Sizes are positive."""
        validate.positive_integer(
            batch_size=self.batch_size, local_steps=self.local_steps
        )

    def indices(self, examples: Examples, seed: seeds.Seed) -> Indices:
        """Row indices int32 [steps, batch]."""
        rows = examples.num_examples
        if rows == 0:
            return np.zeros([0, self.batch_size], np.int32)
        random = seeds.generator(seed)
        needed = self.batch_size * self.local_steps
        passes = [
            _order(rows, random, shuffle=self.shuffle)
            for _ in range(-(-needed // rows))
        ]
        return np.concatenate(passes)[:needed].reshape([-1, self.batch_size])


@dataclass(frozen=True, kw_only=True)
class Poisson:
    """Each step takes each row independently with probability ``sampling_rate``.

    An empty batch is still a step. The rate is a public constant: this is the sampling
    that privacy amplification by subsampling is proved for.
    """

    sampling_rate: float
    local_steps: int

    def __post_init__(self) -> None:
        """The rate is in (0, 1]."""
        validate.fraction(sampling_rate=self.sampling_rate)
        validate.positive_integer(local_steps=self.local_steps)

    def indices(self, examples: Examples, seed: seeds.Seed) -> Indices:
        """Row indices int32 [steps, largest batch]; -1 marks padding."""
        random = seeds.generator(seed)
        taken = random.random([self.local_steps, examples.num_examples])
        chosen = [np.flatnonzero(row < self.sampling_rate) for row in taken]
        return padded(chosen)


@dataclass(frozen=True, kw_only=True)
class PoissonEntities:
    """Poisson sampling of entities, each with at most ``max_rows_per_entity`` rows.

    Each entity owns ``max_rows_per_entity`` neighbouring places of a batch, so the
    gradients of its rows can be summed before they are clipped. Of an entity with more
    rows, that many are drawn afresh for each step.
    """

    sampling_rate: float
    local_steps: int
    max_rows_per_entity: int

    def __post_init__(self) -> None:
        """The rate is in (0, 1]; sizes are positive."""
        validate.fraction(sampling_rate=self.sampling_rate)
        validate.positive_integer(
            local_steps=self.local_steps, max_rows_per_entity=self.max_rows_per_entity
        )

    def indices(self, examples: Examples, seed: seeds.Seed) -> Indices:
        """Row indices int32 [steps, entities * max_rows_per_entity]; -1 is padding."""
        if examples.entity_ids is None:
            raise DataError(
                "Entity-level sampling needs entity_ids, but this client's rows have "
                "none; name the column that identifies a customer or patient."
            )
        random = seeds.generator(seed)
        ids = np.asarray(examples.entity_ids)
        entities = [np.flatnonzero(ids == entity) for entity in np.unique(ids)]
        taken = random.random([self.local_steps, len(entities)])
        steps = [
            np.concatenate(
                [np.zeros(0, np.int32)]
                + [self._rows(entities[i], random) for i in np.flatnonzero(row)]
            )
            for row in taken < self.sampling_rate
        ]
        return padded(steps)

    def _rows(self, rows: Any, random: np.random.Generator) -> Indices:
        bound = self.max_rows_per_entity
        if len(rows) > bound:
            rows = random.choice(rows, bound, replace=False)
        places = np.full(bound, -1, np.int32)
        places[: len(rows)] = rows
        return places


def padded(steps: list[Any]) -> Indices:
    """Row lists of unequal length as one table; -1 marks padding; at least one wide."""
    width = max([len(rows) for rows in steps] + [1])
    table = np.full([len(steps), width], -1, np.int32)
    for step, rows in enumerate(steps):
        table[step, : len(rows)] = rows
    return table


def _order(rows: int, random: np.random.Generator, *, shuffle: bool) -> Any:
    return random.permutation(rows) if shuffle else np.arange(rows)
