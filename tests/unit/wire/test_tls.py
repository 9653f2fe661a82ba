"""The TLS settings against `openssl s_client`, which may do what our side may not."""

import datetime
import shutil
import socket
import ssl
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from cryptography.hazmat.primitives import serialization

from aggregator.authority import init
from aggregator.leaves import Issuer, client_leaf, new_key, server_leaf
from fedtrain.core.errors import IdentityError
from fedtrain.wire.acceptance import accept
from fedtrain.wire.certificates import certificate_in
from fedtrain.wire.enrolment import EnrolmentRequest
from fedtrain.wire.identity import (
    new_keys,
    store_tls_pair,
    tls_key_in,
    tls_pair_in,
)
from fedtrain.wire.tls import (
    channel_credentials,
    channel_options,
    page_context,
    server_credentials,
)

_PEM = serialization.Encoding.PEM
NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
METHOD = "/test.Echo/Echo"
TLS_1_1 = ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
WEAK_SUITES = (
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA384",
    "ECDHE-ECDSA-AES128-CCM8",
    "ECDHE-ECDSA-NULL-SHA",
    "AECDH-AES128-SHA",
)
# gRPC's server closes the connection of whom it refuses, without an alert.
CUT_OFF = "unexpected eof while reading"
pytestmark = [
    pytest.mark.network,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is missing"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory, terms):
    """A served authority, a partner's home, and leaves that must be refused."""
    folder = tmp_path_factory.mktemp("world")
    authority = init(folder / "operator", name="test", hosts=["localhost"])
    home = folder / "bank-a"
    request = EnrolmentRequest.of("bank-a", new_keys(home))
    accept(authority.admit(request, terms), home)
    (folder / "authority.crt").write_bytes(authority.authority_pem)
    issuer = Issuer(
        tls_key_in(folder / "operator" / "authority.pem"),
        certificate_in(authority.authority_pem),
    )
    other = init(folder / "other", name="test", hosts=["localhost"])
    stranger = folder / "stranger"
    accept(
        other.admit(EnrolmentRequest.of("bank-a", new_keys(stranger)), terms),
        stranger,
    )
    key = new_key()
    public = key.public_key()
    leaves = {
        "expired": client_leaf(public, "bank-a", issuer=issuer, now=NOW - 91 * DAY),
        "early": client_leaf(public, "bank-a", issuer=issuer, now=NOW + DAY),
        "server": server_leaf(public, "x", hosts=["x"], issuer=issuer, now=NOW),
        "bank-b": client_leaf(public, "bank-b", issuer=issuer, now=NOW),
        "other host": server_leaf(public, "x", hosts=["x"], issuer=issuer, now=NOW),
    }
    paths = {"good": home / "tls.pem", "stranger": stranger / "tls.pem"}
    for name, leaf in leaves.items():
        paths[name] = folder / f"{name}.pem"
        store_tls_pair(paths[name], key, leaf.public_bytes(_PEM))
    return authority, folder / "authority.crt", paths


def served(pair, authority):
    """A server that answers who calls, as the authority sees it; and its port."""

    def answer(request, context):
        pem = context.auth_context()["x509_pem_cert"][0]
        try:
            return authority.checked(request.decode(), pem).client_id.encode()
        except IdentityError as error:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))

    server = grpc.server(ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("test.Echo", {"Echo": handler})]
    )
    credentials = server_credentials(pair, authority_pem=authority.authority_pem)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    return server, port


@pytest.fixture(scope="module")
def port(world):
    authority = world[0]
    server, port = served(authority.server_pair, authority)
    yield port
    server.stop(None).wait()


def s_client(port, world, *arguments, pair="good"):
    """Output of a handshake, and whether it was completed."""
    _, authority_path, paths = world
    shown = ["-cert", paths[pair], "-key", paths[pair]] if pair else []
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}"]
    settings = ["-CAfile", authority_path, "-verify_return_error", "-alpn", "h2"]
    done = subprocess.run(
        [*command, *settings, "-servername", "localhost", *shown, *arguments],
        input=b"",
        capture_output=True,
        check=False,
        timeout=30,
    )
    return (done.stdout + done.stderr).decode(errors="replace"), done.returncode == 0


def called(port, pair, authority_pem, client_id=b"bank-a", name="localhost"):
    credentials = channel_credentials(pair, authority_pem=authority_pem)
    options = channel_options(server_name=name)
    address = f"127.0.0.1:{port}"
    with grpc.secure_channel(address, credentials, options) as channel:
        return channel.unary_unary(METHOD)(client_id, timeout=5)


def refused(*arguments, **settings):
    with pytest.raises(grpc.RpcError) as caught:
        called(*arguments, **settings)
    return caught.value


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_partner_shakes_hands(port, world, version):
    output, is_done = s_client(port, world, version)
    assert is_done, output
    assert "Verification: OK" in output or "Verify return code: 0" in output


def test_tls_1_1_is_refused(port, world):
    output, is_done = s_client(port, world, *TLS_1_1)
    assert not is_done
    assert CUT_OFF in output


@pytest.mark.parametrize("suite", WEAK_SUITES)
def test_weak_suites_are_refused(port, world, suite):
    output, is_done = s_client(
        port, world, "-tls1_2", "-cipher", f"{suite}:@SECLEVEL=0"
    )
    assert not is_done
    assert CUT_OFF in output


@pytest.mark.parametrize("pair", ["stranger", "expired", "early", "server", None])
def test_certificates_of_no_client_are_refused(port, world, pair):
    output, is_done = s_client(port, world, "-tls1_2", pair=pair)
    assert not is_done
    assert CUT_OFF in output


def test_a_call_is_the_partners_that_its_certificate_names(port, world):
    authority, _, paths = world
    good = tls_pair_in(paths["good"])
    assert called(port, good, authority.authority_pem) == b"bank-a"
    other = tls_pair_in(paths["bank-b"])
    for client_id, reason in ((b"bank-a", "is needed"), (b"bank-b", "not a partner")):
        error = refused(port, other, authority.authority_pem, client_id=client_id)
        assert error.code() == grpc.StatusCode.PERMISSION_DENIED
        assert reason in error.details()


def test_a_partner_refuses_another_authoritys_server(port, world):
    authority, _, paths = world
    good = tls_pair_in(paths["good"])
    stranger = tls_pair_in(paths["stranger"])
    assert stranger.certificate_pem != good.certificate_pem
    error = refused(port, good, good.certificate_pem)
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    error = refused(port, good, authority.authority_pem, name="elsewhere")
    assert error.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        ("bank-b", "CERTIFICATE_VERIFY_FAILED"),
        ("expired", "CERTIFICATE_VERIFY_FAILED"),
        ("early", "CERTIFICATE_VERIFY_FAILED"),
        ("other host", "Hostname Verification Check failed"),
    ],
)
def test_a_partner_refuses_a_server_with_a_wrong_certificate(world, pair, reason):
    authority, _, paths = world
    server, port = served(lambda: tls_pair_in(paths[pair]), authority)
    try:
        good = tls_pair_in(paths["good"])
        error = refused(port, good, authority.authority_pem)
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert reason in error.details()
    finally:
        server.stop(None).wait()


def test_a_new_certificate_needs_no_restart(port, world):
    authority, _, paths = world
    before, _ = s_client(port, world, "-tls1_2")
    authority.rotate_server()
    after, is_done = s_client(port, world, "-tls1_2")
    assert is_done
    assert shown_certificate(before) != shown_certificate(after)
    new = authority.server_pair().certificate_pem.decode()
    assert shown_certificate(after) in new
    good = tls_pair_in(paths["good"])
    assert called(port, good, authority.authority_pem) == b"bank-a"


def test_a_certificate_that_cannot_be_read_keeps_the_one_before(world):
    authority = world[0]
    pairs = iter([authority.server_pair()])
    server, port = served(lambda: next(pairs), authority)
    try:
        assert s_client(port, world, "-tls1_2")[1]
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(
    ("arguments", "pair", "is_accepted"),
    [
        (("-tls1_2",), None, True),
        (("-tls1_3",), "good", True),
        (TLS_1_1, None, False),
        (("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"), None, False),
        (("-tls1_2",), "stranger", False),
        (("-tls1_2",), "expired", False),
        (("-tls1_2",), "server", False),
    ],
)
def test_the_page_takes_modern_tls_with_or_without_a_certificate(
    world, arguments, pair, is_accepted
):
    authority = world[0]
    context = page_context(authority.server_path, authority_pem=authority.authority_pem)
    output, is_done = handshake_with(context, world, *arguments, pair=pair)
    assert is_done == is_accepted, output


@pytest.mark.parametrize(
    "arguments",
    [
        TLS_1_1,
        *(("-tls1_2", "-cipher", f"{suite}:@SECLEVEL=0") for suite in WEAK_SUITES),
    ],
)
def test_this_openssl_can_do_what_is_refused_above(world, arguments):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    context.load_cert_chain(world[0].server_path)
    output, is_done = handshake_with(context, world, *arguments, pair=None)
    assert is_done, output


def handshake_with(context, world, *arguments, pair):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=one_handshake, args=(listener, context))
        thread.start()
        port = listener.getsockname()[1]
        found = s_client(port, world, *arguments, pair=pair)
        thread.join()
    return found


def one_handshake(listener, context):
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(10)
        try:
            context.wrap_socket(connection, server_side=True).unwrap().close()
        except OSError:
            return


def shown_certificate(output):
    start = output.index("-----BEGIN CERTIFICATE")
    return output[start : output.index("-----END CERTIFICATE")]
