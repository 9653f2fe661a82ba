"""The five calls of the wire, answered on one event loop.

What blocks (files, signatures, the journal) runs on small pools of threads; a client
that waits for work costs no thread. Every call is checked by ``CallerCheck`` before its
body is looked at, and before anything is allocated for it.
"""

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import grpc

from aggregator.authority import Authority
from aggregator.caller import CallerCheck, parsed
from aggregator.part_reader import PartReader
from aggregator.rounds import Rounds
from aggregator.traffic import Traffic
from aggregator.uploads import BUSY_WAIT_MS, RefusedError
from fedtrain.core.errors import IdentityError, JournalError, WireError
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.arrays import CHUNK_BYTES
from fedtrain.wire.framing import framed
from fedtrain.wire.plan import PROTOCOL_VERSION
from fedtrain.wire.transfer import bounded

MOST_WAIT_S = 30.0
_LOG = logging.getLogger(__name__)
_NUM_CHECKERS = 4
_NUM_UPLOADS = 16
_NUM_DOWNLOADS = 64
_TRANSFER_S = 60.0
_LEAST_BYTES_PER_S = 16 * 1024
_IDLE_S = 30.0
_READ_CHUNKS = 4
_Reply = TypeVar("_Reply")
_STATUS = {
    pb.REFUSED: grpc.StatusCode.PERMISSION_DENIED,
    pb.BUSY: grpc.StatusCode.UNAVAILABLE,
    pb.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
}


class Served(NamedTuple):
    """What the calls are about.

    Attributes:
      rounds: Of the run that is served.
      authority: Knows the partners.
      plan: What partners have approved, in canonical form.
      sequences: File that keeps the partners' sequences across restarts; None, for
        tests, keeps only what the journal notes.
    """

    rounds: Rounds
    authority: Authority
    plan: bytes
    sequences: Path | None = None


class Calls:
    """Answers calls. It belongs to the event loop that it is first used on."""

    def __init__(self, served: Served, caller: CallerCheck, traffic: Traffic) -> None:
        self._rounds = served.rounds
        self._authority = served.authority
        self._plan = served.plan
        self._plan_sha256 = hashlib.sha256(served.plan).digest()
        self._caller = caller
        self._traffic = traffic
        self._checkers = ThreadPoolExecutor(_NUM_CHECKERS, "check")
        self._uploads = ThreadPoolExecutor(_NUM_UPLOADS, "upload")
        self._downloads = asyncio.Semaphore(_NUM_DOWNLOADS)
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._is_draining = False
        self._rounds.listen(self._tell)

    async def hello(self, raw: bytes, context: Any) -> pb.HelloReply:
        """Says which plan is served, in a version that both speak."""
        try:
            request = await self._checked("Hello", raw, context)
            body = parsed(pb.HelloRequest, request.body)
            self._traffic.says(request.client_id, software=body.software)
            _check_version(body)
        except RefusedError as refused:
            return self._done("Hello", pb.HelloReply(**_refusal(refused)))
        reply = pb.HelloReply(
            code=pb.ACCEPTED,
            protocol_version=PROTOCOL_VERSION,
            run_id=self._rounds.run_id,
            plan=self._plan,
        )
        return self._done("Hello", reply)

    async def next(self, raw: bytes, context: Any) -> pb.Task:
        """Says what to do; waits for it as long as the client asked, 30 s at most."""
        try:
            request = await self._checked("Next", raw, context)
            body = parsed(pb.NextRequest, request.body)
            self._traffic.says(request.client_id, status=body.status)
            if not body.plan_sha256:  # not approved yet: it only says so
                return self._done("Next", pb.Task(code=pb.ACCEPTED, kind=pb.WAIT))
            self._check_plan(body.plan_sha256)
        except RefusedError as refused:
            return self._done("Next", pb.Task(**_refusal(refused)))
        wait_s = min(body.wait_ms / 1000, MOST_WAIT_S)
        with self._traffic.waiting_calls.track_inprogress():
            task = await self._task_within(request.client_id, wait_s)
        return self._done("Next", task)

    async def fetch(self, raw: bytes, context: Any) -> None:
        """Sends the broadcast in chunks."""
        try:
            request = await self._checked("Fetch", raw, context)
            path = await self._in(
                self._checkers,
                self._rounds.broadcast_for,
                request.client_id,
                request.round_number,
                parsed(pb.FetchRequest, request.body),
            )
            async with self._downloads:
                await self._send(path, context)
        except RefusedError as refused:
            self._traffic.answered("Fetch", refused.code)
            status = _STATUS.get(refused.code, grpc.StatusCode.FAILED_PRECONDITION)
            await context.abort(status, refused.text)
            return
        self._traffic.answered("Fetch", pb.ACCEPTED)

    async def submit(self, raws: AsyncIterator[bytes], context: Any) -> pb.Receipt:
        """Takes a contribution; acknowledges it once it is on the disk."""
        try:
            receipt = await self._submitted(raws, context)
        except RefusedError as refused:
            receipt = refused.receipt
        except JournalError:
            _LOG.exception("A contribution cannot be journalled")
            text = "The aggregator cannot write its journal."
            receipt = RefusedError(pb.BUSY, text).receipt
        return self._done("Submit", receipt)

    async def renew(self, raw: bytes, context: Any) -> pb.RenewReply:
        """Signs a new certificate for a partner that has one."""
        try:
            request = await self._checked("Renew", raw, context)
            body = parsed(pb.RenewRequest, request.body)
            pem = _certificate(context)
            leaf = await self._in(
                self._checkers, self._renewed, request.client_id, body, pem
            )
        except RefusedError as refused:
            return self._done("Renew", pb.RenewReply(**_refusal(refused)))
        return self._done("Renew", pb.RenewReply(code=pb.ACCEPTED, certificate=leaf))

    def drain(self) -> None:
        """Sends those who wait away; they come back after a moment."""
        self._is_draining = True
        self._tell_here()

    def close(self) -> None:
        """Ends the threads."""
        self._checkers.shutdown(wait=False, cancel_futures=True)
        self._uploads.shutdown(wait=False, cancel_futures=True)

    async def _send(self, path: Path, context: Any) -> None:
        with _opened(path) as file:
            async with asyncio.timeout(_transfer_s(os.fstat(file.fileno()).st_size)):
                while chunks := await self._in(self._checkers, _chunks_in, file):
                    for chunk in chunks:
                        await context.write(chunk)
                    self._traffic.sent(sum(map(len, chunks)))

    async def _checked(self, method: str, raw: bytes, context: Any) -> pb.SignedRequest:
        request = await self._in(
            self._checkers, self._caller.request, method, raw, _certificate(context)
        )
        self._traffic.seen(request.client_id, context.peer())
        return request

    async def _task_within(self, client_id: str, wait_s: float) -> pb.Task:
        give_up = self._loop.time() + wait_s
        while True:
            changed = self._changed
            task = self._rounds.task_for(client_id)
            left_s = give_up - self._loop.time()
            if self._is_draining and task.kind == pb.WAIT:
                task.wait_ms = BUSY_WAIT_MS
                return task
            if task.kind != pb.WAIT or left_s <= 0:
                return task
            try:
                await asyncio.wait_for(changed.wait(), left_s)
            except TimeoutError:
                continue

    async def _submitted(self, raws: AsyncIterator[bytes], context: Any) -> pb.Receipt:
        reader = PartReader(raws, self._loop, idle_s=_IDLE_S)
        first = await reader.first()
        part = parsed(pb.SubmitPart, first)
        if part.WhichOneof("part") != "header":
            raise RefusedError(pb.MALFORMED, "The first part must be the header.")
        pem = _certificate(context)
        request = await self._in(
            self._checkers, self._caller.checked, "Submit", part.header, pem
        )
        self._traffic.seen(request.client_id, context.peer())
        try:
            return await self._in(self._uploads, self._received, request, reader)
        finally:
            reader.cancel()

    def _received(self, request: pb.SignedRequest, reader: PartReader) -> pb.Receipt:
        """Runs on a thread of the uploads' pool."""
        header = parsed(pb.SubmitHeader, request.body)
        upload = self._rounds.submission(request, header)
        try:
            contents = bounded(
                reader.contents(timeout_s=_transfer_s(header.num_bytes)),
                num_bytes=header.num_bytes,
                encoding=header.encoding,
            )
            for content in contents:
                upload.write(content)
                self._traffic.received(len(content))
            return upload.finish()
        except WireError as error:
            raise RefusedError(pb.MALFORMED, str(error)) from error
        finally:
            upload.abandon()

    def _renewed(self, client_id: str, body: pb.RenewRequest, pem: bytes) -> bytes:
        asked = body.certificate_request
        try:
            return self._authority.renew(client_id, asked, shown_pem=pem)
        except IdentityError as error:
            raise RefusedError(pb.REFUSED, str(error)) from error

    def _check_plan(self, plan_sha256: bytes) -> None:
        if plan_sha256 != self._plan_sha256:
            raise RefusedError(
                pb.WRONG_PLAN, "The plan that is served is not the approved one."
            )

    def _in(
        self, pool: ThreadPoolExecutor, run: Callable[..., _Reply], *args: Any
    ) -> Awaitable[_Reply]:
        return self._loop.run_in_executor(pool, run, *args)

    def _done(self, method: str, reply: Any) -> Any:
        self._traffic.answered(method, reply.code)
        return reply

    def _tell(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._tell_here)

    def _tell_here(self) -> None:
        old, self._changed = self._changed, asyncio.Event()
        old.set()


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError as error:  # its round has closed meanwhile, as a rule
        raise RefusedError(pb.BUSY, "The broadcast is gone; ask again.") from error


def _chunks_in(file: BinaryIO) -> list[bytes]:
    """The next messages of a broadcast, as they go over the wire; none at its end."""
    block = memoryview(file.read(_READ_CHUNKS * CHUNK_BYTES))
    return [
        framed(pb.Chunk.CONTENT_FIELD_NUMBER, block[start : start + CHUNK_BYTES])
        for start in range(0, len(block), CHUNK_BYTES)
    ]


def _certificate(context: Any) -> bytes:
    (pem,) = context.auth_context().get("x509_pem_cert", (b"",))
    return bytes(pem)


def _refusal(refused: RefusedError) -> dict[str, Any]:
    return {"code": refused.code, "text": refused.text}


def _check_version(body: pb.HelloRequest) -> None:
    if PROTOCOL_VERSION not in body.protocol_versions:
        theirs = ", ".join(str(version) for version in body.protocol_versions[:10])
        raise RefusedError(
            pb.WRONG_VERSION,
            f"This aggregator speaks version {PROTOCOL_VERSION} of the protocol, the "
            f"client {theirs or 'none'}; install the version that the plan names.",
        )


def _transfer_s(num_bytes: int) -> float:
    return _TRANSFER_S + num_bytes / _LEAST_BYTES_PER_S
