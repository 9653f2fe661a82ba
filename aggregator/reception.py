"""The clients' half of the rounds: what they are to do, and what they bring."""

import json
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from aggregator.audit_heads import signed_head
from aggregator.events import Draft, now_ms
from aggregator.journal import JournalUnavailableError
from aggregator.round_state import Kind, RoundState, answer_to, applied
from aggregator.run_book import RunBook
from aggregator.secure_collector import SecureDesk
from aggregator.secure_reception import MessageUpload, SecureReception
from aggregator.spool import Spool
from aggregator.uploads import Declared, RefusedError, Upload
from fedtrain.core.errors import JournalError
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.arrays import num_bytes

_KINDS: Mapping[pb.TaskKind, Kind] = {pb.TRAIN: "train", pb.EVALUATE: "evaluate"}
_TASKS = {kind: task for task, kind in _KINDS.items()}
_WORDS: Mapping[int, str] = {
    pb.DUPLICATE: "This contribution is in already.",
    pb.LATE: "The round has closed.",
    pb.NOT_INVITED: "This client is not invited to the round.",
    pb.NON_FINITE: "This client is lost to the round: its numbers were not finite.",
    pb.CONFLICT: "Another contribution of this client is in already.",
}


class Activity(NamedTuple):
    """What a client was last seen to do in a round.

    Attributes:
      text: For people.
      since_unix_ms: Since when.
    """

    text: str
    since_unix_ms: int


class Reception:
    """Answers clients; nothing here waits but for the disk.

    Args:
      book: The run's rounds.
      spool: Its files.
      plan_sha256: Of the plan that clients approved, in hexadecimal.
      desk: Where the open session of secure aggregation is.
    """

    def __init__(
        self, book: RunBook, spool: Spool, plan_sha256: str, desk: SecureDesk
    ) -> None:
        self._book = book
        self._spool = spool
        self._plan_sha256 = plan_sha256
        self._secure = SecureReception(book, spool, desk)
        self._lock = threading.Lock()
        self._sending: set[str] = set()
        self._unsettled: list[_Settlement] = []
        self.activity: dict[str, Activity] = {}
        self.told_the_end: set[str] = set()

    def task_for(self, client_id: str) -> pb.Task:
        """See ``Rounds.task_for``."""
        ending, state = self._book.ending, self._book.current
        if ending is not None:
            kind = pb.FINISHED if ending.status == "finished" else pb.STOPPED
            self.told_the_end.add(client_id)
            return pb.Task(code=pb.ACCEPTED, kind=kind, text=ending.text)
        step, message = pb.NO_STEP, b""
        if state is not None and state.is_secure:
            step, message = self._secure.asked(state, client_id)
        if state is None or not _awaits(state, client_id, step):
            return pb.Task(code=pb.ACCEPTED, kind=pb.WAIT)
        self._is_seen(client_id, _told_of(step))
        return pb.Task(
            code=pb.ACCEPTED,
            kind=_TASKS[state.kind],
            round_number=state.round_number,
            attempt=state.attempt,
            deadline_unix_ms=state.deadline_unix_ms,
            broadcast_bytes=state.broadcast_bytes,
            broadcast_sha256=bytes.fromhex(state.broadcast_sha256),
            info=json.dumps(state.info).encode(),
            step=step,
            step_message=message,
        )

    def broadcast_for(
        self, client_id: str, round_number: int, request: pb.FetchRequest
    ) -> Path:
        """See ``Rounds.broadcast_for``."""
        state = self._round(round_number, request.kind, request.attempt)
        code = answer_to(state, client_id, "")
        if code != pb.ACCEPTED:
            raise RefusedError(code, _WORDS[code])
        if not self._spool.has_broadcast(state.broadcast_sha256):
            text = "The broadcast has yet to be written again; ask for it once more."
            raise RefusedError(pb.BUSY, text)
        self._is_seen(client_id, "works on the broadcast")
        return self._spool.broadcast(state.broadcast_sha256)

    def submission(
        self, request: pb.SignedRequest, header: pb.SubmitHeader
    ) -> Upload | MessageUpload:
        """See ``Rounds.submission``."""
        client_id, sha256 = request.client_id, header.sha256.hex()
        if header.plan_sha256.hex() != self._plan_sha256:
            raise RefusedError(pb.WRONG_PLAN, "The contribution is for another plan.")
        state = self._round(request.round_number, header.kind, header.attempt)
        if state.is_secure != (header.step != pb.NO_STEP):
            raise RefusedError(pb.MALFORMED, "Contributions come masked, or none do.")
        if state.is_secure and header.step != pb.INPUT:
            self._is_seen(client_id, f"answers {pb.SecureStep.Name(header.step)}")
            return self._secure.answer(state, client_id, header)
        code = answer_to(state, client_id, sha256)
        if code != pb.ACCEPTED:
            raise RefusedError(code, _WORDS[code])
        _check_declared(header, num_bytes(state.contribution))
        facts = {"sequence": request.sequence, **signed_head(request, header)}
        self._begin_sending(client_id)
        self._is_seen(client_id, "sends its contribution")
        ended = partial(self._end_sending, client_id)
        if state.is_secure:
            return self._secure.input(
                state, client_id, header, facts=facts, ended=ended
            )
        return Upload(
            self._spool.contribution(state, client_id, sha256),
            Declared(header.num_bytes, sha256, state.contribution),
            settle=lambda code: self._settled(
                _Settlement(state, client_id, sha256, facts, code)
            ),
            ended=ended,
        )

    def _settled(self, new: "_Settlement") -> pb.Receipt:
        """Counts what lies on the disk, together with what others brought meanwhile."""
        with self._lock:
            self._unsettled.append(new)
        with self._book.changed:
            if new.receipt is None:
                with self._lock:
                    all_, self._unsettled = self._unsettled, []
                self._settle(all_)
        if new.receipt is None:
            raise JournalError("A contribution was left unsettled.")
        if new.receipt.code not in {pb.ACCEPTED, pb.DUPLICATE}:
            path = self._spool.contribution(new.state, new.client_id, new.sha256)
            path.unlink(missing_ok=True)
        return new.receipt

    def _settle(self, settlements: list["_Settlement"]) -> None:
        """One journal entry for all: a hundred clients wait for one disk, once."""
        states: dict[tuple[str, int], RoundState] = {}
        drafts: list[Draft] = []
        for new in settlements:
            key = (new.state.kind, new.state.round_number)
            state = states.get(key) or self._book.find(new.state.kind, key[1])
            if state is None or state.attempt != new.state.attempt:
                new.answer(pb.LATE)
                continue
            code = answer_to(state, new.client_id, new.sha256)
            new.answer(new.code if code == pb.ACCEPTED else code)
            if code == pb.ACCEPTED:
                drafts.append(new.draft(self._book))
                states[key] = applied(state, drafts[-1])
        self._record(drafts, settlements)

    def _record(self, drafts: list[Draft], settlements: list["_Settlement"]) -> None:
        try:
            self._book.record(drafts)
        except JournalError as error:
            text = "The aggregator cannot write its journal now."
            for new in settlements:
                new.receipt = RefusedError(pb.BUSY, text).receipt
            if not isinstance(error, JournalUnavailableError):
                raise

    def _round(self, round_number: int, kind: pb.TaskKind, attempt: int) -> RoundState:
        known = _KINDS.get(kind)
        if known is None:
            raise RefusedError(pb.MALFORMED, "The task is neither TRAIN nor EVALUATE.")
        state = self._book.find(known, round_number)
        if state is not None and state.attempt == attempt:
            return state
        newest = state.attempt if state is not None else -1
        is_past = attempt < newest or round_number <= self._book.newest
        code = pb.LATE if is_past else pb.NOT_INVITED
        raise RefusedError(code, _WORDS[code])

    def _begin_sending(self, client_id: str) -> None:
        with self._lock:
            if client_id in self._sending:
                raise RefusedError(
                    pb.BUSY, "Another contribution of this client is being received."
                )
            self._sending.add(client_id)

    def _end_sending(self, client_id: str) -> None:
        with self._lock:
            self._sending.discard(client_id)

    def _is_seen(self, client_id: str, text: str) -> None:
        before = self.activity.get(client_id)
        if before is None or before.text != text:
            self.activity[client_id] = Activity(text, now_ms())


class _Settlement:
    """A contribution on the disk that waits for its line in the journal."""

    def __init__(
        self,
        state: RoundState,
        client_id: str,
        sha256: str,
        facts: Mapping[str, Any],
        code: pb.Code,
    ) -> None:
        self.state = state
        self.client_id = client_id
        self.sha256 = sha256
        self.facts = facts
        self.code = code
        self.receipt: pb.Receipt | None = None

    def answer(self, code: pb.Code) -> None:
        self.receipt = pb.Receipt(code=code, text=_WORDS.get(code, ""))

    def draft(self, book: RunBook) -> Draft:
        if self.code == pb.NON_FINITE:
            lost = {"client": self.client_id, "why": "numbers that are not finite"}
            return book.draft(self.state, "lost", lost)
        body = {"client": self.client_id, "sha256": self.sha256, **self.facts}
        return book.draft(self.state, "accepted", body)


def _awaits(state: RoundState, client_id: str, step: int) -> bool:
    if state.is_secure:
        return step != pb.NO_STEP
    return answer_to(state, client_id, "") == pb.ACCEPTED


def _told_of(step: pb.SecureStep) -> str:
    if step == pb.NO_STEP:
        return "was told of the round"
    return f"was asked for {pb.SecureStep.Name(step)}"


def _check_declared(header: pb.SubmitHeader, expected: int) -> None:
    if header.num_bytes != expected or len(header.sha256) != 32:
        raise RefusedError(
            pb.WRONG_SHAPE,
            f"The plan's arrays take {expected} bytes and their hash 32; declared were "
            f"{header.num_bytes} and {len(header.sha256)}.",
        )
