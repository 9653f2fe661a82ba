"""Who may be admitted, and which certificates stay good beside a new one."""

import datetime
from collections.abc import Iterable, Mapping, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from aggregator.authorities import is_signed_by, pem_of
from aggregator.leaves import Issuer, client_leaf
from aggregator.partners import IssuedCertificate, Partner
from fedtrain.core.errors import IdentityError
from fedtrain.wire.certificates import certificate_in
from fedtrain.wire.enrolment import EnrolmentRequest

GRACE = datetime.timedelta(days=1)


def check_keys_are_free(
    partners: Mapping[str, Partner], request: EnrolmentRequest
) -> None:
    """Refuses a request with keys that were revoked, or where name or keys are taken.

    Raises:
      IdentityError: With the way out.
    """
    for partner in partners.values():
        is_own = partner.client_id == request.client_id
        if request.identity_key in revoked_keys(partner):
            raise IdentityError(
                f"These keys of {partner.client_id!r} were revoked. The partner makes "
                "new ones in another home folder, and asks with those."
            )
        if is_own and partner.identity_key != request.identity_key:
            _check_is_revoked(partner)
        if not is_own and partner.identity_key == request.identity_key:
            raise IdentityError(
                f"{request.client_id!r} asks with the keys of {partner.client_id!r}: "
                "each client makes its own, in a home folder of its own."
            )


def revoked_keys(partner: Partner) -> tuple[str, ...]:
    """Identity keys that ``partner`` had and may not have again."""
    own = (partner.identity_key,) if partner.state == "revoked" else ()
    return (*partner.revoked_keys, *own)


def still_admitted(client_id: str, found: Partner | None) -> Partner:
    """``found``, unless it is unknown or revoked.

    Raises:
      IdentityError: With the reason.
    """
    if found is None:
        raise IdentityError(f"{client_id!r} is not a partner of this federation.")
    if found.state == "revoked":
        raise IdentityError(f"{client_id!r} was revoked by the operator.")
    return found


def superseded(
    certificates: Sequence[IssuedCertificate], now: datetime.datetime
) -> tuple[IssuedCertificate, ...]:
    """The certificates that are good for another while beside a new one."""
    marked = [
        one if one.superseded else one.model_copy(update={"superseded": now})
        for one in certificates
    ]
    return tuple(
        one for one in marked if one.superseded and one.superseded + GRACE > now
    )


def still_good(
    certificates: Sequence[IssuedCertificate],
    issuer: Issuer,
    now: datetime.datetime,
    *,
    trusted: Iterable[x509.Certificate],
) -> tuple[IssuedCertificate, ...]:
    """The certificates beside a new one of ``issuer``.

    Those of another authority in ``trusted`` stay as they are; those of one that was
    replaced are of no use to anybody, and go.
    """
    own = [one for one in certificates if _is_of(issuer.certificate, one)]
    others = [
        one
        for one in certificates
        if one not in own
        and one.expires > now
        and (one.superseded is None or one.superseded + GRACE > now)
        and any(_is_of(authority, one) for authority in trusted)
    ]
    return (*others, *superseded(own, now))


def issued_before(
    certificates: Sequence[IssuedCertificate],
    key: ec.EllipticCurvePublicKey,
    issuer: Issuer,
) -> IssuedCertificate | None:
    """The certificate of ``key`` that ``issuer`` signed last and none has followed."""
    for one in reversed(certificates):
        is_current = one.superseded is None and _is_of(issuer.certificate, one)
        if is_current and certificate_in(one.pem).public_key() == key:
            return one
    return None


def issued_to(
    key: ec.EllipticCurvePublicKey,
    client_id: str,
    issuer: Issuer,
    now: datetime.datetime,
) -> IssuedCertificate:
    """A new certificate of ``client_id``, as the register has it."""
    leaf = client_leaf(key, client_id, issuer=issuer, now=now)
    return IssuedCertificate(
        serial=f"{leaf.serial_number:x}",
        pem=pem_of(leaf).decode(),
        expires=leaf.not_valid_after_utc,
    )


def _is_of(authority: x509.Certificate, issued: IssuedCertificate) -> bool:
    return is_signed_by(authority, certificate_in(issued.pem))


def _check_is_revoked(partner: Partner) -> None:
    if partner.state == "admitted":
        raise IdentityError(
            f"{partner.client_id!r} is admitted with other keys "
            f"({partner.fingerprint}). If the partner lost them, run "
            f"`fedtrain-aggregator partners revoke {partner.client_id}` first."
        )
