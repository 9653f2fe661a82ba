import base64
import datetime
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.core.errors import IdentityError
from fedtrain.wire.certificates import (
    certificate_in,
    certificate_request,
    check_client_id,
    requested_key,
)
from fedtrain.wire.enrolment import (
    EnrolmentRequest,
    Invitation,
    read_invitation,
    read_request,
    signed_document,
)
from fedtrain.wire.identity import fingerprint, keys_in, new_keys, public_key_from

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
anywhere = st.integers(0, 2**32)


def flipped(data, place):
    position = place % (8 * len(data))
    changed = bytearray(data)
    changed[position // 8] ^= 1 << position % 8
    return bytes(changed)


def resigned(document, content, federation):
    return signed_document(
        document, content, keys_in(federation.home).identity
    ).to_bytes()


def test_a_request_is_read_back_with_its_fingerprint(federation, tmp_path):
    path = tmp_path / "bank-a.request"
    path.write_bytes(federation.request.to_bytes())
    request = read_request(path)
    assert request == federation.request
    keys = keys_in(federation.home)
    assert request.fingerprint == fingerprint(keys.identity.public_key())
    assert "PRIVATE" not in path.read_text()


def test_an_invitation_is_read_back_with_its_plan(federation, tmp_path):
    path = tmp_path / "bank-a.invitation"
    path.write_bytes(federation.invitation.to_bytes())
    invitation = read_invitation(path)
    assert invitation.parsed_plan() == federation.terms.plan
    assert invitation.plan_sha256 == federation.terms.plan.sha256
    assert invitation.fingerprint == federation.authority.fingerprint
    assert not invitation.demo
    assert "PRIVATE" not in path.read_text()


@settings(max_examples=150, deadline=None)
@given(anywhere)
def test_any_flipped_bit_of_a_request_is_refused(federation, place):
    with pytest.raises(IdentityError):
        EnrolmentRequest.from_bytes(flipped(federation.request.to_bytes(), place))


@settings(max_examples=150, deadline=None)
@given(anywhere)
def test_any_flipped_bit_of_an_invitation_is_refused(federation, place):
    with pytest.raises(IdentityError):
        Invitation.from_bytes(flipped(federation.invitation.to_bytes(), place))


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([EnrolmentRequest, Invitation]))
def test_any_bytes_are_refused_in_the_declared_way(data, document):
    with pytest.raises(IdentityError):
        document.from_bytes(data)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_well_signed_document_of_nonsense_is_refused(federation, data):
    """Whoever signs nonsense with its own key gets no further than the error."""
    content = json.loads(federation.request.to_bytes())
    del content["signature"]
    name = data.draw(
        st.sampled_from(["certificate_request", "client_id", "identity_key"])
    )
    content[name] = data.draw(st.text(max_size=40))
    with pytest.raises(IdentityError):
        EnrolmentRequest.from_bytes(resigned(EnrolmentRequest, content, federation))


def damaged(pem, place):
    first, *body, last = pem.splitlines()
    der = flipped(base64.b64decode("".join(body)), place)
    return f"{first}\n{base64.encodebytes(der).decode()}{last}\n"


@settings(max_examples=150, deadline=None)
@given(anywhere)
def test_any_flipped_bit_of_a_certificate_is_refused(federation, place):
    certificate = damaged(federation.invitation.certificate, place)
    changed = federation.invitation.model_copy(update={"certificate": certificate})
    with pytest.raises(IdentityError):
        changed.check_certificate(now=NOW)


@settings(max_examples=150, deadline=None)
@given(anywhere)
def test_any_flipped_bit_of_a_certificate_request_is_refused(federation, place):
    request = damaged(federation.request.certificate_request, place)
    with pytest.raises(IdentityError):
        requested_key(request, client_id="bank-a")


def test_long_files_are_refused_unread(tmp_path):
    path = tmp_path / "bank-a.request"
    path.write_bytes(b" " * (EnrolmentRequest.most_bytes + 1))
    with pytest.raises(IdentityError, match="at most 65536 are read"):
        read_request(path)
    with pytest.raises(IdentityError, match="cannot be read: No such file"):
        read_invitation(tmp_path / "missing")
    with pytest.raises(IdentityError, match="refused unread"):
        certificate_in("x" * 100_000)


def test_two_certificates_are_not_one(federation):
    pem = federation.invitation.certificate
    with pytest.raises(IdentityError, match="2 were given"):
        certificate_in(pem + pem)


@pytest.mark.parametrize(
    "client_id", ["", "Bank", "a/b", "-a", "a" * 64, "a\n", "ä", "fedtrain://x"]
)
def test_what_is_no_client_id_is_refused(client_id):
    with pytest.raises(IdentityError, match="lower-case letters"):
        check_client_id(client_id)


def test_a_request_for_another_name_or_curve_is_refused(tmp_path):
    keys = new_keys(tmp_path / "home")
    pem = certificate_request("bank-b", keys.tls)
    with pytest.raises(IdentityError, match="fedtrain://client/bank-a"):
        requested_key(pem, client_id="bank-a")
    weak = certificate_request("bank-a", ec.generate_private_key(ec.SECP192R1()))
    with pytest.raises(IdentityError, match="on P-256"):
        requested_key(weak, client_id="bank-a")


def test_the_certificate_of_an_invitation_is_of_today(federation):
    invitation = federation.invitation
    assert invitation.check_certificate(now=NOW).subject.rfc4514_string() == "CN=bank-a"
    with pytest.raises(IdentityError, match="has expired"):
        invitation.check_certificate(now=NOW + 91 * DAY)
    with pytest.raises(IdentityError, match="not valid before"):
        invitation.check_certificate(now=NOW - DAY)


def test_an_identity_key_is_written_in_one_way(federation):
    text = keys_in(federation.home).identity_text
    assert public_key_from(text)
    others = [text.rstrip("="), text + "\n", text[:-2] + chr(ord(text[-2]) + 1) + "="]
    for other in others:
        with pytest.raises(IdentityError):
            public_key_from(other)
