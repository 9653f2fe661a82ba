"""The aggregator's side of one session: it relays, adds up, and opens only the sum.

No socket and no clock: whoever owns those decides when a step is over. Every message is
checked when it comes: an altered one is left out, a client that breaks the protocol is
named in ``blames`` and counts as lost from there. A message that came before is
ignored.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import Message

from fedtrain.core.errors import TooFewClientsError, WireError
from fedtrain.secagg import masks
from fedtrain.secagg.blame import OPERATOR, Blame, BreachError, UnauthenticError
from fedtrain.secagg.dealing import BOX_BYTES, PublicKeys, SessionSecrets
from fedtrain.secagg.envelopes import (
    MOST_MESSAGE_BYTES,
    body_of,
    encoded,
    enveloped,
    parsed,
    sha256,
)
from fedtrain.secagg.holding import judged
from fedtrain.secagg.masks import Vector
from fedtrain.secagg.messages_pb2 import (
    ADVERTISEMENT,
    COMPLAINT,
    CONSISTENCY,
    DEAL,
    DELIVERY,
    KEYS,
    MASKED_INPUT,
    SURVIVORS,
    UNMASK,
    UNMASK_REQUEST,
    Complaint,
    Deal,
    DealUpload,
    Delivered,
    Delivery,
    Envelope,
    Keys,
    MaskedInput,
    Survivors,
    Unmask,
    UnmaskRequest,
)
from fedtrain.secagg.roster import Roster
from fedtrain.secagg.transcript import (
    are_distinct,
    check_consistency,
    check_member,
    deal_in,
    proven,
    public_keys,
    transcript_sha256,
    unusable,
)
from fedtrain.secagg.unmasking import Unmasking
from fedtrain.wire.decoding import decoded


class Step(IntEnum):
    """What a session waits for."""

    KEYS = 0
    SHARES = 1
    INPUTS = 2
    CONSISTENCY = 3
    UNMASK = 4
    OVER = 5


class LateError(WireError):
    """A message for a step that is closed, or not open yet: it is left out."""


class ServerSession:
    """The aggregator in one session, from the roster to the sum.

    Each step is some ``receive_...`` and then one ``close_...``, which gives what is
    sent to the clients. A ``receive_...`` raises ``UnauthenticError``, ``LateError`` or
    ``BreachError`` for a message that it leaves out; the session goes on. A
    ``close_...`` with fewer than ``threshold`` clients ends it.

    Args:
      roster: The terms, which every client checks.
      operator_key: Signs all that goes to the clients.

    Attributes:
      roster: As given.
      step: What is waited for.
      blames: Who broke the protocol so far, once for each kind of message.

    Guarantees:
      ``close_unmask`` gives the sum of the survivors' vectors modulo 2^32, if each of
      them masked as the protocol says, or raises.
    """

    def __init__(self, roster: Roster, operator_key: Ed25519PrivateKey) -> None:
        self.roster = roster
        self.step = Step.KEYS
        self.blames: list[Blame] = []
        self._operator_key = operator_key
        self._session = roster.session
        self._taken: dict[tuple[Step, str], Envelope] = {}
        self._keys: dict[str, PublicKeys] = {}
        self._keys_sha256 = b""
        self._deals: dict[str, Deal] = {}
        self._boxes: dict[str, list[bytes]] = {}
        self._complaints: dict[str, Blame] = {}
        self._blamed: set[tuple[int, tuple[str, ...], bool]] = set()
        self._total: Vector = np.zeros(roster.vector_length, np.uint32)
        self._announced = Survivors()
        self._answers: dict[str, Unmask] = {}

    @property
    def roster_message(self) -> bytes:
        """What opens the session at every client."""
        return self.roster.signed(self._operator_key)

    @property
    def survivors(self) -> tuple[str, ...]:
        """Whose vectors are in the sum, by what came so far."""
        return tuple(self.responders(Step.INPUTS))

    def responders(self, step: Step) -> list[str]:
        """Whose message of a step was taken, in order."""
        return sorted(name for at, name in self._taken if at is step)

    def receive_keys(self, message: bytes) -> None:
        """Step 0: takes one client's fresh keys."""
        self._receive(parsed(message), Step.KEYS, ADVERTISEMENT, self._take_keys)

    def close_keys(self) -> bytes:
        """Ends step 0; the keys of all, for all who sent theirs."""
        self._advance(Step.KEYS)
        senders = self.responders(Step.KEYS)
        keys = Keys(advertisements=[self._taken[Step.KEYS, name] for name in senders])
        self._keys_sha256 = sha256(encoded(keys))
        return self._signed(KEYS, keys)

    def receive_shares(self, message: bytes) -> None:
        """Step 1: takes one client's sealed shares."""
        upload = _upload(message)
        boxes = list(upload.boxes)

        def take(envelope: Envelope) -> None:
            self._take_shares(envelope, boxes)

        self._receive(upload.deal, Step.SHARES, DEAL, take)

    def close_shares(self) -> dict[str, bytes]:
        """Ends step 1; for each client that shared, what the others dealt to it."""
        self._advance(Step.SHARES)
        return {
            holder: self._delivery(holder) for holder in self.responders(Step.SHARES)
        }

    def receive_complaint(self, message: bytes) -> Blame:
        """Step 2: hears a client that was dealt wrong shares and leaves the session.

        Returns:
          Who is at fault, which is among ``blames`` too.
        """
        envelope = parsed(message)
        check_member(envelope, COMPLAINT, self.roster)
        if self.step is not Step.INPUTS:
            raise LateError(f"The session is at {self.step.name}: no complaints now.")
        if envelope.sender not in self._complaints:
            self._complaints[envelope.sender] = self._judged(envelope)
            self._blame(COMPLAINT, self._complaints[envelope.sender])
        return self._complaints[envelope.sender]

    def receive_input(self, message: bytes, content: Iterable[bytes]) -> None:
        """Step 2: adds one client's masked input to the sum, if it arrives whole.

        Beside the sum this takes the memory of one vector: receive one at a time.

        Args:
          message: What announces it.
          content: The words, little-endian, in parts of any size. Of a message that
            came before nothing is read.
        """

        def take(envelope: Envelope) -> None:
            self._take_input(envelope, content)

        self._receive(parsed(message), Step.INPUTS, MASKED_INPUT, take)

    def close_inputs(self) -> bytes:
        """Ends step 2; who shared and who survived, for the survivors."""
        self._advance(Step.INPUTS)
        dealers = self.responders(Step.SHARES)
        deals = [self._taken[Step.SHARES, name] for name in dealers]
        self._announced = Survivors(
            transcript_sha256=transcript_sha256(deals),
            shared=dealers,
            survivors=self.responders(Step.INPUTS),
        )
        self._boxes.clear()
        return self._signed(SURVIVORS, self._announced)

    def receive_consistency(self, message: bytes) -> None:
        """Step 3: takes one survivor's signature."""
        envelope = parsed(message)
        self._receive(envelope, Step.CONSISTENCY, CONSISTENCY, self._take_consistency)

    def close_consistency(self) -> bytes:
        """Ends step 3; as many signatures as are needed, for the survivors."""
        self._advance(Step.CONSISTENCY)
        names = self.responders(Step.CONSISTENCY)[: self.roster.parameters.threshold]
        signatures = [self._taken[Step.CONSISTENCY, name] for name in names]
        return self._signed(UNMASK_REQUEST, UnmaskRequest(signatures=signatures))

    def receive_unmask(self, message: bytes) -> None:
        """Step 4: takes one survivor's opened shares."""
        self._receive(parsed(message), Step.UNMASK, UNMASK, self._take_unmask)

    def close_unmask(self) -> Vector:
        """Ends the session; the sum of the survivors' vectors, uint32 modulo 2^32.

        Raises:
          TooFewClientsError: If fewer than ``threshold`` opened their shares.
          BreachError: If a dealer's shares fit no secret: the sum cannot be had.
        """
        self._advance(Step.UNMASK)
        try:
            self._unmasking.remove_masks(self._total, self._answers)
        except BreachError as error:
            self._blame(UNMASK, error.blame)
            raise
        return self._total

    def _take_keys(self, envelope: Envelope) -> None:
        keys = public_keys(envelope, self.roster)
        try:
            SessionSecrets().shared_with(keys)
        except ValueError:
            raise unusable(envelope.sender) from None
        if not are_distinct([*self._keys.values(), keys]):
            reason = "it advertised a key that was advertised before"
            raise BreachError(Blame((envelope.sender,), reason, proven=False))
        self._keys[envelope.sender] = keys

    def _take_shares(self, envelope: Envelope, boxes: Sequence[bytes]) -> None:
        dealer = envelope.sender
        if dealer not in self._keys:
            raise proven(dealer, "it deals shares, but advertised no keys")
        deal = self._deal_in(envelope)
        if [entry.box_sha256 for entry in deal.dealt] != [sha256(box) for box in boxes]:
            reason = "its boxes are not those that it signed"
            raise BreachError(Blame((dealer,), reason, proven=False))
        if any(len(box) != BOX_BYTES for box in boxes):
            raise proven(dealer, f"a box has not {BOX_BYTES} bytes")
        self._deals[dealer] = deal
        self._boxes[dealer] = list(boxes)

    def _judged(self, envelope: Envelope) -> Blame:
        holder = envelope.sender
        nothing = "it complains about nothing that was signed to it"
        if holder not in self._deals:
            return Blame((holder,), nothing, proven=True)
        try:
            complaint = body_of(envelope, Complaint)
            deal = self._deal_in(complaint.deal)
        except (UnauthenticError, BreachError):
            return Blame((holder,), nothing, proven=True)
        dealer = complaint.deal.sender
        if complaint.deal != self._taken.get((Step.SHARES, dealer)):
            return Blame((dealer,), "it signed two different deals", proven=True)
        return judged(complaint, holder=holder, roster=self.roster, deal=deal)

    def _take_input(self, envelope: Envelope, content: Iterable[bytes]) -> None:
        client = envelope.sender
        if (Step.SHARES, client) not in self._taken:
            raise proven(client, "it sends a masked input, but dealt no shares")
        announced = body_of(envelope, MaskedInput)
        vector, found = masks.received(content, self.roster.vector_length)
        if found != announced.sha256:
            reason = "its masked input is not what it announced, or was altered since"
            raise BreachError(Blame((client,), reason, proven=False))
        np.add(self._total, vector, out=self._total)

    def _take_consistency(self, envelope: Envelope) -> None:
        check_consistency(envelope, self.roster, self._announced)

    def _take_unmask(self, envelope: Envelope) -> None:
        holder = envelope.sender
        if holder not in self._announced.survivors:
            raise proven(holder, "it opens shares, but is no survivor")
        answer = body_of(envelope, Unmask)
        self._unmasking.check_answer(answer, holder)
        self._answers[holder] = answer

    @property
    def _unmasking(self) -> Unmasking:
        return Unmasking(
            roster=self.roster,
            keys=self._keys,
            deals={name: self._deals[name] for name in self._announced.shared},
            survivors=self._announced.survivors,
        )

    def _deal_in(self, envelope: Envelope) -> Deal:
        return deal_in(
            envelope,
            self.roster,
            holders=self.responders(Step.KEYS),
            keys_sha256=self._keys_sha256,
        )

    def _receive(
        self,
        envelope: Envelope,
        step: Step,
        kind: int,
        take: Callable[[Envelope], None],
    ) -> None:
        check_member(envelope, kind, self.roster)
        known = self._taken.get((step, envelope.sender))
        if known == envelope:
            return
        try:
            if known is not None:
                raise proven(envelope.sender, f"two messages of kind {kind} differ")
            if step is not self.step:
                raise LateError(f"The session is at {self.step.name}, not {step.name}.")
            take(envelope)
        except BreachError as error:
            self._blame(kind, error.blame)
            raise
        self._taken[step, envelope.sender] = envelope

    def _blame(self, kind: int, blame: Blame) -> None:
        """Keeps the first of a kind: a thousand bad messages fill no list."""
        known = (kind, blame.suspects, blame.proven)
        if known not in self._blamed:
            self._blamed.add(known)
            self.blames.append(blame)

    def _advance(self, step: Step) -> None:
        if step is not self.step:
            raise LateError(f"The session is at {self.step.name}, not {step.name}.")
        number, least = len(self.responders(step)), self.roster.parameters.threshold
        if number < least:
            self.step = Step.OVER
            raise TooFewClientsError(
                f"{number} of {self.roster.parameters.num_clients} clients answered "
                f"step {step.name} of secure aggregation; {least} are needed."
            )
        self.step = Step(step + 1)

    def _delivery(self, holder: str) -> bytes:
        place = self.responders(Step.KEYS).index(holder)
        deals = [
            Delivered(
                deal=self._taken[Step.SHARES, dealer], box=self._boxes[dealer][place]
            )
            for dealer in self.responders(Step.SHARES)
        ]
        return self._signed(DELIVERY, Delivery(deals=deals))

    def _signed(self, kind: int, body: Message) -> bytes:
        envelope = enveloped(
            kind,
            body,
            session=self._session,
            sender=OPERATOR,
            key=self._operator_key,
        )
        return encoded(envelope)


def _upload(message: bytes) -> DealUpload:
    try:
        return decoded(DealUpload, message, most_bytes=MOST_MESSAGE_BYTES)
    except WireError as error:
        raise UnauthenticError(str(error)) from None
