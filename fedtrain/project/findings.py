"""The kinds of contradiction that a project file can hold."""

from collections.abc import Iterator, Mapping
from typing import Any

from fedtrain.project.problems import Problem


def exactly_one(section: str, value: Any, first: str, second: str) -> Iterator[Problem]:
    """A problem unless one of two keys is given."""
    given = [key for key in (first, second) if getattr(value, key) is not None]
    if len(given) != 1:
        yield Problem(
            key=f"{section}.{first}",
            text=f"give either {section}.{first} or {section}.{second}",
            value=getattr(value, first) if given else ...,
            allowed="exactly one of the two",
        )


def needs(
    section: str, value: Any, choice: str, table: Mapping[str | None, tuple[str, ...]]
) -> Iterator[Problem]:
    """The keys that one choice needs, and those that go with another choice only."""
    chosen = getattr(value, choice)
    known = {key for keys in table.values() for key in keys}
    for key in sorted(known):
        given = getattr(value, key)
        if key in table[chosen] and given is None:
            yield missing(f"{section}.{key}", f'{choice} = "{chosen}" needs it')
        if key not in table[chosen] and given is not None:
            has = f'{choice} = "{chosen}"' if chosen else f"no {section}.{choice}"
            yield superfluous(f"{section}.{key}", given, f"it does not go with {has}")


def missing(key: str, why: str) -> Problem:
    """A key that is needed here."""
    return Problem(key=key, text=f"missing key: {why}")


def superfluous(key: str, value: Any, why: str) -> Problem:
    """A key that means nothing here."""
    return Problem(key=key, text=why, value=value, allowed="leave it out")
