"""What a partner checks of an invitation before its home folder takes it in."""

import datetime
from pathlib import Path

from fedtrain.core.errors import IdentityError
from fedtrain.wire.certificates import certificate_in, check_leaf, client_uri
from fedtrain.wire.enrolment import Invitation
from fedtrain.wire.identity import (
    TLS_FILE,
    PartnerKeys,
    TlsPair,
    fingerprint,
    keys_in,
    public_key_from,
    read_private,
    store_tls_pair,
    tls_pair_in,
    write_private,
)

OPERATOR_FILE = "operator.key"


def accept(
    invitation: Invitation, home: Path, *, now: datetime.datetime | None = None
) -> TlsPair:
    """Takes ``invitation`` into ``home``: its certificate, and whose it is.

    The first invitation's operator is remembered; later ones must be of the same. A
    certificate that was renewed since is kept. Accepting twice changes nothing.

    Returns:
      Key and certificate for TLS.

    Raises:
      IdentityError: If the certificate is for other keys, not valid now, or of another
        operator; or if secure aggregation is asked of keys that the operator made.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    keys = keys_in(home)
    _check_roster(invitation, keys)
    _check_operator(invitation, home)
    if not _holds_valid_pair(invitation, home, now):
        leaf = invitation.check_certificate(now=now)
        if leaf.public_key() != keys.tls.public_key():
            raise IdentityError(
                f"The invitation answers a request with other keys than those in "
                f"{home}. Hand the operator a new request made there."
            )
        store_tls_pair(home / TLS_FILE, keys.tls, invitation.certificate)
    write_private(home / OPERATOR_FILE, invitation.operator_key + "\n")
    return tls_pair_in(home / TLS_FILE)


def _holds_valid_pair(
    invitation: Invitation, home: Path, now: datetime.datetime
) -> bool:
    try:
        leaf = certificate_in(tls_pair_in(home / TLS_FILE).certificate_pem)
        check_leaf(
            leaf,
            authority=certificate_in(invitation.authority),
            uri=client_uri(invitation.client_id),
            now=now,
        )
    except IdentityError:
        return False
    issued = certificate_in(invitation.certificate)
    return leaf.not_valid_after_utc >= issued.not_valid_after_utc


def _check_roster(invitation: Invitation, keys: PartnerKeys) -> None:
    if not invitation.parsed_plan().secure_aggregation:
        return
    if invitation.demo:
        raise IdentityError(
            "The invitation is a demonstration's: the operator made these keys, so "
            "secure aggregation would hide nothing from it. Make your own keys."
        )
    if invitation.roster.get(invitation.client_id) != keys.identity_text:
        raise IdentityError(
            "The invitation's roster has another identity key for "
            f"{invitation.client_id!r} than the one in this home folder."
        )


def _check_operator(invitation: Invitation, home: Path) -> None:
    if not (home / OPERATOR_FILE).exists():
        return
    known = read_private(home / OPERATOR_FILE).decode(errors="replace").strip()
    if known != invitation.operator_key:
        raise IdentityError(
            "The invitation is signed by another operator "
            f"({invitation.fingerprint}) than the one this home folder knows "
            f"({fingerprint(public_key_from(known))}). Ask the operator by phone; if "
            f"its key did change, delete {home / OPERATOR_FILE}."
        )
