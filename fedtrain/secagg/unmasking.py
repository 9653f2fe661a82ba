"""The masks that are left in a sum, rebuilt from opened shares and taken out.

Each share is held against the commitment its dealer signed, so a wrong one convicts its
holder, who took it without complaint; each rebuilt secret against the dealer's own, so
a wrong one convicts the dealer, whose shares do not belong to one polynomial.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedtrain.core.keystream import KeyStream
from fedtrain.secagg import masks, shamir
from fedtrain.secagg.dealing import (
    MASKING_KEY,
    SEED,
    BoxRoute,
    PublicKeys,
    Share,
    secret_commitment,
    share_commitment,
)
from fedtrain.secagg.holding import entry_for
from fedtrain.secagg.masks import Vector
from fedtrain.secagg.messages_pb2 import Deal, OpenedShare, Unmask
from fedtrain.secagg.roster import Roster
from fedtrain.secagg.transcript import proven


@dataclass(frozen=True, kw_only=True)
class Unmasking:
    """What the aggregator knows when the survivors are agreed.

    Attributes:
      roster: Of the session.
      keys: The public keys of all who advertised.
      deals: The checked deals of all who shared, by dealer in order.
      survivors: Whose masked inputs are in the sum.
    """

    roster: Roster
    keys: Mapping[str, PublicKeys]
    deals: Mapping[str, Deal]
    survivors: Sequence[str]

    def check_answer(self, answer: Unmask, holder: str) -> None:
        """Checks that ``answer`` opens one share of each dealer, as it was dealt.

        Raises:
          BreachError: If not; its holder is to blame.
        """
        survivors, lost = self._names
        for what, shares, dealers in (
            (SEED, answer.seeds, survivors),
            (MASKING_KEY, answer.keys, lost),
        ):
            if [share.dealer for share in shares] != dealers:
                raise proven(holder, "it opened other shares than were asked for")
            for share in shares:
                self._check_share(share, what, holder)

    def remove_masks(self, total: Vector, answers: Mapping[str, Unmask]) -> None:
        """Takes all masks out of ``total``, in place.

        Args:
          total: The sum of the survivors' masked inputs, modulo 2^32.
          answers: Checked answers by holder, at least ``threshold``.

        Raises:
          BreachError: If a dealer's shares give another secret than it committed to;
            the sum cannot be had.
        """
        survivors, lost = self._names
        seeds = self._secrets(survivors, SEED, {h: a.seeds for h, a in answers.items()})
        keys = self._secrets(lost, MASKING_KEY, {h: a.keys for h, a in answers.items()})
        removed = [self._self_mask(client, seed) for client, seed in seeds.items()]
        added: list[KeyStream] = []
        for client, key in keys.items():
            for survivor in survivors:
                stream = self._pair_mask(client, key, survivor)
                (removed if masks.is_added(survivor, client) else added).append(stream)
        masks.apply(total, added=added, removed=removed)

    @property
    def _names(self) -> tuple[list[str], list[str]]:
        """Survivors, and those who dealt shares and were lost."""
        staying = set(self.survivors)
        return list(self.survivors), [
            name for name in self.deals if name not in staying
        ]

    def _secrets(
        self,
        dealers: Sequence[str],
        what: bytes,
        opened: Mapping[str, Iterable[OpenedShare]],
    ) -> dict[str, bytes]:
        shares: dict[str, dict[int, bytes]] = {dealer: {} for dealer in dealers}
        for holder, of_holder in opened.items():
            for share in of_holder:
                shares[share.dealer][self.roster.point(holder)] = share.value
        return {
            dealer: self._secret(dealer, what, of_dealer)
            for dealer, of_dealer in shares.items()
        }

    def _secret(self, dealer: str, what: bytes, shares: Mapping[int, bytes]) -> bytes:
        secret = shamir.join(shares, threshold=self.roster.parameters.threshold)
        deal = self.deals[dealer]
        committed = deal.seed_commitment if what == SEED else deal.key_commitment
        session = self.roster.session
        if secret is None or committed != secret_commitment(
            session, dealer, what, secret
        ):
            raise proven(dealer, f"the shares of its {what.decode()} do not fit it")
        if what == MASKING_KEY:
            self._check_public(dealer, secret)
        return secret

    def _check_public(self, dealer: str, secret: bytes) -> None:
        public = X25519PrivateKey.from_private_bytes(secret).public_key()
        if public != self.keys[dealer].masking:
            raise proven(dealer, "it dealt shares of another key than it advertised")

    def _check_share(self, share: OpenedShare, what: bytes, holder: str) -> None:
        entry = entry_for(self.deals[share.dealer], holder)
        route = BoxRoute(self.roster.session, share.dealer, holder)
        found = share_commitment(route, what, Share(share.value, share.nonce))
        signed = entry.seed_commitment if what == SEED else entry.key_commitment
        if found != signed:
            raise proven(holder, f"it opened a share that {share.dealer} did not deal")

    def _self_mask(self, client_id: str, seed: bytes) -> KeyStream:
        return masks.self_mask(seed, session=self.roster.session, client_id=client_id)

    def _pair_mask(self, lost: str, key: bytes, survivor: str) -> KeyStream:
        private = X25519PrivateKey.from_private_bytes(key)
        return masks.pair_mask(
            private.exchange(self.keys[survivor].masking),
            session=self.roster.session,
            pair=(lost, survivor),
        )
