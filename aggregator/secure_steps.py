"""One session of secure aggregation, between the clients' calls and who waits for it.

The protocol is ``ServerSession``'s. Here its steps are opened and closed by the
training thread while the clients' answers come by any thread. All of it is in memory: a
process that ends forgets the session, and nobody can go on with it.
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedtrain.secagg.blame import OPERATOR, Blame, BreachError, UnauthenticError
from fedtrain.secagg.envelopes import parsed
from fedtrain.secagg.masks import Vector
from fedtrain.secagg.roster import Roster
from fedtrain.secagg.server import LateError, ServerSession, Step


class OpenStep(NamedTuple):
    """A step that is waited for.

    Attributes:
      step: Which.
      messages: What each client that may answer is sent, by client.
      answered: Whose answer was taken.
    """

    step: Step
    messages: Mapping[str, bytes]
    answered: frozenset[str] = frozenset()


class SecureSteps:
    """A session whose answers may come from any thread.

    Args:
      roster: The terms.
      operator_key: Signs all that goes to the clients.

    Attributes:
      roster: As given.
      open: The step that is waited for; replaced and never changed.
      upcoming: The one that ``publish`` opens: clients do not see it before.
      failed: Why a client has left the session or was left out, by client; replaced and
        never changed.
      notes: What the journal is to say of each input that is in the sum, by client.
      total: The sum of the survivors' vectors once the last step is closed.
    """

    def __init__(self, roster: Roster, operator_key: Ed25519PrivateKey) -> None:
        self._session = ServerSession(roster, operator_key)
        self._lock = threading.Lock()
        self.roster = roster
        opening = self._session.roster_message
        self.open = OpenStep(Step.KEYS, {})
        self.upcoming = OpenStep(Step.KEYS, dict.fromkeys(roster.client_ids, opening))
        self.failed: Mapping[str, str] = {}
        self.notes: dict[str, Mapping[str, Any]] = {}
        self.total: Vector | None = None

    @property
    def awaited(self) -> tuple[str, ...]:
        """Clients that may still answer the open step, in order."""
        open_, failed = self.open, self.failed
        return tuple(
            name
            for name in open_.messages
            if name not in open_.answered and name not in failed
        )

    @property
    def is_hopeless(self) -> bool:
        """Whether fewer than the threshold can answer the open step."""
        hoped = len(self.awaited) + len(self.open.answered)
        return hoped < self.roster.parameters.threshold

    @property
    def survivors(self) -> tuple[str, ...]:
        """Whose vectors are in the sum, by what came so far."""
        with self._lock:
            return self._session.survivors

    @property
    def blames(self) -> tuple[Blame, ...]:
        """Who broke the protocol so far."""
        return tuple(self._session.blames)

    @property
    def guilty(self) -> frozenset[str]:
        """Clients that have broken the protocol, as their signatures prove."""
        return frozenset(
            name
            for blame in self.blames
            if blame.proven
            for name in blame.suspects
            if name != OPERATOR
        )

    def asked_of(self, client_id: str) -> OpenStep | None:
        """The open step, if ``client_id`` is to answer it."""
        open_ = self.open
        is_asked = client_id in open_.messages and client_id not in open_.answered
        return open_ if is_asked and client_id not in self.failed else None

    def take(self, client_id: str, step: Step, message: bytes) -> None:
        """Takes a client's short answer; one that was taken before changes nothing.

        Raises:
          LateError: If the step is not open any more.
          UnauthenticError: If the client did not sign it for this session and step.
          BreachError: If it breaks the protocol: the client has left the session.
        """
        with self._taking(client_id, step):
            self._receive(step, message)

    def take_input(
        self,
        client_id: str,
        message: bytes,
        content: Iterable[bytes],
        *,
        note: Mapping[str, Any],
    ) -> None:
        """Takes a client's masked input; one that was taken before changes nothing.

        Args:
          client_id: Who sends it.
          message: What announces it.
          content: Its words; read only if they are new.
          note: For ``notes``; kept only if the words are new.

        Raises:
          LateError: If inputs are not waited for any more.
          UnauthenticError: If the client did not sign it for this session and step.
          BreachError: If it breaks the protocol: the client has left the session.
        """
        if parsed(message).sender != client_id:
            raise UnauthenticError(f"{client_id} sends the input of another client.")
        with self._taking(client_id, Step.INPUTS):
            self._session.receive_input(message, content)
            self.notes.setdefault(client_id, note)

    def take_complaint(self, client_id: str, message: bytes) -> None:
        """Hears a client that was dealt wrong shares and has left the session.

        Raises:
          LateError: If inputs are not waited for.
          UnauthenticError: If the client did not sign it.
        """
        with self._lock:
            blame = self._session.receive_complaint(message)
            self._fail(client_id, f"it was dealt wrong shares: {BreachError(blame)}")

    def publish(self) -> None:
        """Opens the upcoming step."""
        with self._lock:
            self.open = self.upcoming

    def close(self) -> None:
        """Ends the open step and makes the next one, for those who answered.

        From here until ``publish`` nobody is asked for anything.

        Raises:
          TooFewClientsError: If fewer than the threshold answered.
          BreachError: If the sum cannot be had; see ``guilty``.
          LateError: If the session is over, or at another step.
        """
        with self._lock:
            session, step = self._session, self.open.step
            self.open = self.open._replace(messages={})
            if step is Step.UNMASK:
                self.total = session.close_unmask()
                self.upcoming = OpenStep(Step.OVER, {})
                return
            self.upcoming = OpenStep(Step(step + 1), self._closed(step))

    def _closed(self, step: Step) -> Mapping[str, bytes]:
        """What each client is sent that has answered ``step``."""
        session = self._session
        if step is Step.SHARES:
            return session.close_shares()
        close = {
            Step.KEYS: session.close_keys,
            Step.INPUTS: session.close_inputs,
            Step.CONSISTENCY: session.close_consistency,
        }[step]
        return dict.fromkeys(session.responders(step), close())

    @contextmanager
    def _taking(self, client_id: str, step: Step) -> Iterator[None]:
        """Around what takes an answer: by one thread at a time."""
        with self._lock:
            try:
                yield
            except BreachError as error:
                self._fail(client_id, str(error))
                raise
            open_ = self.open
            if step is open_.step and client_id in self._session.responders(step):
                self.open = open_._replace(answered=open_.answered | {client_id})

    def _receive(self, step: Step, message: bytes) -> None:
        session = self._session
        receive = {
            Step.KEYS: session.receive_keys,
            Step.SHARES: session.receive_shares,
            Step.CONSISTENCY: session.receive_consistency,
            Step.UNMASK: session.receive_unmask,
        }.get(step)
        if receive is None:
            raise LateError(f"Nothing is waited for in {step.name}.")
        receive(message)

    def _fail(self, client_id: str, why: str) -> None:
        if client_id not in self.open.answered:
            self.failed = {**self.failed, client_id: why}
