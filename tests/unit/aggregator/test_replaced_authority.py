import json
import socket
import ssl
from dataclasses import replace
from types import SimpleNamespace

import grpc
import pytest

from aggregator.authorities import is_signed_by, pem_of
from aggregator.authority import Authority, Terms
from aggregator.cli import main
from fedtrain.core.errors import IdentityError
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.acceptance import accept
from fedtrain.wire.certificates import certificate_in
from fedtrain.wire.identity import renewal, tls_pair_in
from tests.unit.aggregator.kept_federation import kept
from tests.unit.aggregator.served_run import Client, Federation, plan, served

TERMS = Terms(plan(), "localhost:1", "localhost")


@pytest.fixture
def federation(tmp_path):
    return Federation.of(tmp_path, ["a", "b"])


def knowing(federation, authority_pem):
    """The federation as a partner sees it that knows this authority alone."""
    return replace(federation, authority=SimpleNamespace(authority_pem=authority_pem))


def reloaded(federation):
    federation.authority = Authority(federation.folder / "authority")
    return federation.authority


def said(federation, name, authority_pem, port, method="Hello", body=None):
    client = Client(knowing(federation, authority_pem), name, port)
    try:
        request = client.signed(method, body or pb.HelloRequest(protocol_versions=[1]))
        return client.call(method, request)
    finally:
        client.close()


def invited(federation, name):
    """``name`` takes its new invitation in; gives the authority that it knows then."""
    invitation = federation.authority.invitation(name, TERMS)
    federation.pairs[name] = accept(invitation, federation.folder / name)
    return invitation.authority_pem


def python_verifies(port, authority_pem):
    context = ssl.create_default_context(cadata=authority_pem.decode())
    address = ("localhost", port)
    with (
        socket.create_connection(address, timeout=30) as plain,
        context.wrap_socket(plain, server_hostname="localhost"),
    ):
        pass


@pytest.mark.network
def test_partners_move_one_by_one_and_the_old_authority_ends(federation, tmp_path):
    old = federation.authority.authority_pem
    federation.authority.replace_authority()
    assert reloaded(federation).unmoved() == ("a", "b")
    new = invited(federation, "b")
    assert federation.authority.unmoved() == ("a",)
    assert new != old
    with served(federation, tmp_path / "run") as run:
        for name, known in (("a", old), ("b", new)):
            assert said(federation, name, known, run.port).code == pb.ACCEPTED
            python_verifies(run.port, known)
        begun = renewal(federation.folder / "a", "a")
        body = pb.RenewRequest(certificate_request=begun.request_pem.encode())
        renewed = said(federation, "a", old, run.port, "Renew", body)
        assert is_signed_by(certificate_in(old), certificate_in(renewed.certificate))
        begun.accept(renewed.certificate)
        federation.pairs["a"] = tls_pair_in(federation.folder / "a" / "tls.pem")
        for name, known in (("a", old), ("b", new)):
            assert said(federation, name, known, run.port).code == pb.ACCEPTED
    federation.authority.finish_replacement()
    reloaded(federation)
    with served(federation, tmp_path / "run") as run:
        assert said(federation, "b", new, run.port).code == pb.ACCEPTED
        with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
            said(federation, "a", old, run.port)  # it does not know this server
        with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
            said(federation, "a", new, run.port)  # its certificate is refused
        assert invited(federation, "a") == new
        assert said(federation, "a", new, run.port).code == pb.ACCEPTED


def renewed(federation, name, begun):
    """The leaf that the old authority's partner gets for a renewal."""
    shown = federation.pairs[name].certificate_pem
    return federation.authority.renew(name, begun.request_pem, shown_pem=shown)


def test_a_renewal_that_is_repeated_keeps_its_authority(federation):
    old = federation.authority.authorities.present
    federation.authority.replace_authority()
    reloaded(federation)
    begun = renewal(federation.folder / "a", "a")
    first = renewed(federation, "a", begun)
    federation.authority.invitation("a", TERMS)  # a leaf of the new one, the same key
    again = renewed(federation, "a", begun)
    assert again == first
    assert is_signed_by(old, certificate_in(again))


def test_certificates_of_an_authority_that_ended_bar_no_renewal(federation):
    federation.authority.replace_authority()
    reloaded(federation)
    for _ in range(3):
        begun = renewal(federation.folder / "a", "a")
        begun.accept(renewed(federation, "a", begun))
    invited(federation, "a")
    federation.authority.finish_replacement()
    reloaded(federation)
    federation.authority.renew("a", renewal(federation.folder / "a", "a").request_pem)
    (partner, _) = federation.authority.partners()
    present = federation.authority.authorities.present
    found = [certificate_in(one.pem) for one in partner.certificates]
    assert all(is_signed_by(present, leaf) for leaf in found)
    assert len(found) == 2  # the invitation's, for another day, and the new one


def test_certificates_of_the_page_are_of_both_until_it_is_finished(federation):
    alice = federation.authority.operators.admit("alice").certificate_pem
    federation.authority.replace_authority()
    bob = reloaded(federation).operators.admit("bob").certificate_pem
    for pem in (alice, bob):
        assert federation.authority.operators.checked(pem)
    federation.authority.finish_replacement()
    assert reloaded(federation).operators.checked(bob) == "bob"
    with pytest.raises(IdentityError, match="not signed by this federation"):
        federation.authority.operators.checked(alice)


def test_an_interrupted_replacement_has_not_begun(federation):
    home = federation.folder / "authority"
    (home / "authority.before.pem").write_bytes((home / "authority.pem").read_bytes())
    (home / "authority.before.pem").chmod(0o600)
    authority = reloaded(federation)
    assert authority.authorities.before is None
    authority.replace_authority()
    with pytest.raises(IdentityError, match="authority finish"):
        reloaded(federation).replace_authority()


def test_commands_show_replace_and_finish(tmp_path, monkeypatch, capsys):
    home = kept(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDTRAIN_AGGREGATOR_HOME", str(home.path))

    def done(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--format", "json"])
        return ended.value.code, capsys.readouterr()

    before = json.loads(done("authority", "show")[1].out)
    code, shown = done("authority", "replace")
    assert code == 0
    assert json.loads(shown.out)["to_invite"] == ["bank-a", "bank-b"]
    present, last = json.loads(shown.out)["authorities"]
    assert last["authority"] == before["authorities"][0]["authority"]
    assert done("partners", "invite", "bank-a")[0] == 0
    code, refused = done("authority", "finish")
    assert code == 11
    assert "bank-b would be shut out" in refused.out
    assert "bank-a" not in refused.out
    code, shown = done("authority", "finish", "--force")
    assert json.loads(shown.out)["authorities"] == [present]
    assert not list((home.path / "authority").glob("authority.b*"))


def test_the_bridge_vouches_for_one_key_and_signs_no_second_one(federation):
    old = federation.authority.authorities.present
    federation.authority.replace_authority()
    authorities = reloaded(federation).authorities
    bridge = certificate_in(authorities.bridge_pem)
    assert is_signed_by(old, bridge)
    assert bridge.public_key() == authorities.present.public_key()
    assert pem_of(bridge) != pem_of(authorities.present)
