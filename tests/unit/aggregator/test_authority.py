import datetime
import json
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from aggregator.authority import Authority, Terms, init
from aggregator.demo_kit import demo_kit
from aggregator.leaves import Issuer, client_leaf, new_key, server_leaf
from fedtrain.core.errors import IdentityError
from fedtrain.wire.acceptance import accept
from fedtrain.wire.arrays import ArraySpec
from fedtrain.wire.certificates import certificate_in, certificate_request
from fedtrain.wire.enrolment import EnrolmentRequest
from fedtrain.wire.identity import new_keys, tls_key_in
from fedtrain.wire.plan import Plan

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@pytest.fixture(scope="module")
def terms():
    plan = Plan(
        name="credit",
        operator="Bureau",
        software="fedtrain",
        task={"sections": {}, "schema": {}},
        broadcast=(ArraySpec((2,), "float32"),),
        contribution=(ArraySpec((2,), "float32"),),
        num_rounds=1,
        report_goal=1,
        least_reports=1,
        deadline_s=1.0,
        privacy=None,
        leaves=("The update.",),
    )
    return Terms(plan, "localhost:8470", "localhost")


@pytest.fixture
def operator(tmp_path):
    return tmp_path / "operator"


@pytest.fixture
def authority(operator):
    return init(operator, name="credit", hosts=["localhost", "127.0.0.1", "::1"])


@pytest.fixture
def request_(tmp_path):
    return EnrolmentRequest.of("bank-a", new_keys(tmp_path / "bank-a"))


@pytest.fixture
def pem(authority, request_, terms):
    return authority.admit(request_, terms).certificate


def text(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def issuer_of(operator: Path) -> Issuer:
    path = operator / "authority.pem"
    pem = path.read_bytes()
    return Issuer(
        tls_key_in(path), certificate_in(pem[pem.index(b"-----BEGIN CERT") :])
    )


def usages(certificate):
    return list(
        certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    )


def test_the_folder_is_the_operators_alone(authority, operator, pem):
    assert stat.S_IMODE(operator.stat().st_mode) == 0o700
    for path in operator.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert "PRIVATE" not in (operator / "partners.json").read_text()
    assert "PRIVATE" not in repr(vars(authority))


def test_a_second_init_and_a_missing_authority_say_the_way_out(operator, authority):
    with pytest.raises(IdentityError, match="holds an authority already"):
        init(operator, name="credit", hosts=["localhost"])
    with pytest.raises(IdentityError, match="init"):
        Authority(operator / "elsewhere")


@pytest.mark.parametrize("host", ["localhost:8470", "münchen", "a b", "", "a..b"])
def test_what_is_no_host_is_refused_before_anything_is_written(tmp_path, host):
    with pytest.raises(IdentityError, match="hosts must be"):
        init(tmp_path / "new", name="credit", hosts=["localhost", host])
    assert list((tmp_path / "new").iterdir()) == []


def test_an_interrupted_init_can_be_done_again(operator, authority):
    (operator / "authority.pem").unlink()
    assert init(operator, name="credit", hosts=["localhost"]).partners() == ()


def test_leaves_live_90_days_and_have_one_role(authority, pem):
    client = certificate_in(pem)
    server = certificate_in(authority.server_pair().certificate_pem)
    for leaf in (client, server):
        life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
        assert life <= 90 * DAY
    assert usages(client) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert usages(server) == [ExtendedKeyUsageOID.SERVER_AUTH]
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    addresses = names.get_values_for_type(x509.IPAddress)
    assert [str(address) for address in addresses] == ["127.0.0.1", "::1"]


def test_an_admitted_partner_is_known(authority, pem, request_):
    partner = authority.checked("bank-a", pem)
    assert partner.client_id == "bank-a"
    assert partner.identity_key == request_.identity_key
    assert partner.fingerprint == request_.fingerprint
    assert not partner.demo


def test_times_are_checked(authority, pem):
    with pytest.raises(IdentityError, match="has expired"):
        authority.checked("bank-a", pem, NOW + 90 * DAY)
    with pytest.raises(IdentityError, match="not valid before"):
        authority.checked("bank-a", pem, NOW - DAY)


def test_anothers_certificate_is_refused(authority, operator, pem, terms, tmp_path):
    other = init(tmp_path / "other", name="credit", hosts=["localhost"])
    request = EnrolmentRequest.of("bank-a", new_keys(tmp_path / "mallory"))
    forged = other.admit(request, terms).certificate
    with pytest.raises(IdentityError, match="not signed by this federation"):
        authority.checked("bank-a", forged)
    with pytest.raises(IdentityError, match=r"names .*bank-a.*bank-b.* is needed"):
        authority.checked("bank-b", pem)
    with pytest.raises(IdentityError, match="wrong role"):
        authority.checked("bank-a", authority.server_pair().certificate_pem)


def test_a_server_leaf_with_a_clients_name_is_no_client(authority, operator, pem):
    issuer = issuer_of(operator)
    key = new_key().public_key()
    server = server_leaf(key, "bank-a", hosts=["localhost"], issuer=issuer, now=NOW)
    with pytest.raises(IdentityError, match="wrong role"):
        authority.checked("bank-a", text(server))


def test_a_good_leaf_that_is_not_in_the_register_is_refused(authority, operator, pem):
    issuer = issuer_of(operator)
    stray = client_leaf(new_key().public_key(), "bank-a", issuer=issuer, now=NOW)
    with pytest.raises(IdentityError, match="not in use"):
        authority.checked("bank-a", text(stray))
    unknown = client_leaf(new_key().public_key(), "bank-z", issuer=issuer, now=NOW)
    with pytest.raises(IdentityError, match="not a partner"):
        authority.checked("bank-z", text(unknown))


def test_the_authoritys_own_certificate_is_no_clients(authority, pem):
    with pytest.raises(IdentityError):
        authority.checked("bank-a", authority.authority_pem)


@pytest.mark.parametrize("client_id", ["", "../x", "bank-a\n", "x" * 10_000])
def test_what_is_no_name_is_refused(authority, pem, client_id):
    with pytest.raises(IdentityError, match="lower-case"):
        authority.checked(client_id, pem)


def test_a_revocation_by_another_process_holds_from_the_next_call(
    authority, operator, pem
):
    authority.checked("bank-a", pem)
    Authority(operator).revoke("bank-a")
    with pytest.raises(IdentityError, match="was revoked"):
        authority.checked("bank-a", pem)
    request = certificate_request("bank-a", new_key())
    with pytest.raises(IdentityError, match="was revoked"):
        authority.renew("bank-a", request)


def test_a_revoked_partner_comes_back_with_new_keys_only(
    authority, pem, request_, terms, tmp_path
):
    authority.revoke("bank-a")
    with pytest.raises(IdentityError, match="were revoked"):
        authority.admit(request_, terms)
    again = EnrolmentRequest.of("bank-a", new_keys(tmp_path / "again"))
    new = authority.admit(again, terms).certificate
    assert authority.checked("bank-a", new).identity_key == again.identity_key
    with pytest.raises(IdentityError, match="not in use"):
        authority.checked("bank-a", pem)
    authority.revoke("bank-a")
    for revoked in (request_, again):
        with pytest.raises(IdentityError, match="were revoked"):
            authority.admit(revoked, terms)


def test_two_names_do_not_share_keys(authority, pem, terms, tmp_path):
    request = EnrolmentRequest.of("bank-b", new_keys(tmp_path / "bank-a"))
    with pytest.raises(IdentityError, match="'bank-b' asks with the keys of 'bank-a'"):
        authority.admit(request, terms)


def test_a_name_is_not_given_to_other_keys(authority, pem, terms, tmp_path):
    thief = EnrolmentRequest.of("bank-a", new_keys(tmp_path / "thief"))
    with pytest.raises(IdentityError, match="partners revoke bank-a"):
        authority.admit(thief, terms)
    authority.checked("bank-a", pem)


def test_a_superseded_certificate_is_good_for_a_day(authority, pem):
    request = certificate_request("bank-a", new_key())
    new = authority.renew("bank-a", request)
    for certificate in (pem, new):
        authority.checked("bank-a", certificate)
    assert authority.checked("bank-a", new, NOW + 2 * DAY)
    with pytest.raises(IdentityError, match="was superseded"):
        authority.checked("bank-a", pem, NOW + 2 * DAY)


def test_renewing_again_with_the_same_key_gives_the_same_leaf(authority, pem):
    request = certificate_request("bank-a", new_key())
    assert authority.renew("bank-a", request) == authority.renew("bank-a", request)
    assert len(authority.partners()[0].certificates) == 2


def test_renewing_without_end_is_refused(authority, pem):
    for _ in range(15):
        authority.renew("bank-a", certificate_request("bank-a", new_key()))
    with pytest.raises(IdentityError, match="renew again tomorrow"):
        authority.renew("bank-a", certificate_request("bank-a", new_key()))
    authority.checked("bank-a", pem)


def test_a_renewal_for_another_name_is_refused(authority, pem):
    with pytest.raises(IdentityError, match="fedtrain://client/bank-a"):
        authority.renew("bank-a", certificate_request("bank-b", new_key()))


def test_the_server_certificate_is_rotated_with_its_hosts(authority):
    before = authority.server_pair()
    authority.rotate_server()
    after = authority.server_pair()
    assert after.key_pem != before.key_pem
    names = [
        certificate_in(pair.certificate_pem)
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value
        for pair in (before, after)
    ]
    assert names[0] == names[1]
    authority.rotate_server(["aggregator.example"])
    new = certificate_in(authority.server_pair().certificate_pem)
    assert "aggregator.example" in str(new.extensions)


def test_a_demo_kit_says_so_everywhere(authority, terms, tmp_path):
    path = demo_kit(authority, "bank-d", tmp_path / "demo", terms)
    assert json.loads(path.read_text())["demo"] is True
    assert authority.partners()[0].demo
    invitation = authority.invitation("bank-d", terms)
    pair = accept(invitation, tmp_path / "demo")
    assert authority.checked("bank-d", pair.certificate_pem).demo


def test_a_damaged_or_missing_register_admits_nobody(authority, operator, pem):
    path = operator / "partners.json"
    content = path.read_text()
    path.write_text(content.replace('"admitted"', '"trusted"'))
    with pytest.raises(IdentityError, match="nobody is admitted"):
        authority.checked("bank-a", pem)
    path.unlink()
    with pytest.raises(IdentityError, match="Restore it from a backup"):
        authority.checked("bank-a", pem)
    path.write_text(content)
    assert authority.checked("bank-a", pem)


def test_partners_that_are_admitted_at_once_are_all_kept(
    operator, authority, terms, tmp_path
):
    names = [f"bank-{number}" for number in range(8)]
    requests = [EnrolmentRequest.of(name, new_keys(tmp_path / name)) for name in names]
    threads = [
        threading.Thread(target=Authority(operator).admit, args=(request, terms))
        for request in requests
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [partner.client_id for partner in authority.partners()] == names
