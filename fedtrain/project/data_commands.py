"""What ``fedtrain data`` does: list, describe and pack data sets."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedtrain.core.errors import ConfigError
from fedtrain.data.describe import describe
from fedtrain.data.packed import pack
from fedtrain.data.sets import SETS
from fedtrain.data.sets.split import DataSplit
from fedtrain.data.tabular import schema_of
from fedtrain.project.build_data import split_of
from fedtrain.project.problems import closest, listed
from fedtrain.project.read import checked_config, overridden, read_config


def named_sets() -> list[dict[str, str]]:
    """The named data sets, one row for each."""
    return [
        {
            "name": name,
            "what": info.title,
            "clients": info.clients,
            "files": "FEDTRAIN_DATA_DIR" if info.needs_files else "none",
        }
        for name, info in sorted(SETS.items())
    ]


def describe_data(
    source: str, settings: Sequence[str] = (), *, schema_path: Path | None = None
) -> dict[str, Any]:
    """The training rows of ``source`` in numbers, which are exact: for local eyes.

    Args:
      source: A named set, a project file, or a file of rows.
      settings: Keys of ``[data]``, such as ``"label=outcome"``.
      schema_path: Where to write the schema, to be read, corrected and declared.
    """
    split = source_split(source, settings, allow_missing=True)
    described = describe(split.train, label_names=split.label_names)
    if schema_path is not None:
        schema = schema_of(split.train)
        if schema is None:
            raise ConfigError(
                f"{source} has no schema to write: its features are no named columns."
            )
        schema.save(schema_path)
    return described.as_dict() | {
        "summary": described.summary(),
        "test_rows": split.test.num_examples,
        "source": split.source,
    }


def pack_data(
    source: str, folder: str | Path, settings: Sequence[str] = ()
) -> dict[str, Any]:
    """Packs the training rows of ``source`` into ``folder``.

    Args:
      source: A named set, a project file, or a file of rows.
      folder: Must not be there yet.
      settings: Keys of ``[data]``, such as ``"label=outcome"``.
    """
    packed = pack(source_split(source, settings).train, folder)
    return {
        "folder": str(folder),
        "name": packed.name,
        "num_clients": packed.num_clients,
        "num_examples": packed.examples.num_examples,
        "sensitivity": packed.sensitivity,
    }


def source_split(
    source: str, settings: Sequence[str], *, allow_missing: bool = False
) -> DataSplit:
    """The data of a project file, of a named set, or of a file of rows.

    Args:
      source: As in ``describe_data``.
      settings: Keys of ``[data]``.
      allow_missing: Whether a schema that is inferred lets values be missing.
    """
    if source.endswith(".toml"):
        overrides = [f"data.{setting}" for setting in settings]
        config = read_config(source, overrides)
        # Nothing is trained: inferred facts break no promise, and are what is asked.
        looked_at = config.model_copy(update={"privacy": None})
        return split_of(
            looked_at, folder=Path(source).parent, allow_missing=allow_missing
        )
    _check_is_something(source)
    given = {"name": source} if source in SETS else {"path": source}
    tables = {
        "name": "data",
        "seed": 1,
        "data": overridden(given, settings),
        "model": {"name": "dense_classifier"},
        "rounds": {"num_rounds": 1},
        "client": {"learning_rate": 1.0, "batch_size": 1, "local_epochs": 1},
    }
    config = checked_config(tables, file=f"[data] of {source}")
    return split_of(config, folder=Path(), allow_missing=allow_missing)


def _check_is_something(source: str) -> None:
    is_word = Path(source).name == source and not Path(source).suffix
    if source not in SETS and is_word and not Path(source).exists():
        raise ConfigError(
            f"{source!r} is no named set, file or packed folder."
            f"{closest(source, SETS)} The named sets are {listed(SETS)}."
        )
