"""The five calls over one gRPC channel: mutual TLS, signed requests, deadlines.

Nothing is allocated that the approved plan does not declare. A call that fails is tried
again by the agent, with a fresh signature; here it fails once, with what it means.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import Message

import fedtrain
from clients.calls import (
    RefusedError,
    RoundClosedError,
    UnreachableError,
    printable,
    raise_for,
)
from clients.home import Home
from fedtrain.core.errors import FedtrainError, StoppedError, WireError
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.decoding import decoded
from fedtrain.wire.enrolment import Invitation
from fedtrain.wire.framing import content_of, framed
from fedtrain.wire.identity import TlsPair
from fedtrain.wire.plan import MOST_PLAN_BYTES, PROTOCOL_VERSION
from fedtrain.wire.signing import signed
from fedtrain.wire.tls import channel_credentials, channel_options
from fedtrain.wire.transfer import received

_SERVICE = "/fedtrain.wire.v1.Aggregator/"
_ANSWER_S = 20.0
# The slowest link that is waited for; below it a transfer is begun again.
_LEAST_BYTES_PER_S = 32 * 1024
_MOST_REPLY_BYTES = MOST_PLAN_BYTES + 64 * 1024
_LIMITS = [
    ("grpc.max_receive_message_length", _MOST_REPLY_BYTES),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
]
_REFUSED = {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}
_CLOSED = {grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND}


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who calls whom.

    Attributes:
      client_id: The partner's name.
      identity: Its key for signatures.
      pair: Its current TLS key and certificate; asked at every connection.
      sequence: The number of the next request.
      address: The aggregator's host and port.
      server_name: What the aggregator's certificate must name.
      authority_pem: The one authority that is trusted.
    """

    client_id: str
    identity: Ed25519PrivateKey = field(repr=False)
    pair: Callable[[], TlsPair]
    sequence: Callable[[], int]
    address: str
    server_name: str
    authority_pem: bytes


def caller_of(invitation: Invitation, home: Home) -> Caller:
    """The client of ``home``, calling the aggregator of ``invitation``."""
    return Caller(
        client_id=invitation.client_id,
        identity=home.keys().identity,
        pair=home.pair,
        sequence=home.sequence(),
        address=invitation.address,
        server_name=invitation.server_name,
        authority_pem=invitation.authority_pem,
    )


class Transport:
    """``Calls`` over gRPC. Close it at the end."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._channel: Any = None

    def __enter__(self) -> "Transport":
        return self

    def __exit__(self, *_: object) -> None:
        self.reconnect()

    def reconnect(self) -> None:
        """Closes the channel; the next call makes another one."""
        if self._channel is not None:
            self._channel.close()
        self._channel = None

    def hello(self) -> pb.HelloReply:
        """Says which versions this client speaks."""
        body = pb.HelloRequest(
            protocol_versions=[PROTOCOL_VERSION],
            software=f"fedtrain {fedtrain.__version__}",
        )
        reply = self._ask("Hello", self._request("Hello", body), pb.HelloReply)
        raise_for(reply.code, reply.text)
        return reply

    def next_task(
        self, run_id: str, *, plan_sha256: str, status: str, wait_ms: int
    ) -> pb.Task:
        """Long poll: the deadline is what it waits, and what an answer takes."""
        body = pb.NextRequest(
            plan_sha256=bytes.fromhex(plan_sha256), wait_ms=wait_ms, status=status
        )
        request = self._request("Next", body, run_id=run_id)
        waits_s = wait_ms / 1000 + _ANSWER_S
        reply = self._ask("Next", request, pb.Task, timeout_s=waits_s)
        raise_for(reply.code, reply.text, wait_ms=reply.wait_ms)
        return reply

    def fetch(self, run_id: str, task: pb.Task, *, num_bytes: int) -> bytearray:
        """The broadcast, checked against the plan before, and the task's hash after."""
        if task.broadcast_bytes != num_bytes:
            raise UnreachableError(
                f"The aggregator announced a broadcast of {task.broadcast_bytes} bytes;"
                f" the plan's has {num_bytes}. Nothing was received."
            )
        body = pb.FetchRequest(attempt=task.attempt, kind=task.kind)
        number = task.round_number
        request = self._request("Fetch", body, run_id=run_id, round_number=number)
        call = self._call("unary_stream", "Fetch", _chunk)
        with _explained():
            chunks = call(request, timeout=_transfer_s(num_bytes))
            return _gathered(chunks, task, num_bytes)

    def submit(
        self,
        run_id: str,
        round_number: int,
        header: pb.SubmitHeader,
        parts: Callable[[], Iterable[bytes]],
    ) -> None:
        """Streams the answer; memory holds one part of it."""
        request = self._request(
            "Submit", header, run_id=run_id, round_number=round_number
        )
        field = pb.SubmitPart.CONTENT_FIELD_NUMBER
        messages = itertools.chain(
            [pb.SubmitPart(header=request)], (framed(field, part) for part in parts())
        )
        call = self._call("stream_unary", "Submit", _reply(pb.Receipt))
        with _explained():
            receipt = call(messages, timeout=_transfer_s(header.num_bytes))
        raise_for(receipt.code, receipt.text, wait_ms=receipt.wait_ms)

    def renew(self, request_pem: str) -> str:
        """Asks for a new certificate; whether it is one, the caller checks."""
        body = pb.RenewRequest(certificate_request=request_pem.encode())
        reply = self._ask("Renew", self._request("Renew", body), pb.RenewReply)
        raise_for(reply.code, reply.text)
        return reply.certificate.decode("ascii", errors="replace")

    def _request(
        self, method: str, body: Any, *, run_id: str = "", round_number: int = 0
    ) -> pb.SignedRequest:
        request = pb.SignedRequest(
            client_id=self._caller.client_id,
            run_id=run_id,
            round_number=round_number,
            sequence=self._caller.sequence(),
            body=body.SerializeToString(),
        )
        return signed(request, method, self._caller.identity)

    def _ask(
        self,
        method: str,
        request: pb.SignedRequest,
        reply: Any,
        *,
        timeout_s: float = _ANSWER_S,
    ) -> Any:
        with _explained():
            call = self._call("unary_unary", method, _reply(reply))
            return call(request, timeout=timeout_s)

    def _call(self, kind: str, method: str, read: Callable[[bytes], Any]) -> Any:
        if self._channel is None:
            self._channel = self._connected()
        return getattr(self._channel, kind)(
            _SERVICE + method,
            request_serializer=_serialized,
            response_deserializer=read,
        )

    def _connected(self) -> Any:
        caller = self._caller
        credentials = channel_credentials(
            caller.pair(), authority_pem=caller.authority_pem
        )
        options = [*channel_options(server_name=caller.server_name), *_LIMITS]
        return grpc.secure_channel(caller.address, credentials, options=options)


def _serialized(message: Any) -> bytes:
    """Parts with content come as they go over the wire."""
    if isinstance(message, bytes):
        return message
    return bytes(message.SerializeToString())


def _reply(kind: type[Message]) -> Callable[[bytes], Any]:
    return partial(decoded, kind, most_bytes=_MOST_REPLY_BYTES)


def _chunk(raw: bytes) -> memoryview:
    content = content_of(pb.Chunk.CONTENT_FIELD_NUMBER, raw)
    if content is None:
        raise WireError(f"These {len(raw)} bytes are no Chunk with content.")
    return content


def _gathered(chunks: Iterable[memoryview], task: pb.Task, num_bytes: int) -> bytearray:
    content = received(
        chunks,
        num_bytes=num_bytes,
        sha256=task.broadcast_sha256,
        encoding=task.encoding,
    )
    gathered, end = bytearray(num_bytes), 0
    for part in content:
        start, end = end, end + len(part)
        gathered[start:end] = part
    return gathered


def _transfer_s(num_bytes: int) -> float:
    return 2 * _ANSWER_S + num_bytes / _LEAST_BYTES_PER_S


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turns gRPC's errors into what they mean to the agent."""
    try:
        yield
    except grpc.RpcError as error:
        raise _meaning(error.code(), printable(error.details() or "")) from None
    except WireError as error:
        raise UnreachableError(f"What came is damaged: {error}") from None


def _meaning(code: grpc.StatusCode, details: str) -> FedtrainError:
    said = f"{code.name}: {details}"
    if code in _REFUSED:
        return RefusedError(f"The aggregator refuses this client. {said}")
    if code in _CLOSED:
        return RoundClosedError(said)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return StoppedError(
            f"The aggregator does not know a call of this client. {said}. Install the "
            "version that the plan names."
        )
    return UnreachableError(f"No answer from the aggregator. {said}")
