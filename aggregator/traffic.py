"""Who called, how often, and with what result: for Prometheus and the operator."""

from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from aggregator.events import now_ms
from aggregator.rounds import Rounds
from fedtrain.wire.messages_pb2 import Code

_SEEN_S = 90.0


class PartnerSeen(NamedTuple):
    """What is known of a partner from its calls to this process.

    Attributes:
      last_seen_unix_ms: Of its newest call.
      status: What it said of itself: "waiting for approval", for example.
      software: What it runs.
      address: Where the call came from.
    """

    last_seen_unix_ms: int
    status: str = ""
    software: str = ""
    address: str = ""


class Traffic:
    """Counts calls, and remembers when each partner was last seen.

    Args:
      rounds: Whose events are counted too.
      registry: Where the metrics are registered.

    Attributes:
      partners: By client id; replaced, never changed.
    """

    def __init__(self, rounds: Rounds, registry: CollectorRegistry) -> None:
        self.partners: dict[str, PartnerSeen] = {}
        self._requests = Counter(
            "fedtrain_requests", "Calls.", ["method", "code"], registry=registry
        )
        self._bytes = Counter(
            "fedtrain_bytes", "Content of messages.", ["direction"], registry=registry
        )
        self.open_calls = Gauge(
            "fedtrain_open_calls", "Calls that are being answered.", registry=registry
        )
        self.waiting_calls = Gauge(
            "fedtrain_waiting_calls", "Clients that wait for work.", registry=registry
        )
        registry.register(_RoundMetrics(rounds, self))

    def answered(self, method: str, code: Code) -> None:
        """Counts one call and its result."""
        self._requests.labels(method, Code.Name(code)).inc()

    def received(self, num_bytes: int) -> None:
        """Counts bytes of contributions."""
        self._bytes.labels("received").inc(num_bytes)

    def sent(self, num_bytes: int) -> None:
        """Counts bytes of broadcasts."""
        self._bytes.labels("sent").inc(num_bytes)

    def seen(self, client_id: str, address: str) -> None:
        """Notes a call of ``client_id``."""
        known = self.partners.get(client_id, PartnerSeen(0))
        self.partners[client_id] = known._replace(
            last_seen_unix_ms=now_ms(), address=address
        )

    def says(self, client_id: str, **said: str) -> None:
        """Notes the ``status`` or ``software`` that a partner names."""
        known = self.partners.get(client_id, PartnerSeen(now_ms()))
        shown = {name: _one_line(text) for name, text in said.items()}
        self.partners[client_id] = known._replace(**shown)  # type: ignore[arg-type]


class _RoundMetrics(Collector):
    """Reads the run's numbers when Prometheus asks."""

    def __init__(self, rounds: Rounds, traffic: Traffic) -> None:
        self._rounds = rounds
        self._traffic = traffic

    def collect(self) -> Iterator[Metric]:
        """The metrics of now."""
        book = self._rounds.book
        events = CounterMetricFamily(
            "fedtrain_round_events",
            "Events of rounds since the start.",
            labels=["kind"],
        )
        for kind, count in sorted(book.counts.items()):
            events.add_metric([kind], count)
        yield events
        yield GaugeMetricFamily(
            "fedtrain_round_number", "Newest round; -1 before any.", value=book.newest
        )
        missing = len(book.current.missing) if book.current is not None else 0
        yield GaugeMetricFamily(
            "fedtrain_missing_clients", "Clients the open round waits for.", missing
        )
        yield from self._partners()

    def _partners(self) -> Iterator[Metric]:
        seen = dict(self._traffic.partners)
        last = GaugeMetricFamily(
            "fedtrain_partner_last_seen_seconds", "Unix time.", labels=["client"]
        )
        for client, partner in sorted(seen.items()):
            last.add_metric([client], partner.last_seen_unix_ms / 1000)
        yield last
        recently = now_ms() - 1000 * _SEEN_S
        connected = sum(one.last_seen_unix_ms > recently for one in seen.values())
        yield GaugeMetricFamily(
            "fedtrain_connected_partners", "Seen within 90 seconds.", value=connected
        )


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:200]).strip()
