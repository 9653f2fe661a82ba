"""A plan in plain English, on one screen: what a partner reads before approving it."""

import itertools
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedtrain.wire.arrays import ArraySpec, num_bytes
from fedtrain.wire.plan import Plan, PlanPrivacy

_WIDTH = 88
_MOST_COLUMNS = 8
_MOST_FACTS = 16
_LONGEST_FACT = 120
_UNITS = {
    "example": "one row",
    "entity": "all rows of one entity (customer or patient)",
    "client": "everything that one partner holds",
}
_RELATIONS = {
    "add_or_remove_one": "adding or removing one",
    "replace_one": "replacing one",
    "replace_special": "replacing one by an empty one",
}
_TRUST = {
    "local": "Your own machine adds all the noise before anything leaves it; nobody "
    "else need be trusted.",
    "distributed": "Your machine adds a share of the noise; what the operator sees is "
    "the noised sum, as long as enough partners are honest.",
    "central": "THE OPERATOR RECEIVES EXACT CONTRIBUTIONS and adds the noise to their "
    "sum: it must be trusted.",
}


def in_words(plan: Plan) -> str:
    """What ``plan`` computes, what leaves, to whom, and what is promised about it."""
    blocks = (
        ("Computes", _computation(plan)),
        ("Reads", _columns(plan.task["schema"])),
        ("Leaves", (*plan.leaves, _amounts(plan), "Rows never leave your machine.")),
        ("To whom", (_receiver(plan),)),
        ("Privacy", tuple(_promise(plan))),
        ("Rounds", (_waiting(plan),)),
    )
    lines = [f"Plan {plan.name} of {plan.operator}", f"SHA-256 {plan.sha256}", ""]
    for title, paragraphs in blocks:
        lines += _block(title, paragraphs)
    return "\n".join(
        [*lines, f"Made with {plan.software}, protocol {plan.protocol_version}."]
    )


def _computation(plan: Plan) -> tuple[str, ...]:
    sections = plan.task["sections"]
    rounds = _section(sections, "rounds")
    model = _section(sections, "model")
    algorithm = str(rounds.get("algorithm", "fed_avg"))
    what = (
        f"{algorithm}: {plan.num_rounds} rounds of training a model: {_facts(model)}."
    )
    custom = plan.task.get("model_sha256")
    file = (
        [f"The model is in a file of its own, which you are given: SHA-256 {custom}."]
        if custom
        else []
    )
    client = _facts(_section(sections, "client"))
    return (what, *file, f"On your machine: {client}." if client else "")


def _columns(schema: Mapping[str, Any]) -> tuple[str, ...]:
    features = schema.get("features")
    names = [_column_name(column) for column in features or []]
    shown = ", ".join(names[:_MOST_COLUMNS])
    more = (
        f" and {len(names) - _MOST_COLUMNS} more" if len(names) > _MOST_COLUMNS else ""
    )
    label = _column_name(schema.get("label"))
    return (f"Columns {shown}{more}; learns to predict {label}.",)


def _amounts(plan: Plan) -> str:
    sent, received = plan.contribution, plan.broadcast
    text = (
        f"Each round you receive {_size(received)} and send {_size(sent)}; "
        f"{_in_all(plan, num_bytes(sent))}"
    )
    if plan.secure_aggregation:
        text += f", besides about {1 + 0.4 * _num_members(plan):.0f} kB of keys and "
        text += "shares of keys each time"
    if plan.evaluation:
        text += f", and {_size(plan.evaluation)} in each evaluation round"
    return text + "."


def _in_all(plan: Plan, sent_bytes: int) -> str:
    if plan.privacy is None:
        return f"in all {_bytes(sent_bytes * plan.num_rounds)}, if none is repeated"
    attempts = plan.num_rounds + plan.privacy.further_attempts
    return f"in all you send at most {_bytes(sent_bytes * attempts)}"


def _receiver(plan: Plan) -> str:
    if plan.secure_aggregation and _has_regions(plan):
        return (
            "The aggregator of your region sees only the sum over your region's "
            "partners, who took part, and by the model that of the other regions "
            f"together; {plan.operator}, above the regions, sees only the sum of all."
        )
    if plan.secure_aggregation:
        return (
            f"{plan.operator}, which runs the aggregator, sees only the sum over the "
            "partners (secure aggregation), and who took part."
        )
    return (
        f"{plan.operator}, which runs the aggregator, sees your contribution by itself "
        "(no secure aggregation). The other partners see the model after each round."
    )


def _has_regions(plan: Plan) -> bool:
    return "num_regions" in _section(plan.task["sections"], "rounds")


def _num_members(plan: Plan) -> int:
    """Of a session: all partners, or those of the largest region."""
    return plan.report_goal if _has_regions(plan) else len(plan.partners)


def _promise(plan: Plan) -> Iterator[str]:
    if plan.simulation_seed is not None:
        yield (
            "A SIMULATION: all random numbers follow from a seed in this plan, so that "
            "whoever has it can subtract any noise. For data that may be public."
        )
    if plan.privacy is None:
        yield (
            "NO PRIVACY GUARANTEE: no noise is added, and nothing bounds what the "
            "contribution tells about single rows."
        )
    else:
        yield from _guarantee(plan.privacy, plan.num_rounds)


def _guarantee(privacy: PlanPrivacy, num_rounds: int) -> Iterator[str]:
    yield (
        f"epsilon {privacy.epsilon:g} at delta {privacy.delta:g} for all "
        f"{num_rounds} rounds{_further(privacy.further_attempts)} together. What is "
        f"protected: {_UNITS[privacy.unit]}; "
        f"neighbours differ by {_RELATIONS[privacy.neighboring_relation]}."
    )
    yield (
        "A round that is repeated spends again. Your machine gives no more answers "
        "than these, none beyond your policy's max_epsilon (at first this, rounded up)."
    )
    yield _TRUST[privacy.trust]
    claimed = privacy.amplification or "no amplification by sampling is claimed"
    yield (
        f"Mechanism: {_facts(privacy.mechanism)}. Computed by {privacy.accountant}; "
        f"{claimed}."
    )


def _further(attempts: int) -> str:
    if not attempts:
        return ""
    return f" and {attempts} further attempt{'s' if attempts > 1 else ''} at a round"


def _waiting(plan: Plan) -> str:
    return (
        f"A round closes with {plan.report_goal} contributions, or with at least "
        f"{plan.least_reports} after {plan.deadline_s:g} s."
    )


def _block(title: str, paragraphs: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for paragraph in filter(None, paragraphs):
        lines += textwrap.wrap(
            paragraph,
            width=_WIDTH,
            break_on_hyphens=False,
            initial_indent=f"{'' if lines else title:10}",
            subsequent_indent=" " * 10,
        )
    return lines


def _section(sections: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = sections.get(name)
    return section if isinstance(section, Mapping) else {}


def _facts(facts: Mapping[str, Any]) -> str:
    """Values as ASCII JSON: nothing of a plan moves a terminal's cursor."""
    told = {key: value for key, value in facts.items() if value is not None}
    shown = [
        _shortened(f"{ascii(key)[1:-1]} {json.dumps(value)}")
        for key, value in itertools.islice(told.items(), _MOST_FACTS)
    ]
    more = len(told) - len(shown)
    return ", ".join([*shown, f"and {more} more"] if more else shown)


def _shortened(fact: str) -> str:
    return fact if len(fact) <= _LONGEST_FACT else f"{fact[: _LONGEST_FACT - 4]} ..."


def _column_name(column: Any) -> str:
    name = column.get("name") if isinstance(column, Mapping) else None
    return ascii(name)[1:-1][:60] if isinstance(name, str) else "(not named)"


def _size(specs: Sequence[ArraySpec]) -> str:
    sent, plain = num_bytes(specs), sum(spec.plain_bytes for spec in specs)
    short = f" (compressed from {_bytes(plain)})" if sent < plain else ""
    return f"{len(specs)} arrays, {_bytes(sent)}{short}"


def _bytes(count: int) -> str:
    if count < 10_000:
        return f"{count} bytes"
    if count < 10_000_000:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:.0f} MB" if count < 10**10 else f"{count / 1e9:.0f} GB"
