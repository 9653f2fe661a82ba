"""An aggregator in this process: real TLS and signatures, scripted failures."""

import hashlib
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import grpc

from fedtrain.core.errors import IdentityError
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.decoding import decoded
from fedtrain.wire.identity import public_key_from
from fedtrain.wire.signing import ReplayGuard, verified
from fedtrain.wire.tls import server_credentials

METHODS = {
    "Hello": (pb.HelloRequest, pb.HelloReply, "unary_unary"),
    "Next": (pb.NextRequest, pb.Task, "unary_unary"),
    "Fetch": (pb.FetchRequest, pb.Chunk, "unary_stream"),
    "Submit": (pb.SubmitHeader, pb.Receipt, "stream_unary"),
    "Renew": (pb.RenewRequest, pb.RenewReply, "unary_unary"),
}


class FakeAggregator:
    """Asks one client for rounds, one after the other, until there are no more.

    ``faults[method]`` are used up first. A grpc.StatusCode breaks the call, a Code is
    the reply; "unacknowledged" takes a contribution and then breaks the call; "damaged"
    sends a broadcast with a flipped bit; a function is called and the call broken.
    """

    def __init__(self, authority, plan, *, num_rounds=2, kind=pb.TRAIN, broadcast=b""):
        self.authority = authority
        self.plan = plan
        self.num_rounds = num_rounds
        self.kind = kind
        self.broadcast = broadcast
        self.run_id = "run-1"
        self.plan_bytes = plan.canonical()
        self.info = b""
        self.ending = pb.Task(code=pb.ACCEPTED, kind=pb.FINISHED)
        self.faults = defaultdict(deque)
        self.taken = {}
        self.arrived = defaultdict(list)
        self.said = []
        self.round_number = 0
        self.port = 0
        self._guard = ReplayGuard()
        self._server = None

    def start(self):
        self._server = grpc.server(
            ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)]
        )
        handlers = {name: self._handler(name, *METHODS[name]) for name in METHODS}
        self._server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    "fedtrain.wire.v1.Aggregator", handlers
                )
            ]
        )
        credentials = server_credentials(
            self.authority.server_pair, authority_pem=self.authority.authority_pem
        )
        address = f"127.0.0.1:{self.port}"
        self.port = self._server.add_secure_port(address, credentials)
        self._server.start()
        return self

    def stop(self):
        self._server.stop(None).wait()

    def restart(self):
        self.stop()
        self.start()

    def _handler(self, name, body, reply, kind):
        request = pb.SubmitPart if name == "Submit" else pb.SignedRequest
        behaviour = {
            "unary_unary": self._answer,
            "unary_stream": self._stream,
            "stream_unary": self._take,
        }[kind]
        return getattr(grpc, f"{kind}_rpc_method_handler")(
            partial(behaviour, name, body, reply),
            request_deserializer=partial(decoded, request),
            response_serializer=lambda message: message.SerializeToString(),
        )

    def _body(self, name, body, request, context):
        (pem,) = context.auth_context()["x509_pem_cert"]
        partner = self.authority.checked(request.client_id, pem)
        run_id = "" if name in ("Hello", "Renew") else self.run_id
        data = verified(
            request,
            name,
            public_key_from(partner.identity_key),
            client_id=request.client_id,
            run_id=run_id,
        )
        self._guard.accept(request.client_id, request.sequence)
        self.said.append(name)
        return decoded(body, data)

    def _fault(self, name, context):
        fault = self.faults[name].popleft() if self.faults[name] else None
        if callable(fault):
            fault()
            context.abort(grpc.StatusCode.UNAVAILABLE, "scripted")
        if isinstance(fault, grpc.StatusCode):
            context.abort(fault, "scripted")
        return fault

    def _answer(self, name, body, reply, request, context):
        try:
            asked = self._body(name, body, request, context)
        except IdentityError as error:
            return reply(code=pb.REFUSED, text=str(error))
        fault = self._fault(name, context)
        if fault is not None:
            return reply(code=fault, text="scripted")
        return getattr(self, f"_{name.lower()}")(request.client_id, asked)

    def _hello(self, client_id, asked):
        return pb.HelloReply(
            code=pb.ACCEPTED,
            protocol_version=1,
            run_id=self.run_id,
            plan=self.plan_bytes,
        )

    def _next(self, client_id, asked):
        if not asked.plan_sha256:
            self.said.append(asked.status)
            return pb.Task(code=pb.WRONG_PLAN)
        if self.round_number >= self.num_rounds:
            return self.ending
        return pb.Task(
            code=pb.ACCEPTED,
            kind=self.kind,
            round_number=self.round_number,
            broadcast_bytes=len(self.broadcast),
            broadcast_sha256=hashlib.sha256(self.broadcast).digest(),
            info=self.info,
        )

    def _renew(self, client_id, asked):
        pem = self.authority.renew(client_id, asked.certificate_request)
        return pb.RenewReply(code=pb.ACCEPTED, certificate=pem)

    def _stream(self, name, body, reply, request, context):
        self._body(name, body, request, context)
        content = self.broadcast
        if self._fault(name, context) == "damaged":
            content = bytes([content[0] ^ 1]) + content[1:]
        for start in range(0, len(content), 7):
            yield pb.Chunk(content=content[start : start + 7])

    def _take(self, name, body, reply, parts, context):
        request = next(parts).header
        header = self._body(name, body, request, context)
        content = b"".join(part.content for part in parts)
        assert len(content) == header.num_bytes
        assert hashlib.sha256(content).digest() == header.sha256
        self.arrived[request.round_number].append(content)
        fault = self._fault(name, context)
        if isinstance(fault, int):
            self.round_number += fault == pb.LATE
            return pb.Receipt(code=fault, text="scripted")
        known = self.taken.setdefault(request.round_number, content)
        if fault == "unacknowledged":
            context.abort(grpc.StatusCode.UNAVAILABLE, "scripted")
        self.round_number = max(self.round_number, request.round_number + 1)
        return pb.Receipt(code=pb.ACCEPTED if known == content else pb.CONFLICT)
