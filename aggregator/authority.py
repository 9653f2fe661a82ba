"""The operator's certificate authority: who takes part, and until when.

Its folder is for the operator alone: ``authority.pem`` and ``server.pem`` hold a key
and its certificate each, ``operator.pem`` the key that signs invitations,
``partners.json`` the register. A leaf lives 90 days; a renewed one supersedes it after
a day's grace. The authority itself is replaced as ``authorities`` says.
"""

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aggregator.admission import (
    GRACE,
    check_keys_are_free,
    issued_before,
    issued_to,
    revoked_keys,
    still_admitted,
    still_good,
    superseded,
)
from aggregator.authorities import AUTHORITY_FILE, Authorities, is_signed_by, pem_of
from aggregator.leaves import Issuer, authority_certificate, new_key, server_leaf
from aggregator.operators import Operators
from aggregator.partners import IssuedCertificate, Partner, PartnerRegister
from fedtrain.core.errors import IdentityError
from fedtrain.project.agreed_session import partners_of
from fedtrain.wire.certificates import (
    certificate_in,
    check_client_id,
    check_leaf,
    client_uri,
    leaf_in,
    requested_key,
)
from fedtrain.wire.enrolment import EnrolmentRequest, Invitation, signed_document
from fedtrain.wire.identity import (
    TlsPair,
    fingerprint,
    identity_key_in,
    key_pem,
    key_text,
    private_folder,
    store_tls_pair,
    tls_pair_in,
    write_private,
)
from fedtrain.wire.plan import Plan

_MOST_IN_GRACE = 16
_SERVER_FILE = "server.pem"
_OPERATOR_FILE = "operator.pem"
_PARTNERS_FILE = "partners.json"


class Terms(NamedTuple):
    """What an invitation says besides the partner's name and certificate.

    Attributes:
      plan: What will be computed.
      address: Where partners reach the aggregator, as host:port.
      server_name: Which of the hosts in the server's certificate they check.
    """

    plan: Plan
    address: str
    server_name: str


def init(home: Path, *, name: str, hosts: Sequence[str]) -> "Authority":
    """Makes authority, server certificate, operator's key and an empty register.

    Args:
      home: The operator's folder; made for its owner alone.
      name: Of the federation.
      hosts: Names and addresses of the aggregator, for its certificate.

    Raises:
      IdentityError: If there is an authority already.
    """
    private_folder(home)
    if (home / AUTHORITY_FILE).exists():
        raise IdentityError(
            f"{home} holds an authority already, which partners rely on. Use it, or "
            "choose another folder for a new federation."
        )
    now = _now()
    key, server_key = new_key(), new_key()
    own = authority_certificate(key, name=name, now=now)
    leaf = server_leaf(
        server_key.public_key(), name, hosts=hosts, issuer=Issuer(key, own), now=now
    )
    write_private(home / _OPERATOR_FILE, key_pem(Ed25519PrivateKey.generate()))
    store_tls_pair(home / _SERVER_FILE, server_key, pem_of(leaf))
    PartnerRegister(home / _PARTNERS_FILE).create()
    # Last: without it the folder counts as empty, and init starts again.
    store_tls_pair(home / AUTHORITY_FILE, key, pem_of(own))
    return Authority(home)


class Authority:
    """Admits, renews and revokes; and says of each call whether it is a partner's.

    Args:
      home: The folder that ``init`` made.

    Raises:
      IdentityError: If there is no authority in it, or others may read it.
    """

    def __init__(self, home: Path) -> None:
        if not (home / AUTHORITY_FILE).exists():
            raise IdentityError(
                f"{home} holds no authority: run `fedtrain-aggregator init` first."
            )
        private_folder(home)
        self._home = home
        self.authorities = Authorities(home)
        self._partners = PartnerRegister(home / _PARTNERS_FILE)
        self._partners.all()

    @property
    def authority_pem(self) -> bytes:
        """Of the authority, for TLS; of two, while it is being replaced."""
        return self.authorities.pem

    @property
    def fingerprint(self) -> str:
        """Of the operator's key: eight words that partners compare over the phone."""
        return fingerprint(self.operator_key().public_key())

    @property
    def server_path(self) -> Path:
        """The private file with the server's key and certificate."""
        return self._home / _SERVER_FILE

    @property
    def operators(self) -> Operators:
        """The certificates that open the operator's page."""
        return Operators(self._home / "operators", self.authorities)

    def server_pair(self) -> TlsPair:
        """The server's key and certificate, as they are on the disk now."""
        return tls_pair_in(self.server_path)

    def server_certificate(self) -> x509.Certificate:
        """The server's own certificate, as it is on the disk now."""
        return leaf_in(self.server_pair().certificate_pem)

    def partners(self) -> tuple[Partner, ...]:
        """All partners by name, revoked ones too."""
        return self._partners.all()

    def checked(
        self,
        client_id: str,
        certificate_pem: bytes | str,
        now: datetime.datetime | None = None,
    ) -> Partner:
        """The partner that makes a call; asked on every call.

        Args:
          client_id: Who the request says it is from.
          certificate_pem: The leaf of the call's TLS connection.
          now: For tests.

        Raises:
          IdentityError: With the reason: another authority, expired, not yet valid, a
            wrong role or name, not admitted, revoked, or superseded for over a day.
        """
        now = now or _now()
        check_client_id(client_id)
        leaf = certificate_in(certificate_pem)
        uri = client_uri(client_id)
        authority = self.authorities.signer_of(leaf)
        check_leaf(leaf, authority=authority, uri=uri, now=now)
        partner = self._admitted(client_id)
        serial = f"{leaf.serial_number:x}"
        issued = [one for one in partner.certificates if one.serial == serial]
        if not issued:
            raise IdentityError(f"This certificate of {client_id!r} is not in use.")
        since = issued[0].superseded
        if since is not None and now > since + GRACE:
            raise IdentityError(
                f"This certificate of {client_id!r} was superseded at "
                f"{since:%Y-%m-%d %H:%M} UTC; use the new one."
            )
        return partner

    def admit(
        self, request: EnrolmentRequest, terms: Terms, *, demo: bool = False
    ) -> Invitation:
        """Signs a partner's certificate, enters it, and invites it.

        The operator has compared ``request.fingerprint`` with the partner before. Asked
        again with the same keys, it issues another certificate.

        Raises:
          IdentityError: If the name belongs to other keys, or the keys were revoked.
        """
        if demo and terms.plan.secure_aggregation:
            raise IdentityError(
                "demo keys are the operator's own: secure aggregation would hide "
                "nothing from it. Let partners make their keys."
            )
        key = requested_key(request.certificate_request, client_id=request.client_id)

        def admitted(partners: Mapping[str, Partner]) -> Partner:
            check_keys_are_free(partners, request)
            found = partners.get(request.client_id)
            now = _now()
            issuer = self.authorities.issuer()
            issued = issued_to(key, request.client_id, issuer, now)
            old = found.certificates if found and found.state == "admitted" else ()
            return Partner(
                client_id=request.client_id,
                identity_key=request.identity_key,
                certificates=(*superseded(old, now), issued),
                admitted=now,
                software=request.software,
                demo=demo,
                revoked_keys=revoked_keys(found) if found else (),
            )

        self._partners.change(request.client_id, admitted)
        return self.invitation(request.client_id, terms)

    def invitation(self, client_id: str, terms: Terms) -> Invitation:
        """Invites a partner that is admitted, with its current certificate.

        Under secure aggregation the roster names all partners admitted by now: invite
        all of them once the last is admitted. A certificate of the authority before
        stays good, and the invitation has one of the present authority.
        """
        partner = self._under_present_authority(client_id)
        operator = self.operator_key()
        content = {
            "client_id": client_id,
            "certificate": partner.current.pem,
            "authority": pem_of(self.authorities.present).decode(),
            "operator_key": key_text(operator.public_key()),
            "address": terms.address,
            "server_name": terms.server_name,
            "plan": terms.plan.canonical().decode(),
            "plan_sha256": terms.plan.sha256,
            "roster": self._roster_for(client_id, terms.plan),
            "demo": partner.demo,
        }
        return signed_document(Invitation, content, operator)

    def renew(
        self,
        client_id: str,
        certificate_request: bytes | str,
        *,
        shown_pem: bytes | str | None = None,
    ) -> bytes:
        """A new leaf for a partner, in PEM; the one before is good for another day.

        Asked again with the same key it gives the same leaf, of the same authority.

        Args:
          client_id: The partner.
          certificate_request: With the new key.
          shown_pem: The leaf that it made the call with: it knows that leaf's
            authority, which signs the new one too. The present one by default.

        Raises:
          IdentityError: If the partner is not admitted, or renews without end.
        """
        key = requested_key(certificate_request, client_id=client_id)
        issuer = self.authorities.issuer_of(shown_pem)

        def renewed(partners: Mapping[str, Partner]) -> Partner:
            partner = still_admitted(client_id, partners.get(client_id))
            if issued_before(partner.certificates, key, issuer):
                return partner
            now, trusted = _now(), tuple(self.authorities)
            old = still_good(partner.certificates, issuer, now, trusted=trusted)
            if len(old) >= _MOST_IN_GRACE:
                raise IdentityError(
                    f"{client_id!r} has renewed {len(old)} times within a day; its "
                    "certificates are good, renew again tomorrow."
                )
            issued = issued_to(key, client_id, issuer, now)
            return partner.model_copy(update={"certificates": (*old, issued)})

        partner = self._partners.change(client_id, renewed)
        issued = issued_before(partner.certificates, key, issuer)
        return (issued or partner.current).pem.encode()

    def revoke(self, client_id: str) -> Partner:
        """Refuses all further calls of a partner, from the next one on.

        It can be admitted again with new keys.
        """

        def revoked(partners: Mapping[str, Partner]) -> Partner:
            partner = still_admitted(client_id, partners.get(client_id))
            return partner.model_copy(update={"state": "revoked", "revoked": _now()})

        return self._partners.change(client_id, revoked)

    def rotate_server(self, hosts: Sequence[str] | None = None) -> None:
        """Gives the server a new key and certificate, which it uses without a restart.

        Args:
          hosts: If they change; by default those of the current certificate.
        """
        current = self.server_certificate()
        key = new_key()
        name = current.subject.rfc4514_string().removeprefix("CN=")
        leaf = server_leaf(
            key.public_key(),
            name,
            hosts=_hosts(current) if hosts is None else hosts,
            issuer=self.authorities.issuer(),
            now=_now(),
        )
        bridge = self.authorities.bridge_pem
        store_tls_pair(self.server_path, key, pem_of(leaf), bridge_pem=bridge)

    def replace_authority(self) -> None:
        """Begins to replace the authority; those who know the one before still connect.

        A running server takes it up when it is started again.
        """
        self.authorities = self.authorities.replace()
        self.rotate_server()

    def unmoved(self) -> tuple[str, ...]:
        """Admitted partners that have no certificate of the present authority."""
        return tuple(
            one.client_id
            for one in self.partners()
            if one.state == "admitted" and not self._is_of_present(one.current)
        )

    def finish_replacement(self) -> None:
        """Refuses all certificates of the authority before from the next start on."""
        self.authorities = self.authorities.finish()
        self.rotate_server()

    def roster(self) -> dict[str, str]:
        """The identity keys of all partners that are admitted, as text, by name."""
        return {
            partner.client_id: partner.identity_key
            for partner in self.partners()
            if partner.state == "admitted"
        }

    def _roster_for(self, client_id: str, plan: Plan) -> dict[str, str]:
        """The keys that a partner pins, who has ``plan``."""
        if not plan.secure_aggregation:
            return {}
        partners = partners_of(plan, client_id)
        return {k: v for k, v in self.roster().items() if k in partners}

    def operator_key(self) -> Ed25519PrivateKey:
        """The operator's identity key: it signs invitations and rosters."""
        return identity_key_in(self._home / _OPERATOR_FILE)

    def _admitted(self, client_id: str) -> Partner:
        return still_admitted(client_id, self._partners.find(client_id))

    def _under_present_authority(self, client_id: str) -> Partner:
        """The partner, with a current certificate of the present authority."""
        partner = self._admitted(client_id)
        if self._is_of_present(partner.current):
            return partner

        def moved(partners: Mapping[str, Partner]) -> Partner:
            partner = still_admitted(client_id, partners.get(client_id))
            key: Any = certificate_in(partner.current.pem).public_key()
            issued = issued_to(key, client_id, self.authorities.issuer(), _now())
            all_ = (*partner.certificates, issued)
            return partner.model_copy(update={"certificates": all_})

        return self._partners.change(client_id, moved)

    def _is_of_present(self, issued: IssuedCertificate) -> bool:
        return is_signed_by(self.authorities.present, certificate_in(issued.pem))


def _hosts(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    addresses = map(str, names.value.get_values_for_type(x509.IPAddress))
    return [*names.value.get_values_for_type(x509.DNSName), *addresses]


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
