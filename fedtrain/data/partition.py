"""Dividing the rows of one data set over clients, for simulations.

A partition gives every row the number of its client, so each row lands exactly once.

Sources: see ``label_skew``.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedtrain.core import seeds, validate
from fedtrain.core.errors import ConfigError, DataError
from fedtrain.data import label_skew
from fedtrain.data.dataset import FederatedDataset, Sensitivity
from fedtrain.data.examples import Examples
from fedtrain.data.label_skew import Assignment

_ATTEMPTS = 1000


class Partition(NamedTuple):
    """How rows are divided over clients.

    Attributes:
      assign: ``assign(examples, seed)`` -> int64 [rows]: the client number of each row,
        and the clients' names by number (None: numbered names).
      description: For reports, with its parameters.
      column: The named column that it divides by; None for others.
      num_bands: Of that column.
    """

    assign: Callable[
        [Examples, seeds.Seed], tuple[Assignment, npt.NDArray[np.str_] | None]
    ]
    description: str
    column: str | None = None
    num_bands: int | None = None


def partitioned(
    examples: Examples,
    partition: Partition,
    *,
    seed: seeds.Seed | int,
    sensitivity: Sensitivity = "private",
    name: str = "dataset",
) -> FederatedDataset:
    """Divides ``examples`` over clients: every row goes to exactly one of them.

    Args:
      examples: All rows.
      partition: Such as ``dirichlet(num_clients=20, concentration=0.5)``.
      seed: An integer or an int32 [2] seed; the same seed gives the same clients.
      sensitivity: ``"public"`` or ``"private"``.
      name: For messages and reports.
    """
    assignment, names = partition.assign(examples, host_seed(seed))
    info = {"partition": partition.description}
    federated = grouped(examples, assignment, names=names, name=name, info=info)
    return replace(federated, sensitivity=sensitivity)


def grouped(
    examples: Examples,
    assignment: Assignment,
    *,
    names: npt.NDArray[np.str_] | None = None,
    name: str = "dataset",
    info: Mapping[str, Any] | None = None,
) -> FederatedDataset:
    """A private data set whose row ``i`` belongs to client ``assignment[i]``.

    Rows of one client keep their order. ``names`` may name clients without rows.
    """
    num_clients = len(names) if names is not None else int(assignment.max()) + 1
    sizes = np.bincount(assignment, minlength=num_clients)
    return FederatedDataset(
        examples=examples.take(np.argsort(assignment, kind="stable")),
        offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        client_ids=(_numbered(num_clients) if names is None else names).tolist(),
        name=name,
        info=dict(info or {}),
    )


def iid(*, num_clients: int) -> Partition:
    """Rows at random, in equal numbers (they differ by at most one)."""
    validate.positive_integer(num_clients=num_clients)

    def assign(examples: Examples, seed: seeds.Seed) -> Any:
        rows = _enough_rows(examples, num_clients, 1)
        return seeds.generator(seed).permutation(rows) % num_clients, None

    return Partition(assign, f"iid(num_clients={num_clients})")


def dirichlet(
    *,
    num_clients: int,
    concentration: float,
    min_rows: int = 10,
    equal_sizes: bool = False,
) -> Partition:
    """Label skew: proportions drawn from a Dirichlet distribution.

    Args:
      num_clients: Number of clients.
      concentration: Small means strong skew; 0.5 is the literature's usual choice.
      min_rows: Drawn again until every client has this many rows.
      equal_sizes: False: each label's rows are divided in proportions drawn over
        clients, a client with its even share already getting no more (Li et al., 2022).
        True: each client draws its own label proportions around the overall ones, and
        all clients have equally many rows (Hsu et al., 2019).
    """
    validate.positive_integer(num_clients=num_clients)
    validate.positive(concentration=concentration)
    validate.non_negative(min_rows=min_rows)
    draw = label_skew.labels_by_client if equal_sizes else label_skew.clients_by_label

    def assign(examples: Examples, seed: seeds.Seed) -> Any:
        _enough_rows(examples, num_clients, min_rows)
        labels = label_numbers(examples)
        random = seeds.generator(seed)
        return _until_enough(
            lambda: draw(labels, num_clients, concentration, random),
            num_clients,
            min_rows,
        ), None

    return Partition(
        assign,
        f"dirichlet(num_clients={num_clients}, concentration={concentration}, "
        f"min_rows={min_rows}, equal_sizes={equal_sizes})",
    )


def labels_per_client(*, num_clients: int, num_labels: int) -> Partition:
    """Each client holds ``num_labels`` labels; a label's owners share its rows evenly.

    Every label has an owner (Li et al., 2022, quantity-based label imbalance).
    """
    validate.positive_integer(num_clients=num_clients, num_labels=num_labels)

    def assign(examples: Examples, seed: seeds.Seed) -> Any:
        assignment = label_skew.labels_by_owner(
            label_numbers(examples), num_clients, num_labels, seeds.generator(seed)
        )
        return assignment, _numbered(num_clients)

    return Partition(
        assign,
        f"labels_per_client(num_clients={num_clients}, num_labels={num_labels})",
    )


def quantity_skew(
    *, num_clients: int, concentration: float, min_rows: int = 1
) -> Partition:
    """Rows at random, in numbers drawn from a Dirichlet distribution."""
    validate.positive_integer(num_clients=num_clients)
    validate.positive(concentration=concentration)
    validate.non_negative(min_rows=min_rows)

    def assign(examples: Examples, seed: seeds.Seed) -> Any:
        rows = _enough_rows(examples, num_clients, min_rows)
        random = seeds.generator(seed)
        spare = rows - num_clients * min_rows
        shares = random.dirichlet(np.full(num_clients, concentration))
        cuts = np.floor(np.cumsum(shares) * spare + 0.5).astype(np.int64)
        sizes = np.diff(cuts[:-1], prepend=0, append=spare) + min_rows
        numbers = np.repeat(np.arange(num_clients), sizes)
        return random.permutation(numbers), _numbered(num_clients)

    return Partition(
        assign,
        f"quantity_skew(num_clients={num_clients}, concentration={concentration}, "
        f"min_rows={min_rows})",
    )


def by_column(
    column: str | int | npt.ArrayLike, *, num_bands: int | None = None
) -> Partition:
    """One client for each value of a column, or for each band of a numeric one.

    Args:
      column: Name of an input (dict features), index of a feature of float vectors, or
        the values themselves, one for each row.
      num_bands: Cuts a numeric column at its quantiles into that many bands.
    """
    if num_bands is not None:
        validate.positive_integer(num_bands=num_bands)

    def assign(examples: Examples, seed: seeds.Seed) -> Any:
        del seed
        values = _column_values(examples, column)
        if num_bands is not None:
            inner = np.linspace(0, 1, num_bands + 1)[1:-1]
            values = np.digitize(values, np.unique(np.quantile(values, inner)))
        keys, assignment = np.unique(values, return_inverse=True)
        return assignment.reshape(-1), np.array([str(key) for key in keys])

    label = column if isinstance(column, str | int) else "values"
    return Partition(
        assign,
        f"by_column({label!r}, num_bands={num_bands})",
        column if isinstance(column, str) else None,
        num_bands,
    )


def natural(client_ids: npt.ArrayLike) -> Partition:
    """The clients that the data itself names, one id for each row."""
    return by_column(np.asarray(client_ids).astype(str))._replace(description="natural")


PARTITIONS: Mapping[str, Callable[..., Partition]] = {
    "iid": iid,
    "dirichlet": dirichlet,
    "labels_per_client": labels_per_client,
    "quantity_skew": quantity_skew,
    "by_column": by_column,
}


def named(name: str, **options: Any) -> Partition:
    """The partition called ``name`` in a project file, with its options."""
    validate.one_of(PARTITIONS, partition=name)
    try:
        return PARTITIONS[name](**options)
    except TypeError as error:
        raise ConfigError(f"partition {name!r}: {error}.") from error


def host_seed(seed: seeds.Seed | int) -> seeds.Seed:
    """A user's integer as a seed; a seed as it is."""
    return seeds.root(seed) if isinstance(seed, int) else seed


def label_numbers(examples: Examples) -> npt.NDArray[np.int64]:
    """Each row's label as a number from 0, in the order of the labels' values."""
    labels = np.asarray(examples.labels)
    if labels.ndim != 1:
        raise DataError(
            f"Label skew needs one label for each row, but labels has shape "
            f"{labels.shape}; use iid(...) or quantity_skew(...)."
        )
    return np.unique(labels, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _until_enough(
    draw: Callable[[], Assignment], num_clients: int, min_rows: int
) -> Assignment:
    for _ in range(_ATTEMPTS):
        assignment = draw()
        if np.bincount(assignment, minlength=num_clients).min() >= min_rows:
            return assignment
    raise ConfigError(
        f"No draw in {_ATTEMPTS} gave each of {num_clients} clients at least "
        f"min_rows={min_rows} rows; use fewer clients, a larger concentration or a "
        "smaller min_rows."
    )


def _column_values(examples: Examples, column: Any) -> npt.NDArray[Any]:
    if isinstance(column, str):
        if not isinstance(examples.features, dict) or column not in examples.features:
            raise ConfigError(f"by_column: features have no input named {column!r}.")
        return np.asarray(examples.features[column]).reshape(-1)
    if isinstance(column, int):
        return np.asarray(examples.features)[:, column]
    values = np.asarray(column)
    if len(values) != examples.num_examples:
        raise DataError(
            f"by_column got {len(values)} values for {examples.num_examples} rows."
        )
    return values


def _enough_rows(examples: Examples, num_clients: int, min_rows: int) -> int:
    rows = examples.num_examples
    if rows < num_clients * max(min_rows, 1):
        raise ConfigError(
            f"{rows} rows cannot give {num_clients} clients {max(min_rows, 1)} or more "
            "each; use fewer clients or a smaller min_rows."
        )
    return rows


def _numbered(num_clients: int) -> Any:
    width = max(3, len(str(num_clients - 1)))
    return np.array([f"client_{i:0{width}d}" for i in range(num_clients)])
