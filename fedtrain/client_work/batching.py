"""Which rows of a client each local step sees.

A batching gives row indices, int32 [steps, batch], with -1 where a place stays empty.
They are drawn on the host from the client's own seed, so every runtime trains on the
same batches in the same order. ``batch_tables`` draws those of many clients in one go;
each client's are the same as by itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fedtrain.core import seeds, validate
from fedtrain.core.errors import DataError
from fedtrain.data.examples import Examples

Indices = npt.NDArray[np.int32]
Integers = npt.NDArray[np.int64]


class Tables(NamedTuple):
    """The batches of several clients, one client's below another's.

    Attributes:
      rows: int32 [steps of all clients, widest batch]: numbers of the client's own
        rows; -1 marks padding, which also fills the narrower batches on their right.
      num_steps: int64 [clients]: how many steps, so how many of ``rows``, each makes.
    """

    rows: Indices
    num_steps: Integers

    def first_steps(self) -> Integers:
        """Where in ``rows`` each client's steps start."""
        return np.cumsum(self.num_steps) - self.num_steps


class Batching(Protocol):
    """Which rows of a client each local step sees.

    One that looks at nothing but numbers of rows may also have
    ``tables(sizes, client_seeds)`` -> ``Tables``, which draws many clients at once.
    """

    def indices(self, examples: Examples, seed: seeds.Seed) -> Indices:
        """Row indices int32 [steps, batch]; -1 marks padding."""
        ...


def batch_tables(
    batching: Batching, clients: Sequence[Examples], client_seeds: seeds.HostSeeds
) -> Tables:
    """The batches of many clients.

    Args:
      batching: How they are drawn.
      clients: Each client's rows.
      client_seeds: One seed for each client, int32 [clients, 2].

    Guarantees:
      Client ``i``'s part is ``batching.indices(clients[i], client_seeds[i])``, padded
      to the widest batch of all.
    """
    at_once = getattr(batching, "tables", None)
    if at_once is not None:
        tables: Tables = at_once([rows.num_examples for rows in clients], client_seeds)
        return tables
    pairs = zip(clients, client_seeds, strict=True)
    return _stacked([batching.indices(rows, seed) for rows, seed in pairs])


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
        return self.tables([examples.num_examples], np.asarray(seed)[np.newaxis]).rows

    def tables(self, sizes: Sequence[int], client_seeds: seeds.HostSeeds) -> Tables:
        """The batches of clients that have ``sizes`` rows."""
        rows, batch = np.asarray(sizes, np.int64), self.batch_size
        per_pass = -(-rows // batch)
        num_steps = self.local_epochs * per_pass
        if self.max_steps is not None:
            num_steps = np.minimum(num_steps, self.max_steps)
        tables = _empty(num_steps, min(batch, rows.max(initial=1)))
        passes = _Passes(rows, np.full(len(rows), self.local_epochs), batch)
        for group, order in passes.orders(client_seeds, shuffle=self.shuffle):
            batches = order.reshape([*order.shape[:2], -1, batch])
            client, step = _counted(num_steps[group])
            own = per_pass[group][client]
            chosen = batches[client, step // own, step % own]
            places = tables.first_steps()[group][client] + step
            tables.rows[places] = chosen[:, : tables.rows.shape[1]]
        return tables


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
        return self.tables([examples.num_examples], np.asarray(seed)[np.newaxis]).rows

    def tables(self, sizes: Sequence[int], client_seeds: seeds.HostSeeds) -> Tables:
        """The batches of clients that have ``sizes`` rows."""
        rows = np.asarray(sizes, np.int64)
        tables = _empty(np.where(rows > 0, self.local_steps, 0), self.batch_size)
        needed = self.batch_size * self.local_steps
        passes = _Passes(rows, -(-needed // np.maximum(rows, 1)), 1)
        for group, order in passes.orders(client_seeds, shuffle=self.shuffle):
            pass_, place = np.divmod(np.arange(needed), rows[group][:, np.newaxis])
            chosen = order[np.arange(len(group))[:, np.newaxis], pass_, place]
            places = tables.first_steps()[group][:, np.newaxis]
            tables.rows[places + np.arange(self.local_steps)] = chosen.reshape(
                [len(group), self.local_steps, self.batch_size]
            )
        return tables


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
        return self.tables([examples.num_examples], np.asarray(seed)[np.newaxis]).rows

    def tables(self, sizes: Sequence[int], client_seeds: seeds.HostSeeds) -> Tables:
        """The batches of clients that have ``sizes`` rows."""
        own = zip(sizes, seeds.generators(client_seeds), strict=True)
        # 53 bits for each row and step: the rate is kept to 1e-16.
        taken = [
            random.random(self.local_steps * size) < self.sampling_rate
            for size, random in own
        ]
        drawn = np.concatenate(taken) if taken else np.zeros(0, np.bool_)
        lengths = np.repeat(np.asarray(sizes, np.int64), self.local_steps)
        num_steps = np.full(len(sizes), self.local_steps, np.int64)
        return Tables(_rows_of_steps(drawn, lengths), num_steps)

    def drawn_by(self, random: Any, examples: Examples) -> Indices:
        """What ``indices`` gives, from a numpy generator or what resembles one."""
        shape = (self.local_steps, examples.num_examples)
        taken = random.random(shape) < self.sampling_rate
        return padded([np.flatnonzero(row) for row in taken])


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
        return self.drawn_by(seeds.generator(seed), examples)

    def drawn_by(self, random: Any, examples: Examples) -> Indices:
        """What ``indices`` gives, from a numpy generator or what resembles one."""
        if examples.entity_ids is None:
            raise DataError(
                "Entity-level sampling needs entity_ids, but this client's rows have "
                "none; name the column that identifies a customer or patient."
            )
        ids = np.asarray(examples.entity_ids)
        by_entity = np.argsort(ids, kind="stable")
        first = np.flatnonzero(np.diff(ids[by_entity])) + 1
        entities = np.split(by_entity, first) if len(ids) else []
        taken = random.random([self.local_steps, len(entities)])
        steps = [
            np.concatenate(
                [np.zeros(0, np.int32)]
                + [self._rows(entities[i], random) for i in np.flatnonzero(row)]
            )
            for row in taken < self.sampling_rate
        ]
        return padded(steps)

    def _rows(self, rows: Any, random: Any) -> Indices:
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


def _stacked(tables: Sequence[Indices]) -> Tables:
    num_steps = np.array([len(table) for table in tables], np.int64)
    width = max([table.shape[1] for table in tables] + [1])
    stacked = _empty(num_steps, width)
    stops = np.cumsum(num_steps)
    for table, start, stop in zip(tables, stops - num_steps, stops, strict=True):
        stacked.rows[start:stop, : table.shape[1]] = table
    return stacked


def _empty(num_steps: Integers, width: int) -> Tables:
    return Tables(np.full([num_steps.sum(), max(width, 1)], -1, np.int32), num_steps)


def _counted(num: Integers) -> tuple[Integers, Integers]:
    """For num = [2, 3]: the owners [0, 0, 1, 1, 1] and their counts [0, 1, 0, 1, 2]."""
    owner = np.repeat(np.arange(len(num)), num)
    return owner, np.arange(len(owner)) - np.repeat(np.cumsum(num) - num, num)


class _Passes(NamedTuple):
    """Passes over clients' rows.

    Attributes:
      sizes: Each client's rows.
      num: How many passes each makes.
      multiple: What the length of an order is a multiple of.
    """

    sizes: Integers
    num: Integers
    multiple: int

    def orders(
        self, client_seeds: seeds.HostSeeds, *, shuffle: bool
    ) -> Iterator[tuple[Integers, Indices]]:
        """For clients of similar size: which they are, and int32 [they, passes, rows].

        Behind a client's rows there is -1, so clients are grouped by powers of two.
        """
        words, first = seeds.words(client_seeds, self.sizes * self.num * int(shuffle))
        kinds = np.ceil(np.log2(np.maximum(self.sizes, 1)))
        for kind in np.unique(kinds[self.sizes > 0]):
            group = np.flatnonzero((kinds == kind) & (self.sizes > 0))
            size, num = self.sizes[group][:, np.newaxis, np.newaxis], self.num[group]
            row = np.arange(-(-size.max() // self.multiple) * self.multiple)
            if not shuffle:
                order = np.where(row < size, row, -1)
                yield group, np.repeat(order.astype(np.int32), num.max(), axis=1)
                continue
            pass_ = np.arange(num.max())[:, np.newaxis]
            places = first[group][:, np.newaxis, np.newaxis] + pass_ * size + row
            drawn = words[np.minimum(places, len(words) - 1)]
            yield group, _sorted_by(drawn, row, row < size)


def _sorted_by(words: Any, row: Integers, real: Any) -> Indices:
    """Rows in the order of 32-bit ``words``, then -1 for those that are not ``real``.

    Of equal words the first row comes first: in 1,000 rows two are equal with a chance
    of 1e-4.
    """
    joined = words.astype(np.uint64) << np.uint64(32) | row.astype(np.uint64)
    if not real.all():
        joined = np.where(real, joined, np.uint64(2**64 - 1))
    joined.sort(axis=-1)
    # The low half of what is all ones is -1.
    return joined.astype(np.uint32).view(np.int32)


def _rows_of_steps(drawn: npt.NDArray[np.bool_], lengths: Integers) -> Indices:
    """Which of each step's rows were drawn, from bools [rows of all steps]."""
    places = np.flatnonzero(drawn)
    stops = np.cumsum(lengths)
    step = np.searchsorted(stops, places, side="right")
    counts = np.bincount(step, minlength=len(lengths))
    column = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
    table = np.full([len(lengths), max(counts.max(initial=0), 1)], -1, np.int32)
    table[step, column] = places - (stops - lengths)[step]
    return table
