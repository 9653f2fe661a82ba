"""The shares that a client was dealt: checked when they come, opened once.

A box that is not what its dealer signed gives a complaint. It shows the box's own key,
which opens nothing else, so that others can see what was in it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fedtrain.secagg.blame import Blame, BreachError, relay_breach
from fedtrain.secagg.dealing import (
    BoxRoute,
    HeldShares,
    PairSecrets,
    Share,
    are_as_dealt,
)
from fedtrain.secagg.envelopes import sha256
from fedtrain.secagg.messages_pb2 import (
    Complaint,
    Deal,
    DealtTo,
    Delivered,
    OpenedShare,
    Survivors,
    Unmask,
)
from fedtrain.secagg.roster import Roster
from fedtrain.secagg.transcript import deal_in, proven, transcript_sha256


class BadBoxError(BreachError):
    """A box does not hold what its dealer signed: dealer or holder is at fault."""

    def __init__(self, blame: Blame, complaint: Complaint) -> None:
        super().__init__(blame)
        self.evidence = complaint


@dataclass(frozen=True)
class Holdings:
    """The shares one client holds, by dealer in order, and the hash of all deals."""

    shares: Mapping[str, HeldShares] = field(repr=False)
    transcript_sha256: bytes

    @property
    def dealers(self) -> list[str]:
        """Whose shares they are, in order."""
        return list(self.shares)

    def opened(self, survivors: Survivors) -> Unmask:
        """For each dealer one kind of share: a survivor's seed, a lost one's key."""
        staying = set(survivors.survivors)
        answer = Unmask()
        for dealer, held in self.shares.items():
            if dealer in staying:
                answer.seeds.append(_opened(dealer, held.seed))
            else:
                answer.keys.append(_opened(dealer, held.key))
        return answer


@dataclass(frozen=True, kw_only=True)
class Holder:
    """What a client needs to open its boxes: its place, its pairs' secrets."""

    roster: Roster
    client_id: str
    pairs: Mapping[str, PairSecrets] = field(repr=False)
    keys_sha256: bytes

    def received(self, deals: Iterable[Delivered]) -> Holdings:
        """The shares in ``deals``, each of which is what its dealer signed.

        Raises:
          UnauthenticError: If a deal is not its dealer's.
          BreachError: If a deal is malformed, or made for other keys.
          BadBoxError: If a box does not hold the shares that the dealer signed.
        """
        deals = list(deals)
        shares = {each.deal.sender: self._shares(each) for each in deals}
        return Holdings(shares, transcript_sha256(each.deal for each in deals))

    def _shares(self, delivered: Delivered) -> HeldShares:
        dealer = delivered.deal.sender
        deal = deal_in(
            delivered.deal,
            self.roster,
            holders=list(self.pairs),
            keys_sha256=self.keys_sha256,
        )
        entry = entry_for(deal, self.client_id)
        if entry.box_sha256 != sha256(delivered.box):
            raise relay_breach(f"the box of {dealer} was altered")
        route = BoxRoute(self.roster.session, dealer, self.client_id)
        key = route.key(self.pairs[dealer].encryption)
        shares = route.opened(key, delivered.box)
        if shares is None or not are_as_dealt(shares, entry, route):
            reason = f"the shares for {self.client_id} are not what was signed"
            blame = Blame((dealer, self.client_id), reason, proven=False)
            raise BadBoxError(
                blame, Complaint(deal=delivered.deal, box=delivered.box, box_key=key)
            )
        return shares


def entry_for(deal: Deal, holder: str) -> DealtTo:
    """What a checked deal says of one holder."""
    return next(entry for entry in deal.dealt if entry.holder == holder)


def judged(complaint: Complaint, *, holder: str, roster: Roster, deal: Deal) -> Blame:
    """Who is at fault by a signed complaint about a deal that its dealer signed.

    Nobody can make a key that opens another's honest box to something else, so a box
    that opens to wrong shares convicts its dealer, and one that opens to the right
    shares its holder. If the key opens nothing, either of the two lies.
    """
    dealer = complaint.deal.sender
    entry = entry_for(deal, holder)
    if entry.box_sha256 != sha256(complaint.box):
        return Blame((holder,), "it complains about another box", proven=True)
    route = BoxRoute(roster.session, dealer, holder)
    shares = route.opened(complaint.box_key, complaint.box)
    if shares is None:
        reason = f"the box for {holder} is not opened by the key that {holder} shows"
        return Blame((dealer, holder), reason, proven=False)
    if are_as_dealt(shares, entry, route):
        return Blame((holder,), f"its complaint about {dealer} is false", proven=True)
    return proven(dealer, f"it dealt wrong shares to {holder}").blame


def _opened(dealer: str, share: Share) -> OpenedShare:
    return OpenedShare(dealer=dealer, value=share.value, nonce=share.nonce)
