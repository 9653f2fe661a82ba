import datetime

import pytest

from aggregator.authority import Terms, init
from aggregator.demo_kit import demo_kit
from fedtrain.core.errors import IdentityError
from fedtrain.wire.acceptance import accept
from fedtrain.wire.certificates import certificate_in
from fedtrain.wire.enrolment import EnrolmentRequest, signed_document
from fedtrain.wire.identity import new_keys, renewal, tls_pair_in

LATER = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=200)


@pytest.fixture
def home(tmp_path):
    return tmp_path / "bank-a"


@pytest.fixture
def request_(home):
    return EnrolmentRequest.of("bank-a", new_keys(home))


def with_secure_aggregation(terms):
    task = terms.plan.task
    named = {**task["sections"], "service": {"clients": ["bank-a", "bank-b"]}}
    changes = {"secure_aggregation": True, "task": {**task, "sections": named}}
    return terms._replace(plan=terms.plan.model_copy(update=changes))


def test_accepting_twice_gives_the_same_pair(authority, terms, home, request_):
    invitation = authority.admit(request_, terms)
    pair = accept(invitation, home)
    assert accept(invitation, home) == pair
    assert pair.certificate_pem.decode() == invitation.certificate


def test_a_renewed_certificate_is_kept(authority, terms, home, request_):
    invitation = authority.admit(request_, terms)
    accept(invitation, home)
    new = renewal(home, "bank-a")
    new.accept(authority.renew("bank-a", new.request_pem))
    renewed = tls_pair_in(home / "tls.pem")
    assert renewed.certificate_pem.decode() != invitation.certificate
    assert accept(invitation, home) == renewed
    assert accept(authority.invitation("bank-a", terms), home) == renewed


def test_a_certificate_for_other_keys_is_refused(authority, terms, tmp_path, request_):
    invitation = authority.admit(request_, terms)
    new_keys(tmp_path / "other")
    with pytest.raises(IdentityError, match="with other keys"):
        accept(invitation, tmp_path / "other")


def test_an_expired_certificate_is_refused(authority, terms, home, request_):
    invitation = authority.admit(request_, terms)
    with pytest.raises(IdentityError, match="has expired"):
        accept(invitation, home, now=LATER)


def test_another_operator_is_refused_with_both_fingerprints(
    authority, terms, home, request_, tmp_path
):
    accept(authority.admit(request_, terms), home)
    other = init(tmp_path / "other", name="credit", hosts=["localhost"])
    invitation = other.admit(request_, terms)
    with pytest.raises(IdentityError, match="another operator") as caught:
        accept(invitation, home)
    assert authority.fingerprint in str(caught.value)
    assert other.fingerprint in str(caught.value)
    assert certificate_in(tls_pair_in(home / "tls.pem").certificate_pem).issuer


def test_secure_aggregation_is_refused_with_demo_keys(authority, terms, home):
    together = with_secure_aggregation(terms)
    with pytest.raises(IdentityError, match="demo"):
        demo_kit(authority, "bank-a", home, together)
    demo_kit(authority, "bank-a", home, terms)
    with pytest.raises(IdentityError, match="demonstration"):
        accept(authority.invitation("bank-a", together), home)


def test_the_roster_holds_all_partners_and_ones_own_key(
    authority, terms, home, request_, tmp_path
):
    together = with_secure_aggregation(terms)
    authority.admit(request_, together)
    other = EnrolmentRequest.of("bank-b", new_keys(tmp_path / "bank-b"))
    authority.admit(other, together)
    invitation = authority.invitation("bank-a", together)
    assert invitation.roster == {
        "bank-a": request_.identity_key,
        "bank-b": other.identity_key,
    }
    accept(invitation, home)
    forged = invitation.model_dump(exclude={"signature"})
    forged["roster"] = {"bank-a": other.identity_key, "bank-b": other.identity_key}
    operator = authority.operator_key()
    with pytest.raises(IdentityError, match="another identity key"):
        accept(signed_document(type(invitation), forged, operator), home)


def test_terms_are_in_the_invitation(authority, terms, request_):
    elsewhere = Terms(terms.plan, "[2001:db8::1]:443", "aggregator.example")
    invitation = authority.admit(request_, elsewhere)
    assert invitation.address == "[2001:db8::1]:443"
    assert invitation.server_name == "aggregator.example"
