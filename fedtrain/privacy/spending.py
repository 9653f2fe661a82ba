"""What each client's units have spent, and the largest of it.

Epsilon is kept for each client, because with the noise inside clients (or with a cohort
that can be seen) a client pays only for the rounds it was in. The headline is the
largest.
"""

from collections import ChainMap, Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from fedtrain.core.mechanism import Unit
from fedtrain.privacy import accounting, events

_NOTHING: frozenset[Any] = frozenset()
# Which units' charges cover a unit. A row is part of one entity and of one client; an
# entity may have rows at several clients, so a client's charge says nothing of it.
_COVERED_BY: dict[Unit, frozenset[Unit]] = {
    "example": frozenset({"example", "entity", "client"}),
    "entity": frozenset({"entity"}),
    "client": frozenset({"client"}),
}


class Spending:
    """Charges added up, for all clients in common and for each by itself."""

    def __init__(self) -> None:
        self._common: Counter[Any] = Counter()
        self._by_client: dict[str, frozenset[Any]] = {}
        self._earlier: Mapping[str, frozenset[Any]] = {}
        self._known: dict[frozenset[Any], frozenset[Any]] = {}
        self._num_with: Counter[frozenset[Any]] = Counter()

    def add(
        self, unit: Unit, counts: events.Counts, clients: Sequence[str] | None
    ) -> None:
        """Adds what one unit of each of ``clients`` spends; None for all clients."""
        charged = {(unit, leaf): num for leaf, num in counts.items()}
        if clients is None:
            self._common.update(charged)
            return
        alike: defaultdict[Any, list[str]] = defaultdict(list)
        for client, times in Counter(clients).items():
            alike[self._of(client), times].append(client)
        # Many clients have spent the same, so few sums are worked out.
        for (before, times), members in alike.items():
            more = Counter({leaf: num * times for leaf, num in charged.items()})
            total = frozenset((Counter(dict(before)) + more).items())
            # One object for equal sums: comparing them is what takes the time.
            total = self._known.setdefault(total, total)
            self._by_client.update(dict.fromkeys(members, total))
            self._num_with[total] += len(members)
            self._num_with[before] -= len(members)
        self._num_with = +self._num_with

    def _of(self, client: str) -> frozenset[Any]:
        own = self._by_client.get(client)
        return self._earlier.get(client, _NOTHING) if own is None else own

    def after(
        self, unit: Unit, counts: events.Counts, clients: Sequence[str] | None
    ) -> "Spending":
        """What the spending would be; this one stays as it is."""
        later = self.copy()
        later.add(unit, counts, clients)
        return later

    def copy(self) -> "Spending":
        """A copy to add to. It looks at this one, which must not change meanwhile.

        What a million clients have spent is not copied.
        """
        copy = Spending()
        copy._common = Counter(self._common)
        copy._earlier = (
            ChainMap(self._by_client, self._earlier)  # type: ignore[arg-type]
            if self._earlier
            else self._by_client
        )
        copy._known = self._known
        copy._num_with = Counter(self._num_with)
        return copy

    def largest(self, unit: Unit) -> list[Any]:
        """Events of the clients that may have spent the most, for one ``unit``.

        A charge for a unit that does not contain this one says nothing of it: it is
        not private then.
        """
        candidates = [dict(spent) for spent in self._num_with] or [{}]
        return [
            events.joined(_for_unit(self._common + Counter(spent), unit))
            for spent in _undominated(candidates)
        ]

    def epsilon(
        self, unit: Unit, delta: float, relation: str, *, interval: float
    ) -> float:
        """The largest epsilon of any client's unit."""
        return max(
            accounting.epsilon(event, delta, relation, interval=interval)
            for event in self.largest(unit)
        )

    def num_by_client(self) -> dict[str, int]:
        """How many events each client was charged for by itself."""
        return {
            client: sum(dict(spent).values())
            for client, spent in {**self._earlier, **self._by_client}.items()
        }

    def of_client(self, client: str, unit: Unit) -> Any:
        """The event of one client's units."""
        spent = Counter(dict(self._of(client)))
        return events.joined(_for_unit(self._common + spent, unit))


def _for_unit(counts: Counter[Any], unit: Unit) -> Counter[Any]:
    total: Counter[Any] = Counter()
    for (charged, leaf), num in counts.items():
        covers = charged in _COVERED_BY[unit]
        total[leaf if covers else events.NonPrivate()] += num
    return total


def _undominated(candidates: list[dict[Any, int]]) -> list[dict[Any, int]]:
    """Without those of which another has at least as many of every event."""
    largest: dict[frozenset[Any], dict[Any, int]] = {}
    several = []
    for spent in candidates:
        kind = frozenset(spent)
        if len(kind) > 1:
            several.append(spent)
        elif sum(spent.values()) >= sum(largest.get(kind, {}).values()):
            largest[kind] = spent
    return [*largest.values(), *several]
