"""The clients' half of secure aggregation: what each is asked, and what it answers."""

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from aggregator.journal import JournalUnavailableError
from aggregator.round_state import RoundState, answer_to
from aggregator.run_book import RunBook
from aggregator.secure_collector import SecureDesk
from aggregator.secure_steps import SecureSteps
from aggregator.spool import Spool, chunks_of
from aggregator.uploads import Declared, RefusedError, Upload
from fedtrain.core.errors import WireError
from fedtrain.secagg.server import LateError, Step
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.decoding import MOST_MESSAGE_BYTES

_STEPS: Mapping[int, Step] = {
    pb.KEYS: Step.KEYS,
    pb.SHARES: Step.SHARES,
    pb.INPUT: Step.INPUTS,
    pb.CONSISTENCY: Step.CONSISTENCY,
    pb.UNMASKING: Step.UNMASK,
}
_ON_THE_WIRE = {step: number for number, step in _STEPS.items()}
_LATE = "The session of secure aggregation is further, or was begun anew."


class MessageUpload:
    """A client's short answer to one step, in memory; like an ``Upload``.

    Args:
      header: What was declared.
      take: Called with the whole answer.
    """

    def __init__(self, header: pb.SubmitHeader, take: Callable[[bytes], None]) -> None:
        if header.num_bytes > MOST_MESSAGE_BYTES:
            raise RefusedError(
                pb.WRONG_SHAPE,
                f"An answer of {header.num_bytes} bytes was declared; at most "
                f"{MOST_MESSAGE_BYTES} are read.",
            )
        self._header = header
        self._take = take
        self._content = bytearray()

    def write(self, content: bytes | memoryview) -> None:
        """Takes the next bytes."""
        if len(self._content) + len(content) > self._header.num_bytes:
            raise RefusedError(pb.MALFORMED, "More than the declared bytes came.")
        self._content += content

    def finish(self) -> pb.Receipt:
        """Checks what came, and hands it to the session."""
        if hashlib.sha256(self._content).digest() != self._header.sha256:
            raise RefusedError(
                pb.MALFORMED, "The bytes that came do not have the declared hash."
            )
        self._take(bytes(self._content))
        return pb.Receipt(code=pb.ACCEPTED)

    def abandon(self) -> None:
        """Forgets what came."""
        self._content.clear()


class SecureReception:
    """Answers the clients of an open session; nothing here waits but for the disk.

    Args:
      book: The run's rounds.
      spool: Its files.
      desk: Where the open session is.
    """

    def __init__(self, book: RunBook, spool: Spool, desk: SecureDesk) -> None:
        self._book = book
        self._spool = spool
        self._desk = desk

    def asked(self, state: RoundState, client_id: str) -> tuple[pb.SecureStep, bytes]:
        """The step that a client is to answer, and the operator's message; or none."""
        steps = self._desk.of(state)
        open_ = None if steps is None else steps.asked_of(client_id)
        if open_ is None:
            return pb.NO_STEP, b""
        step: Any = _ON_THE_WIRE[open_.step]
        return step, open_.messages[client_id]

    def answer(
        self, state: RoundState, client_id: str, header: pb.SubmitHeader
    ) -> MessageUpload:
        """Takes a short answer to a step; or a complaint.

        Raises:
          RefusedError: If there is no such step now.
        """
        steps = self._steps(state)
        if header.step == pb.COMPLAINT:
            return MessageUpload(
                header,
                lambda message: self._told(steps.take_complaint, client_id, message),
            )
        step = _STEPS.get(header.step, Step.INPUTS)
        if step is Step.INPUTS:
            raise RefusedError(pb.MALFORMED, "There is no such step with such answers.")
        return MessageUpload(
            header, lambda message: self._told(steps.take, client_id, step, message)
        )

    def input(
        self,
        state: RoundState,
        client_id: str,
        header: pb.SubmitHeader,
        *,
        facts: Mapping[str, Any],
        ended: Callable[[], None],
    ) -> Upload:
        """Takes a masked contribution: on the disk first, then into the sum.

        Args:
          state: Of the round.
          client_id: Who sends it.
          header: Its declaration, checked against the plan.
          facts: For the journal.
          ended: Called once the upload is over.

        Raises:
          RefusedError: If no session is open.
        """
        try:
            steps = self._steps(state)
        except RefusedError:
            ended()
            raise
        sha256 = header.sha256.hex()
        path = self._spool.contribution(state, client_id, sha256)

        def settle(code: pb.Code) -> pb.Receipt:
            del code  # whole numbers are always finite
            note = {"client": client_id, "sha256": sha256, **facts}
            content = chunks_of(path)
            take = partial(
                steps.take_input, client_id, header.step_message, content, note=note
            )
            try:
                self._told(take)
                self._note(state, steps.notes[client_id])
            finally:
                path.unlink(missing_ok=True)
            return pb.Receipt(code=pb.ACCEPTED)

        declared = Declared(header.num_bytes, sha256, state.contribution)
        return Upload(path, declared, settle=settle, ended=ended)

    def _told(self, take: Callable[..., None], *given: Any) -> None:
        """Has the session take an answer, and those who wait look again."""
        try:
            take(*given)
        except LateError:
            raise RefusedError(pb.LATE, _LATE) from None
        except WireError as error:
            raise RefusedError(pb.CONFLICT, str(error)) from error
        finally:
            with self._book.changed:
                self._book.changed.notify_all()

    def _note(self, state: RoundState, body: Mapping[str, Any]) -> None:
        with self._book.changed:
            found = self._book.find(state.kind, state.round_number)
            if found is None or found.attempt != state.attempt:
                raise RefusedError(pb.LATE, _LATE)
            if body["client"] in found.accepted:
                return
            if answer_to(found, body["client"], body["sha256"]) != pb.ACCEPTED:
                raise RefusedError(pb.LATE, _LATE)
            try:
                self._book.record([self._book.draft(found, "accepted", body)])
            except JournalUnavailableError as error:
                text = "The aggregator cannot write its journal now."
                raise RefusedError(pb.BUSY, text) from error

    def _steps(self, state: RoundState) -> SecureSteps:
        steps = self._desk.of(state)
        if steps is None:
            raise RefusedError(pb.LATE, _LATE)
        return steps
