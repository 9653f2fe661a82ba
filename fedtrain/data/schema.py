"""What the columns of a table hold: the one description that every client is held to.

A schema is inferred once or written by hand, kept as JSON beside the data, and used to
check and to encode rows. What it says about values (a range, the categories, mean and
standard deviation) is itself learned from data, so each such fact carries its source.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from fedtrain.core.errors import DataError, PrivacyError
from fedtrain.core.files import write_atomically

Source = Literal["inferred", "declared", "public", "paid"]
Kind = Literal["number", "category", "array"]
Encoding = Literal["standardise", "min_max", "one_hot", "index", "keep"]
_FACT_OF: Mapping[str, str] = {
    "standardise": "moments",
    "min_max": "range",
    "one_hot": "categories",
    "index": "categories",
}


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Range(_Value):
    """The least and the greatest value of a number, both allowed.

    Attributes:
      minimum: The least.
      maximum: The greatest.
      source: Where it is known from.
    """

    minimum: float
    maximum: float
    source: Source


class Categories(_Value):
    """All values of a category, as texts, in the order of their codes.

    Attributes:
      values: A whole number is written without a decimal point.
      source: Where they are known from.
    """

    values: tuple[str, ...]
    source: Source


class Moments(_Value):
    """Mean and standard deviation of a number.

    Attributes:
      mean: The mean.
      stddev: Above 0.
      source: Where they are known from.
    """

    mean: float
    stddev: float
    source: Source


class Missing(_Value):
    """Whether a value may be missing; a column that allows it gets an indicator.

    Attributes:
      allowed: False refuses rows without a value.
      source: Where it is known from.
    """

    allowed: bool
    source: Source


class Column(_Value):
    """One column.

    Attributes:
      name: Its name in the table.
      kind: ``"number"``, ``"category"``, or ``"array"``: numbers of a fixed shape.
      encoding: How it becomes features: ``"standardise"`` uses the moments,
        ``"min_max"`` the range, ``"one_hot"`` and ``"index"`` (labels) the categories;
        ``"keep"`` takes numbers as they are.
      whole: Whether only whole numbers are allowed.
      shape: Of one row of an array.
      missing: Whether values may be missing.
      range: Of a number or an array.
      categories: Of a category.
      moments: Of a number.
    """

    name: str
    kind: Kind
    encoding: Encoding = "keep"
    whole: bool = False
    shape: tuple[int, ...] = ()
    missing: Missing = Missing(allowed=False, source="declared")
    range: Range | None = None
    categories: Categories | None = None
    moments: Moments | None = None

    def model_post_init(self, context: Any) -> None:
        """The encoding has the fact that it uses."""
        del context
        fact = _FACT_OF.get(self.encoding)
        if fact is not None and getattr(self, fact) is None:
            raise ValueError(f"encoding {self.encoding!r} needs {fact!r}")

    def inferred_facts(self) -> tuple[str, ...]:
        """Facts that the encoding uses and that were inferred from the data."""
        used = {"missing"} if self.missing.allowed else set()
        used |= {_FACT_OF[self.encoding]} if self.encoding in _FACT_OF else set()
        inferred = {name for name in used if getattr(self, name).source == "inferred"}
        return tuple(sorted(inferred))

    def with_source(self, source: Source) -> "Column":
        """The same column with ``source`` on all of its facts."""
        names = ("missing", "range", "categories", "moments")
        facts = {name: getattr(self, name) for name in names}
        marked = {
            name: fact.model_copy(update={"source": source})
            for name, fact in facts.items()
            if fact is not None
        }
        return self.model_copy(update=marked)


class Schema(_Value):
    """What the columns of a table hold.

    Attributes:
      version: Of this format.
      features: The columns a model sees, in order.
      label: The column it predicts.
      client: The column with the id of a row's client.
      entity: The column that identifies a customer or patient.
      weight: The column with a row's weight, a number of at least 0.
    """

    version: Literal[1] = 1
    features: tuple[Column, ...]
    label: Column
    client: str | None = None
    entity: str | None = None
    weight: str | None = None

    def model_post_init(self, context: Any) -> None:
        """There is nothing to learn from a row without a label."""
        del context
        if self.label.missing.allowed:
            raise ValueError("a label cannot be missing: set its allowed to false")

    @property
    def columns(self) -> tuple[Column, ...]:
        """Features, then the label."""
        return (*self.features, self.label)

    @property
    def num_classes(self) -> int | None:
        """Number of labels of a classification; None for a number."""
        categories = self.label.categories
        return None if categories is None else len(categories.values)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels' own names, by code; empty for a number."""
        categories = self.label.categories
        return () if categories is None else categories.values

    @property
    def hash(self) -> str:
        """SHA-256 of the schema's canonical JSON, in hexadecimal."""
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return self.model_dump(mode="json", exclude_none=True)

    def save(self, path: str | Path) -> None:
        """Writes the schema as JSON."""
        content = json.dumps(self.as_dict(), indent=2, ensure_ascii=False)
        write_atomically(Path(path), content + "\n")

    def with_source(self, source: Source) -> "Schema":
        """The same schema with ``source`` on all facts: you vouch for what it says."""
        return self.model_copy(
            update={
                "features": tuple(c.with_source(source) for c in self.features),
                "label": self.label.with_source(source),
            }
        )

    def require_declared(self) -> None:
        """Refuses facts that were inferred from private data and shape the features.

        Raises:
          PrivacyError: Listing the columns and their facts.
        """
        inferred = {c.name: c.inferred_facts() for c in self.columns}
        named = [f"{c} ({', '.join(facts)})" for c, facts in inferred.items() if facts]
        if named:
            raise PrivacyError(
                "Training with differential privacy on private data would use facts "
                f"that were inferred from that data: {'; '.join(named)}. Write values "
                "that you know without looking at the data into a schema file, with "
                'source "declared", or infer them from a public file, with source '
                '"public". `fedtrain data describe federation.toml --schema '
                "schema.json` writes the file to edit; [data] schema_path = "
                '"schema.json" uses it.'
            )


def load_schema(path: str | Path) -> Schema:
    """The schema in the JSON file ``path``.

    Raises:
      DataError: Naming the file, the key, the value and what is allowed.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"The schema {path} cannot be read: {error}.") from error
    return parsed(text, where=str(path))


def parsed(content: str | Mapping[str, Any], *, where: str) -> Schema:
    """The schema in JSON text or plain values; ``where`` names it in an error."""
    text = content if isinstance(content, str) else json.dumps(content)
    try:
        return Schema.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise DataError(
            f"{where}: key {key!r} has value {first['input']!r}: {first['msg']}."
        ) from error
