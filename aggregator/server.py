"""The aggregator's port: gRPC over mutual TLS, with limits to what strangers hold."""

import asyncio
import contextlib
import logging
import resource
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import grpc
import grpc.aio
from prometheus_client import CollectorRegistry

from aggregator.caller import CallerCheck
from aggregator.calls import Calls, Served
from aggregator.memory import give_memory_back
from aggregator.sequences import SequenceFile, guard_of
from aggregator.traffic import Traffic
from fedtrain.core.errors import ConfigError
from fedtrain.wire.decoding import MOST_MESSAGE_BYTES
from fedtrain.wire.identity import TlsPair
from fedtrain.wire.tls import server_credentials

SERVICE = "fedtrain.wire.v1.Aggregator"
_MOST_CALLS = 8192
_HANDSHAKE_S = 10
_OPTIONS = [
    ("grpc.so_reuseport", 0),  # a port in use is an error
    ("grpc.max_receive_message_length", MOST_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.max_concurrent_streams", 8),  # of one connection
    # What an upload may have on its way: left to itself, gRPC holds ten times as much.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1024 * 1024),
    ("grpc.server_handshake_timeout_ms", 1000 * _HANDSHAKE_S),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 3),
    ("grpc.max_connection_idle_ms", 600_000),
]
_METHODS = {
    "Hello": ("unary_unary", "hello"),
    "Next": ("unary_unary", "next"),
    "Fetch": ("unary_stream", "fetch"),
    "Submit": ("stream_unary", "submit"),
    "Renew": ("unary_unary", "renew"),
}
_LOG = logging.getLogger(__name__)


class Server:
    """Serves one run on one port. Start and stop it on the same event loop.

    Args:
      served: The run, its plan, and who may take part.
      address: Where to listen, as host:port; port 0 takes a free one.
      registry: For the metrics.

    Attributes:
      registry: Holds the metrics.
      traffic: Calls and partners seen.
      port: Once started.
    """

    def __init__(
        self,
        served: Served,
        *,
        address: str,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._served = served
        self._address = address
        self.registry = registry or CollectorRegistry()
        self.traffic = Traffic(served.rounds, self.registry)
        self.port = 0
        self._calls: Calls | None = None
        self._sequences: SequenceFile | None = None
        self._server: Any = None

    async def start(self) -> int:
        """Opens the port, and returns its number.

        Raises:
          ConfigError: If the address cannot be listened on.
        """
        rounds, authority = self._served.rounds, self._served.authority
        _allow_many_files()
        give_memory_back()
        guard, self._sequences = guard_of(self._served.sequences, rounds.book.sequences)
        caller = CallerCheck(authority, rounds.run_id, guard)
        self._calls = Calls(self._served, caller, self.traffic)
        self._server = grpc.aio.server(
            options=_OPTIONS, maximum_concurrent_rpcs=_MOST_CALLS
        )
        self._server.add_generic_rpc_handlers([_handlers(self._calls, self.traffic)])
        credentials = server_credentials(
            _read_seldom(authority.server_pair), authority_pem=authority.authority_pem
        )
        try:
            self.port = self._server.add_secure_port(self._address, credentials)
        except RuntimeError as error:
            self._close()
            raise ConfigError(
                f"{self._address} cannot be listened on: is another aggregator running "
                "there? Stop it, or choose another service.address."
            ) from error
        await self._server.start()
        _LOG.info("Listening on port %d", self.port)
        return self.port

    async def stop(self, grace_s: float = 10.0) -> None:
        """Drains: takes no new calls, and lets those that run end within ``grace_s``.

        Clients that wait for work are sent away at once; they come back by themselves.
        """
        if self._calls is None:
            return
        self._calls.drain()
        await self._server.stop(grace_s)
        self._close()

    def _close(self) -> None:
        for part in (self._calls, self._sequences):
            if part is not None:
                part.close()


class Beside(Protocol):
    """What runs on the server's event loop, such as the operator's page."""

    async def start(self) -> int:
        """Begins; gives its port."""

    async def stop(self, grace_s: float) -> None:
        """Ends within ``grace_s``."""


@contextlib.contextmanager
def serving(server: Server, *beside: Beside, grace_s: float = 5.0) -> Iterator[int]:
    """Runs ``server``, and others beside it, on an event loop in a thread of its own.

    Gives the server's port.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="server", daemon=True)
    thread.start()

    def wait_for(step: Any, timeout_s: float) -> Any:
        return asyncio.run_coroutine_threadsafe(step, loop).result(timeout_s)

    parts: list[Beside] = [server, *beside]
    try:
        for part in parts:
            wait_for(part.start(), 60.0)
        yield server.port
    finally:
        for part in parts:
            wait_for(part.stop(grace_s), grace_s + 30.0)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _handlers(calls: Calls, traffic: Traffic) -> grpc.GenericRpcHandler:
    handlers = {}
    for name, (shape, attribute) in _METHODS.items():
        make = getattr(grpc, f"{shape}_rpc_method_handler")
        answer = _counted(getattr(calls, attribute), traffic)
        handlers[name] = make(answer, response_serializer=_serialized)
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


def _counted(answer: Any, traffic: Traffic) -> Any:
    async def counted(request: Any, context: Any) -> Any:
        with traffic.open_calls.track_inprogress():
            return await answer(request, context)

    return counted


def _serialized(message: Any) -> bytes:
    """Chunks come as they go over the wire."""
    if isinstance(message, bytes):
        return message
    return bytes(message.SerializeToString())


def _read_seldom(pair: Callable[[], TlsPair]) -> Callable[[], TlsPair]:
    """Asks for the pair once a second at most: every stranger's handshake wants it."""
    known: list[tuple[float, TlsPair]] = []

    def read() -> TlsPair:
        if not known or time.monotonic() > known[-1][0] + 1.0:
            known[:] = [(time.monotonic(), pair())]
        return known[-1][1]

    return read


def _allow_many_files() -> None:
    """A connection takes a file descriptor: allows as many as the system does."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
