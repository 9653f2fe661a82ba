"""One client's side of one session: messages in, messages out.

No socket and no clock: whoever owns those calls the steps in order and carries what
they return. The same message again gets the same answer again. A message that nobody
provably signed changes nothing; a signed one that breaks the protocol ends the session
here, and the secrets are dropped.

Source: Bonawitz et al. (2017), https://eprint.iacr.org/2017/281, figure 4, on the
complete graph, with signatures by identity keys instead of session keys.
"""

from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.message import Message

from fedtrain.core.errors import ConfigError, PolicyError
from fedtrain.core.keystream import KeyStream
from fedtrain.secagg import masks
from fedtrain.secagg.answered import Answered, check_unanswered
from fedtrain.secagg.approval import Approval
from fedtrain.secagg.blame import OPERATOR, BreachError, UnauthenticError, relay_breach
from fedtrain.secagg.dealing import PairSecrets, PublicKeys, SessionSecrets, dealt
from fedtrain.secagg.envelopes import (
    body_of,
    check_signed,
    encoded,
    enveloped,
    parsed,
    sha256,
)
from fedtrain.secagg.holding import BadBoxError, Holder, Holdings
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
    Advertisement,
    DealUpload,
    Delivery,
    Envelope,
    Keys,
    MaskedInput,
    Survivors,
    UnmaskRequest,
)
from fedtrain.secagg.transcript import (
    are_distinct,
    check_consistency,
    is_ordered,
    public_keys,
    unusable,
)


class ClientSession:
    """A client in one session, from the roster to its answer.

    Args:
      roster_message: As the operator sent it.
      client_id: This client.
      identity: Its identity key.
      approval: What it has agreed to.
      answered: Which rounds it has answered, on its disk.

    Raises:
      UnauthenticError: If the operator did not sign the roster.
      BreachError: If the roster breaks the protocol, or its round was answered.
      PolicyError: If the approval does not allow it.

    Guarantees:
      Of each other client it opens at most one kind of share, ever, and for one round
      at most one set of them; its contribution leaves only under masks of which at
      least ``threshold`` clients must give up shares.
    """

    def __init__(
        self,
        roster_message: bytes,
        *,
        client_id: str,
        identity: Ed25519PrivateKey,
        approval: Approval,
        answered: Answered,
    ) -> None:
        self.roster = approval.checked(roster_message, client_id)
        self._id = client_id
        self._identity = identity
        self._answered = answered
        self._check_own_key()
        check_unanswered(answered, self.roster.plan_sha256, self.roster.round_number)
        self._operator_key = approval.operator_key
        self._session = self.roster.session
        own = SessionSecrets()
        self._secrets: SessionSecrets | None = own
        self._advertisement = self._signed(ADVERTISEMENT, _advertised(own))
        self._pairs: dict[str, PairSecrets] = {}
        self._keys_sha256 = b""
        self._own_deal: Envelope | None = None
        self._holdings: Holdings | None = None
        self._survivors: Survivors | None = None
        self._replies: dict[int, tuple[bytes, bytes]] = {}

    @property
    def survivors(self) -> tuple[str, ...]:
        """Whose contributions are in the sum, once confirmed and until answered."""
        return () if self._survivors is None else tuple(self._survivors.survivors)

    def advertisement(self) -> bytes:
        """Step 0: the fresh public keys, signed."""
        return self._advertisement

    def share_keys(self, message: bytes) -> bytes:
        """Step 1: for the keys of all, the shares of this client's secrets."""
        return self._once(KEYS, message, self._share_keys)

    def hold_shares(self, message: bytes) -> None:
        """Step 2, first half: takes the shares that the others dealt.

        Raises:
          BreachError: If one is not what its dealer signed. Where ``complaint`` is not
            empty it is still to be sent; nothing else is.
        """
        self._once(DELIVERY, message, self._hold_shares)

    def mask(self, vector: Vector) -> bytes:
        """Step 2, second half: masks ``vector`` in place, once.

        Args:
          vector: The contribution, uint32 modulo 2^32, of the roster's length. From now
            on it is the masked input: send ``masks.content(vector)`` after the message,
            as often as the network needs, and nothing computed from it.

        Returns:
          The message that announces it.

        Raises:
          ConfigError: If a vector was masked already, or the shares did not come.
        """
        own, holdings = self._secrets, self._holdings
        if own is None or holdings is None:
            raise ConfigError(
                "A session masks one vector, once, after hold_shares: two vectors "
                "under the same masks would show their difference."
            )
        masks.check_vector(vector, self.roster.vector_length)
        self._secrets = None
        self._apply_masks(vector, own.seed, holdings.dealers)
        self._pairs.clear()
        announced = MaskedInput(sha256=masks.content_sha256(vector))
        return self._signed(MASKED_INPUT, announced)

    def confirm(self, message: bytes) -> bytes:
        """Step 3: the announced survivors, signed, if nothing speaks against them."""
        return self._once(SURVIVORS, message, self._confirm)

    def unmask(self, message: bytes) -> bytes:
        """Step 4: the shares that open the sum, once for the round.

        That the round is answered is on the disk before this returns.
        """
        return self._once(UNMASK_REQUEST, message, self._unmask)

    def leave(self) -> None:
        """Drops the secrets; every further step is refused."""
        self._secrets = None
        self._pairs.clear()
        self._holdings = None
        self._survivors = None

    def _share_keys(self, envelope: Envelope) -> bytes:
        own = self._secrets
        if own is None or self._pairs:
            raise self._out_of_step(KEYS)
        advertised = body_of(envelope, Keys).advertisements
        senders = [advertisement.sender for advertisement in advertised]
        if not is_ordered(senders, among=self.roster.client_ids):
            raise relay_breach("the keys are not of distinct clients of the roster")
        self._check_enough(senders, "advertised keys")
        if self._advertisement not in map(encoded, advertised):
            raise relay_breach("this client's own keys were left out or altered")
        keys = {each.sender: public_keys(each, self.roster) for each in advertised}
        if not are_distinct(keys.values()):
            raise relay_breach("one key was advertised twice")
        self._pairs = {peer: _pair(own, peer, keys[peer]) for peer in keys}
        self._keys_sha256 = sha256(envelope.body)
        return self._dealt(own)

    def _dealt(self, own: SessionSecrets) -> bytes:
        deal, boxes = dealt(
            own,
            self.roster,
            dealer=self._id,
            pairs=self._pairs,
            keys_sha256=self._keys_sha256,
        )
        self._own_deal = self._envelope(DEAL, deal)
        return encoded(DealUpload(deal=self._own_deal, boxes=boxes))

    def _hold_shares(self, envelope: Envelope) -> bytes:
        if not self._pairs or self._holdings is not None:
            raise self._out_of_step(DELIVERY)
        deals = body_of(envelope, Delivery).deals
        dealers = [delivered.deal.sender for delivered in deals]
        if not is_ordered(dealers, among=self._pairs):
            raise relay_breach("the shares are not of distinct clients with keys")
        self._check_enough(dealers, "shares")
        if self._own_deal not in [delivered.deal for delivered in deals]:
            raise relay_breach("this client's own shares were left out or altered")
        holder = Holder(
            roster=self.roster,
            client_id=self._id,
            pairs=self._pairs,
            keys_sha256=self._keys_sha256,
        )
        try:
            self._holdings = holder.received(deals)
        except BadBoxError as error:
            complaint = self._signed(COMPLAINT, error.evidence)
            raise BreachError(error.blame, complaint) from None
        return b""

    def _confirm(self, envelope: Envelope) -> bytes:
        has_masked = self._secrets is None
        if self._holdings is None or not has_masked or self._survivors is not None:
            raise self._out_of_step(SURVIVORS)
        announced = body_of(envelope, Survivors)
        self._check_survivors(announced, self._holdings)
        self._survivors = announced
        return self._signed(CONSISTENCY, announced)

    def _unmask(self, envelope: Envelope) -> bytes:
        if self._survivors is None or self._holdings is None:
            raise self._out_of_step(UNMASK_REQUEST)
        signatures = body_of(envelope, UnmaskRequest).signatures
        signers = [signature.sender for signature in signatures]
        if not is_ordered(signers, among=self._survivors.survivors):
            raise relay_breach("the signatures are not of distinct survivors")
        self._check_enough(signers, "signatures")
        for signature in signatures:
            check_consistency(signature, self.roster, self._survivors)
        self._answered.claim(self.roster.plan_sha256, self.roster.round_number)
        answer = self._signed(UNMASK, self._holdings.opened(self._survivors))
        self.leave()
        return answer

    def _check_survivors(self, announced: Survivors, holdings: Holdings) -> None:
        if announced.transcript_sha256 != holdings.transcript_sha256:
            raise relay_breach("others were dealt other shares than this client")
        if list(announced.shared) != list(holdings.dealers):
            raise relay_breach("it names dealers whose shares did not come here")
        if not is_ordered(announced.survivors, among=announced.shared):
            raise relay_breach("a survivor is named twice, or dealt no shares")
        if self._id not in announced.survivors:
            raise relay_breach("this client is missing among the survivors")
        self._check_enough(announced.survivors, "survivors")

    def _apply_masks(self, vector: Vector, seed: bytes, dealers: list[str]) -> None:
        session = self._session
        added = [masks.self_mask(seed, session=session, client_id=self._id)]
        removed: list[KeyStream] = []
        for peer in dealers:
            if peer != self._id:
                stream = masks.pair_mask(
                    self._pairs[peer].masking, session=session, pair=(self._id, peer)
                )
                (added if masks.is_added(self._id, peer) else removed).append(stream)
        masks.apply(vector, added=added, removed=removed)

    def _once(
        self, kind: int, message: bytes, respond: Callable[[Envelope], bytes]
    ) -> bytes:
        asked, reply = self._replies.get(kind, (None, b""))
        if asked == sha256(message):
            return reply
        envelope = parsed(message)
        check_signed(envelope, kind, session=self._session, key=self._operator_key)
        try:
            if envelope.sender != OPERATOR:
                raise relay_breach("it signed under another name")
            reply = respond(envelope)
        except BreachError:
            self.leave()
            raise
        except UnauthenticError as error:
            self.leave()
            raise relay_breach(f"it passed on what it could check: {error}") from None
        self._replies[kind] = (sha256(message), reply)
        return reply

    def _check_enough(self, names: Sequence[str], what: str) -> None:
        least = self.roster.parameters.threshold
        if len(names) < least:
            raise relay_breach(f"{len(names)} {what} are fewer than {least}")

    def _check_own_key(self) -> None:
        own = self._identity.public_key()
        if self.roster.identity_key(self._id) != own:
            raise PolicyError(
                f"The roster's key of client {self._id!r} is not this client's own."
            )

    def _out_of_step(self, kind: int) -> BreachError:
        return relay_breach(f"message kind {kind} came twice or out of its turn")

    def _envelope(self, kind: int, body: Message) -> Envelope:
        return enveloped(
            kind, body, session=self._session, sender=self._id, key=self._identity
        )

    def _signed(self, kind: int, body: Message) -> bytes:
        return encoded(self._envelope(kind, body))


def _advertised(own: SessionSecrets) -> Advertisement:
    encryption, masking = own.public
    return Advertisement(
        encryption_key=encryption.public_bytes_raw(),
        masking_key=masking.public_bytes_raw(),
    )


def _pair(own: SessionSecrets, peer: str, keys: PublicKeys) -> PairSecrets:
    try:
        return own.shared_with(keys)
    except ValueError:
        raise unusable(peer) from None
