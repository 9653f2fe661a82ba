"""The plan: all that a partner approves, as one JSON document with one hash.

Both sides hold the same bytes. What crosses the wire has the shapes that it declares,
the partner's own installation builds the round from its sections, and an approval is
an approval of its SHA-256: whoever changes a letter has another plan.
"""

import hashlib
import json
from typing import Annotated, Any, Literal, NotRequired, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)
from typing_extensions import TypedDict

from fedtrain.core.errors import WireError
from fedtrain.wire.arrays import ArraySpec

PROTOCOL_VERSION = 1
MOST_PLAN_BYTES = 1024 * 1024
_MOST_ARRAYS = 10_000
# Printable and on one line: a plan is shown in a terminal before anybody trusts it.
_PRINTABLE = r"^[^\p{C}\p{Zl}\p{Zp}]+$"

Line = Annotated[str, Field(max_length=200, pattern=_PRINTABLE)]
Name = Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Arrays = Annotated[tuple[ArraySpec, ...], Field(max_length=_MOST_ARRAYS)]
_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Task(TypedDict):
    """What is computed, in the words of a project file.

    ``sections`` are those of a ``federation.toml`` that define the round, ``schema``
    the one that every partner's rows are held to, ``model_sha256`` the hash of the file
    of a custom model, which itself never crosses the wire.
    """

    __pydantic_config__ = _STRICT  # type: ignore[misc] # pydantic reads it

    sections: dict[str, JsonValue]
    schema: dict[str, JsonValue]
    model_sha256: NotRequired[Sha256 | None]


class PlanPrivacy(BaseModel):
    """The guarantee of the whole run, for one unit of one partner's data.

    Attributes:
      unit: Whose privacy: one row, one entity, or all that a client holds.
      trust: Who adds the noise.
      neighboring_relation: What two data sets are that must look alike.
      delta: The probability at which ``epsilon`` may fail.
      epsilon: What all rounds and further attempts spend together, at most.
      further_attempts: How many attempts at rounds may be repeated within ``epsilon``.
      mechanism: Its name and all its parameters.
      accountant: Who computed ``epsilon``, by name and version.
      amplification: Why sampling lowers ``epsilon``; None claims nothing from it.
    """

    model_config = _STRICT

    unit: Literal["example", "entity", "client"]
    trust: Literal["local", "distributed", "central"]
    neighboring_relation: Literal["add_or_remove_one", "replace_one", "replace_special"]
    delta: Annotated[float, Field(gt=0, lt=1)]
    epsilon: Positive
    further_attempts: Annotated[int, Field(ge=0, lt=2**31)] = 0
    mechanism: dict[Name, JsonValue]
    accountant: Line
    amplification: Line | None = None


class Plan(BaseModel):
    """One run of a federation, from its task to what leaves a partner.

    Attributes:
      format: Version of this document.
      name: Of the run, for people.
      operator: Who runs the aggregator, for people.
      protocol_version: Of the messages on the wire.
      software: The fedtrain version that made the plan.
      task: What is computed.
      broadcast: What a partner receives in each round.
      contribution: What it sends back.
      evaluation: What it sends in an evaluation round; none without such rounds.
      num_rounds: Of the run.
      report_goal: How many contributions close a round at once.
      least_reports: How many a round needs at its deadline.
      deadline_s: Seconds from the opening of a round to its deadline.
      privacy: The guarantee; None says that there is none.
      simulation_seed: If present, all draws of all clients follow from it, and the run
        is a simulation: whoever has the plan can subtract the noise.
      secure_aggregation: Whether the aggregator sees only the sum.
      leaves: What leaves the partner, a line each.
    """

    model_config = _STRICT

    format: Literal[1] = 1
    name: Name
    operator: Line
    protocol_version: Count = PROTOCOL_VERSION
    software: Line
    task: Task
    broadcast: Arrays
    contribution: Arrays
    evaluation: Arrays = ()
    num_rounds: Count
    report_goal: Count
    least_reports: Count
    deadline_s: Positive
    privacy: PlanPrivacy | None
    simulation_seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    secure_aggregation: bool = False
    leaves: Annotated[tuple[Line, ...], Field(min_length=1, max_length=8)]

    @property
    def partners(self) -> frozenset[str]:
        """Who may take part: the clients that its sections name."""
        service: Any = self.task["sections"].get("service", {})
        return frozenset(service.get("clients", ()))

    @model_validator(mode="after")
    def _reports_fit(self) -> Self:
        if self.least_reports > self.report_goal:
            raise ValueError("least_reports is above report_goal")
        return self

    def canonical(self) -> bytes:
        """The one way to write this plan: sorted keys, no spaces, ASCII.

        Raises:
          WireError: If it is longer than 1 MiB, or a number in it is not finite.
        """
        content = self.model_dump(mode="json")
        for name in ("broadcast", "contribution", "evaluation"):
            content[name] = [_without_none(array) for array in content[name]]
        try:
            text = json.dumps(
                content, sort_keys=True, separators=(",", ":"), allow_nan=False
            )
        except (ValueError, RecursionError) as error:
            raise WireError(f"The plan cannot be written as JSON: {error}.") from error
        if len(text) > MOST_PLAN_BYTES:
            raise WireError(
                f"The plan takes {len(text)} bytes; {MOST_PLAN_BYTES} are allowed. "
                "A schema with fewer categories makes it shorter."
            )
        return text.encode("ascii")

    @property
    def sha256(self) -> str:
        """What a partner approves: 64 hexadecimal digits."""
        return hashlib.sha256(self.canonical()).hexdigest()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Plan":
        """The plan in ``data``, which is exactly as ``canonical`` writes it.

        Raises:
          WireError: If it is too long, no plan, or written in another way.
        """
        if len(data) > MOST_PLAN_BYTES:
            raise WireError(
                f"A plan of {len(data)} bytes was sent; {MOST_PLAN_BYTES} are allowed."
            )
        try:
            plan = cls.model_validate_json(data)
        except ValidationError as error:
            raise WireError(f"This is no plan: {_first_problem(error)}") from None
        if plan.canonical() != data:
            raise WireError(
                "The plan is not in canonical form, so its hash means nothing: it was "
                "edited, or written by other software. Ask the operator for it again."
            )
        return plan


def _without_none(array: dict[str, Any]) -> dict[str, Any]:
    """Plans without packed arrays are written as they were before there were any."""
    return {key: value for key, value in array.items() if value is not None}


def _first_problem(error: ValidationError) -> str:
    first: Any = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the document"
    more = error.error_count() - 1
    others = f" ({more} more problems)" if more else ""
    return ascii(where).strip("'")[:200] + f": {first['msg'][:300]}{others}."
