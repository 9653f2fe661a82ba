"""An aggregator of a light round on loopback, with real certificates and TLS."""

import contextlib
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc

from aggregator.authority import Authority, Terms, init
from aggregator.calls import Served
from aggregator.rounds import Rounds
from aggregator.server import SERVICE, Server, serving
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.acceptance import accept
from fedtrain.wire.arrays import to_bytes
from fedtrain.wire.enrolment import EnrolmentRequest
from fedtrain.wire.identity import PartnerKeys, TlsPair, new_keys
from fedtrain.wire.plan import Plan
from fedtrain.wire.signing import Sequencer, signed
from fedtrain.wire.tls import channel_credentials, channel_options
from tests.unit.aggregator.light_round import SPECS, arrays_of, opened

_SHAPES = {
    "Hello": ("unary_unary", pb.HelloReply),
    "Next": ("unary_unary", pb.Task),
    "Fetch": ("unary_stream", pb.Chunk),
    "Submit": ("stream_unary", pb.Receipt),
    "Renew": ("unary_unary", pb.RenewReply),
}


@functools.cache
def plan() -> Plan:
    """A plan with the light round's shapes."""
    return Plan(
        name="light",
        operator="Test",
        software="fedtrain test",
        task={"sections": {}, "schema": {}},
        broadcast=(),
        contribution=SPECS,
        num_rounds=3,
        report_goal=3,
        least_reports=2,
        deadline_s=60.0,
        privacy=None,
        leaves=("numbers",),
    )


@dataclass
class Federation:
    """An authority, and the keys of its partners."""

    folder: Path
    authority: Authority
    keys: dict[str, PartnerKeys]
    pairs: dict[str, TlsPair]

    @classmethod
    def of(cls, folder: Path, names) -> "Federation":
        authority = init(folder / "authority", name="light", hosts=["localhost"])
        federation = cls(folder, authority, {}, {})
        for name in names:
            federation.admit(name)
        return federation

    def admit(self, name: str) -> None:
        home = self.folder / name
        self.keys[name] = new_keys(home)
        request = EnrolmentRequest.of(name, self.keys[name])
        terms = Terms(plan(), "localhost:1", "localhost")
        self.pairs[name] = accept(self.authority.admit(request, terms), home)


class Client:
    """Speaks the protocol as a partner's program does; lets tests bend it."""

    def __init__(self, federation: Federation, name: str, port: int) -> None:
        self.name = name
        self.key = federation.keys[name].identity
        self.sequencer = Sequencer()
        pem = federation.authority.authority_pem
        credentials = channel_credentials(federation.pairs[name], authority_pem=pem)
        options = channel_options(server_name="localhost")
        options += [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
        ]
        self.channel = grpc.secure_channel(
            f"localhost:{port}", credentials, options=options
        )

    def signed(self, method, body, *, round_number=0, run_id="run", client_id=None):
        request = pb.SignedRequest(
            client_id=client_id or self.name,
            run_id="" if method in ("Hello", "Renew") else run_id,
            round_number=round_number,
            sequence=self.sequencer.next(),
            body=body.SerializeToString(),
        )
        return signed(request, method, self.key)

    def call(self, method, request, timeout=20):
        """Sends what is given: a message, or an iterable of them for Submit."""
        shape, reply = _SHAPES[method]
        call = getattr(self.channel, shape)(
            f"/{SERVICE}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )
        return call(request, timeout=timeout)

    def next(self, wait_ms=0, status=""):
        body = pb.NextRequest(
            plan_sha256=bytes.fromhex(plan().sha256), wait_ms=wait_ms, status=status
        )
        return self.call("Next", self.signed("Next", body), timeout=40)

    def fetch(self, task):
        body = pb.FetchRequest(attempt=task.attempt, kind=task.kind)
        request = self.signed("Fetch", body, round_number=task.round_number)
        return b"".join(chunk.content for chunk in self.call("Fetch", request))

    def parts(self, task, content, *, chunk=16, **changes):
        """The parts of a contribution; ``changes`` bend its header."""
        values = {
            "attempt": task.attempt,
            "kind": task.kind,
            "num_bytes": len(content),
            "sha256": hashlib.sha256(content).digest(),
            "plan_sha256": bytes.fromhex(plan().sha256),
            "encoding": pb.RAW,
        }
        header = pb.SubmitHeader(**{**values, **changes})
        request = self.signed("Submit", header, round_number=task.round_number)
        return [
            pb.SubmitPart(header=request),
            *(
                pb.SubmitPart(content=content[start : start + chunk])
                for start in range(0, len(content), chunk)
            ),
        ]

    def submit(self, task, content=None, **changes):
        if content is None:
            arrays = arrays_of(self.name, task.round_number)
            content = to_bytes(SPECS, arrays)
        return self.call("Submit", iter(self.parts(task, content, **changes)))

    def work(self, wait_ms=20_000):
        """Does one task as a whole; gives the receipt's code, or None for no task."""
        task = self.next(wait_ms)
        if task.kind != pb.TRAIN:
            return None
        content = self.fetch(task)
        assert hashlib.sha256(content).digest() == task.broadcast_sha256
        return self.submit(task).code

    def close(self):
        self.channel.close()


@dataclass
class Run:
    """A running aggregator."""

    federation: Federation
    rounds: Rounds
    server: Server
    port: int

    def client(self, name: str) -> Client:
        return Client(self.federation, name, self.port)


@contextlib.contextmanager
def served(federation: Federation, folder: Path, port: int = 0) -> Iterator[Run]:
    """Starts an aggregator with its journal in ``folder``."""
    journal, rounds = opened(folder, plan_sha256=plan().sha256)
    about = Served(
        rounds, federation.authority, plan().canonical(), folder / "sequences.log"
    )
    server = Server(about, address=f"localhost:{port}")
    try:
        with serving(server, grace_s=2.0) as port_:
            yield Run(federation, rounds, server, port_)
    finally:
        rounds.stop()
        journal.close()
