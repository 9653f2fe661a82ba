"""The named data sets: which there are, and the one way to load them."""

import importlib
import inspect
from typing import Any, NamedTuple

from fedtrain.core import seeds, validate
from fedtrain.core.errors import ConfigError
from fedtrain.data.partition import Partition, host_seed
from fedtrain.data.sets.split import DataSplit


class SetInfo(NamedTuple):
    """What a list of data sets shows.

    Attributes:
      title: One line.
      clients: Who the clients are.
      needs_files: Whether files are read from ``FEDTRAIN_DATA_DIR``.
    """

    title: str
    clients: str
    needs_files: bool


SETS = {
    "adult": SetInfo("Census income (UCI)", "occupations, or a partition", True),
    "breast_cancer": SetInfo(
        "Breast cancer, Wisconsin (scikit-learn)", "Dirichlet label skew", False
    ),
    "credit_default": SetInfo(
        "Default of credit card clients (UCI)", "FATE's three parties, or skew", True
    ),
    "digits": SetInfo(
        "Handwritten digits 8 x 8 (scikit-learn)", "Dirichlet label skew", False
    ),
    "heart_disease": SetInfo(
        "Heart disease (UCI, as in FLamby)", "four hospitals", True
    ),
    "mnist": SetInfo("MNIST digits 28 x 28", "539 writers, or a partition", True),
    "shakespeare": SetInfo("Shakespeare, next character", "715 roles", True),
}


def names() -> tuple[str, ...]:
    """The names that ``load`` knows."""
    return tuple(sorted(SETS))


def load(
    name: str,
    *,
    seed: seeds.Seed | int,
    partition: Partition | None = None,
    **options: Any,
) -> DataSplit:
    """The data set called ``name``.

    Args:
      name: One of ``names()``.
      seed: An integer or an int32 [2] seed. It draws the partition; which rows are
        held out does not depend on it.
      partition: How rows are divided over clients, instead of the set's own way.
      **options: The set's own options, such as ``num_clients``.

    Raises:
      ConfigError: If the name or an option is unknown.
      DataError: If files are needed and absent: says which, and where to get them.
    """
    validate.one_of(SETS, name=name)
    loader = importlib.import_module(f"fedtrain.data.sets.{name}").load
    _check_options(name, loader, options)
    own_seed = seeds.derive(host_seed(seed), "data", name)
    return loader(seed=own_seed, partition=partition, **options)


def _check_options(name: str, loader: Any, options: dict[str, Any]) -> None:
    allowed = sorted(set(inspect.signature(loader).parameters) - {"seed", "partition"})
    for option, value in options.items():
        if option not in allowed:
            raise ConfigError(
                f"Data set {name!r} has no option {option!r} (got {value!r}); it has: "
                f"{', '.join(allowed) or 'none'}."
            )
