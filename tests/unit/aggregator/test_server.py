import os
import subprocess
import sys
import threading
import time
import zlib

import grpc
import numpy as np
import pytest
from prometheus_client import generate_latest

from aggregator.calls import Served
from aggregator.server import Server, serving
from fedtrain.core.errors import ConfigError
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.arrays import to_bytes
from fedtrain.wire.identity import renewal
from tests.unit.aggregator.light_round import (
    SPECS,
    Collecting,
    arrays_of,
    call,
    equal,
    sum_of,
    until,
)
from tests.unit.aggregator.served_run import Client, Federation, plan, served

pytestmark = pytest.mark.network
NAMES = ["a", "b", "c"]


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    return Federation.of(tmp_path_factory.mktemp("federation"), [*NAMES, "revoked"])


@pytest.fixture
def run(federation, tmp_path):
    with served(federation, tmp_path) as run:
        yield run


@pytest.fixture
def clients(run):
    made = {name: run.client(name) for name in NAMES}
    yield made
    for client in made.values():
        client.close()


def _wait_task(client):
    task = client.next(10_000)
    assert task.kind == pb.TRAIN
    return task


def test_rounds_over_tls_give_the_sums_of_a_fault_free_run(run, clients):
    workers = [
        threading.Thread(target=lambda c=c: [c.work() for _ in range(3)])
        for c in clients.values()
    ]
    for worker in workers:
        worker.start()
    for number in range(3):
        broadcast = [np.full(300_000, number, np.float32)]
        asked = call(NAMES, round_number=number, broadcast=broadcast)
        collected = Collecting(run.rounds, asked).done()
        assert equal(collected.total(), sum_of(NAMES, number))
        run.rounds.committed(number, f"{number:064d}")
    for worker in workers:
        worker.join()
    run.rounds.finish("finished", "three rounds")
    task = clients["a"].next(10_000)
    assert (task.kind, task.text) == (pb.FINISHED, "three rounds")
    partners = run.server.traffic.partners
    assert set(NAMES) <= set(partners)
    assert all(
        time.time() * 1000 - p.last_seen_unix_ms < 60_000 for p in partners.values()
    )


def test_hello_gives_the_plan_and_names_a_version_that_does_not_fit(run, clients):
    client = clients["a"]
    good = pb.HelloRequest(protocol_versions=[7, 1], software="fedtrain 9")
    reply = client.call("Hello", client.signed("Hello", good))
    assert (reply.code, reply.run_id, reply.plan) == (
        pb.ACCEPTED,
        "run",
        plan().canonical(),
    )
    old = pb.HelloRequest(protocol_versions=[7], software="fedtrain 9")
    reply = client.call("Hello", client.signed("Hello", old))
    assert reply.code == pb.WRONG_VERSION
    assert "speaks version 1" in reply.text
    assert run.server.traffic.partners["a"].software == "fedtrain 9"


def test_who_waits_is_told_at_once_and_who_has_not_approved_gets_nothing(run, clients):
    told = []

    def wait():
        task = clients["a"].next(20_000)
        told.append((task.kind, time.monotonic()))

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.3)
    started = time.monotonic()
    collecting = Collecting(run.rounds, call(["a"]))
    waiting.join()
    assert told[0][0] == pb.TRAIN
    assert told[0][1] - started < 2.5
    silent = pb.NextRequest(wait_ms=20_000, status="waiting for approval")
    client = clients["b"]
    assert client.call("Next", client.signed("Next", silent)).kind == pb.WAIT
    assert run.server.traffic.partners["b"].status == "waiting for approval"
    other = pb.NextRequest(plan_sha256=bytes(32))
    reply = client.call("Next", client.signed("Next", other))
    assert reply.code == pb.WRONG_PLAN
    assert clients["a"].submit(clients["a"].next()).code == pb.ACCEPTED
    assert collecting.done().accepted == ("a",)


def test_requests_that_are_not_their_senders_are_refused(run, clients, federation):
    client = clients["a"]
    body = pb.NextRequest(plan_sha256=bytes.fromhex(plan().sha256))
    fresh = client.signed("Next", body)
    assert client.call("Next", fresh).code == pb.ACCEPTED
    assert client.call("Next", fresh).code == pb.REFUSED  # a replay
    for method in ("Hello", "Renew"):
        assert client.call(method, client.signed("Next", body)).code == pb.REFUSED
    changed = client.signed("Next", body)
    changed.round_number += 1
    assert client.call("Next", changed).code == pb.REFUSED
    as_b = client.signed("Next", body, client_id="b")
    assert client.call("Next", as_b).code == pb.REFUSED  # b's name, a's certificate
    client.key = federation.keys["b"].identity
    assert client.call("Next", client.signed("Next", body)).code == pb.REFUSED
    client.key = federation.keys["a"].identity
    elsewhere = client.signed("Next", body, run_id="other")
    assert client.call("Next", elsewhere).code == pb.WRONG_PLAN
    noise = pb.SignedRequest.FromString(b"\x2a\x01x")
    assert client.call("Next", noise).code == pb.REFUSED
    with pytest.raises(grpc.RpcError) as refused:
        list(client.call("Fetch", fresh))
    assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED


def test_a_revoked_partner_is_refused_from_the_next_call_on(run, federation):
    client = run.client("revoked")
    assert client.next().code == pb.ACCEPTED
    federation.authority.revoke("revoked")
    reply = client.next()
    client.close()
    assert reply.code == pb.REFUSED
    assert "was revoked" in reply.text


def test_bytes_that_are_no_message_are_malformed(run, clients):
    channel = clients["a"].channel
    for method in ("Hello", "Next", "Renew"):
        call_ = channel.unary_unary(f"/fedtrain.wire.v1.Aggregator/{method}")
        reply = pb.Receipt.FromString(call_(b"\xff\xff", timeout=10))
        assert reply.code == pb.MALFORMED
    submit = channel.stream_unary("/fedtrain.wire.v1.Aggregator/Submit")
    for parts in ([], [b"\xff"], [pb.SubmitPart(content=b"x").SerializeToString()]):
        reply = pb.Receipt.FromString(submit(iter(parts), timeout=10))
        assert reply.code == pb.MALFORMED
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/fedtrain.wire.v1.Aggregator/Next")(bytes(10**6))
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_unfit_uploads_have_their_code_and_the_round_goes_on(run, clients):
    collecting = Collecting(run.rounds, call(["a", "b"]))
    client = clients["a"]
    task = _wait_task(client)
    good = to_bytes(SPECS, arrays_of("a"))
    bad = to_bytes(SPECS, arrays_of("b"))
    parts = client.parts(task, good)
    assert client.call("Submit", iter(parts[:-1])).code == pb.MALFORMED
    parts = client.parts(task, good)
    assert client.call("Submit", iter([parts[0], *parts])).code == pb.MALFORMED
    flipped = bytes([good[0] ^ 1]) + good[1:]
    parts = [client.parts(task, good)[0], *client.parts(task, flipped)[1:]]
    assert client.call("Submit", iter(parts)).code == pb.MALFORMED
    assert client.submit(task, good * 100).code == pb.WRONG_SHAPE
    assert client.submit(task, good, num_bytes=2**60).code == pb.WRONG_SHAPE
    assert clients["c"].submit(task).code == pb.NOT_INVITED
    assert client.submit(task, good, attempt=9).code == pb.LATE
    infinite = [np.full((3, 2), np.inf, np.float32), np.array(0, np.int64)]
    assert client.submit(task, good).code == pb.ACCEPTED
    assert client.submit(task, good).code == pb.DUPLICATE
    assert client.submit(task, bad).code == pb.CONFLICT
    assert clients["b"].submit(task, to_bytes(SPECS, infinite)).code == pb.NON_FINITE
    collected = collecting.done()
    assert equal(collected.total(), sum_of(["a"]))
    assert collected.lost == {"b": "numbers that are not finite"}
    assert clients["b"].submit(task).code == pb.LATE
    assert not list(run.federation.folder.glob("**/*.part"))


def test_an_upload_that_breaks_off_leaves_no_trace(run, clients, tmp_path):
    collecting = Collecting(run.rounds, call(["a"]))
    client = clients["a"]
    task = _wait_task(client)
    go_on = threading.Event()

    def breaking():
        yield client.parts(task, to_bytes(SPECS, arrays_of("a")))[0]
        go_on.wait(10)

    stream = client.channel.stream_unary(
        "/fedtrain.wire.v1.Aggregator/Submit",
        request_serializer=lambda part: part.SerializeToString(),
    ).future(breaking(), timeout=20)
    until(lambda: list(tmp_path.glob("spool/train-*/*.part")))
    assert client.submit(task).code == pb.BUSY  # one upload at a time
    stream.cancel()
    go_on.set()
    until(lambda: not list(tmp_path.glob("spool/train-*/*.part")))
    assert client.submit(task).code == pb.ACCEPTED
    collecting.done()


def test_compressed_contributions_are_the_same_contributions(run, clients):
    collecting = Collecting(run.rounds, call(["a"]))
    task = _wait_task(clients["a"])
    content = to_bytes(SPECS, arrays_of("a"))
    header = clients["a"].parts(task, content, encoding=pb.ZLIB)[0]
    bomb = pb.SubmitPart(content=zlib.compress(bytes(10**6)))
    receipt = clients["a"].call("Submit", iter([header, bomb]))
    assert receipt.code == pb.MALFORMED
    header = clients["a"].parts(task, content, encoding=pb.ZLIB)[0]
    packed = pb.SubmitPart(content=zlib.compress(content))
    assert clients["a"].call("Submit", iter([header, packed])).code == pb.ACCEPTED
    assert equal(collecting.done().total(), sum_of(["a"]))


def test_a_certificate_is_renewed_over_the_wire(run, federation):
    client = run.client("c")
    new = renewal(federation.folder / "c", "c")
    body = pb.RenewRequest(certificate_request=new.request_pem.encode())
    reply = client.call("Renew", client.signed("Renew", body))
    client.close()
    assert reply.code == pb.ACCEPTED
    assert reply.certificate.startswith(b"-----BEGIN CERTIFICATE")


def test_a_restarted_aggregator_goes_on_and_refuses_what_was_replayed(
    federation, tmp_path
):
    with served(federation, tmp_path) as run:
        Collecting(run.rounds, call(NAMES, least=3))
        first = run.client("a")
        task = _wait_task(first)
        parts = first.parts(task, to_bytes(SPECS, arrays_of("a")))
        assert first.call("Submit", iter(parts)).code == pb.ACCEPTED
        renewed = renewal(tmp_path, "a").request_pem.encode()
        bodies = {
            "Hello": pb.HelloRequest(protocol_versions=[1]),
            "Next": pb.NextRequest(plan_sha256=bytes.fromhex(plan().sha256)),
            "Renew": pb.RenewRequest(certificate_request=renewed),
        }
        said = {method: first.signed(method, body) for method, body in bodies.items()}
        for method, request in said.items():
            assert first.call(method, request).code != pb.REFUSED
        first.close()
    with served(federation, tmp_path, run.port) as run:
        client = run.client("a")
        assert client.call("Submit", iter(parts)).code == pb.REFUSED
        for method, request in said.items():
            assert "not above" in client.call(method, request).text
        assert client.submit(task).code == pb.DUPLICATE
        assert run.rounds.status()["round"]["accepted"] == ["a"]
        for name in ("b", "c"):
            other = run.client(name)
            assert other.work() == pb.ACCEPTED
            other.close()
        collected = run.rounds.collect(call(NAMES, least=3))
        assert equal(collected.total(), sum_of(NAMES))
        client.close()


def test_a_broadcast_that_is_gone_is_asked_for_again(federation, tmp_path):
    with served(federation, tmp_path) as run:
        Collecting(run.rounds, call(["a"]))
        client = run.client("a")
        task = _wait_task(client)
        (path,) = (tmp_path / "spool" / "broadcasts").iterdir()
        path.unlink()
        _asks_in_vain(client, task)
        client.close()
    with served(federation, tmp_path) as run:
        client = run.client("a")
        _asks_in_vain(client, task)  # it is answered before training goes on
        collecting = Collecting(run.rounds, call(["a"]))
        until(path.is_file)
        assert client.work() == pb.ACCEPTED
        client.close()
        assert collecting.done().attempt == 0


def _asks_in_vain(client, task):
    with pytest.raises(grpc.RpcError) as refused:
        client.fetch(task)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "written again" in refused.value.details()


def test_draining_sends_those_who_wait_away(federation, tmp_path):
    with served(federation, tmp_path) as run:
        client = run.client("a")
        answers = []
        waiting = threading.Thread(target=lambda: answers.append(client.next(25_000)))
        waiting.start()
        until(lambda: "a" in run.server.traffic.partners)
        time.sleep(0.1)
        started = time.monotonic()
    waiting.join()
    client.close()
    assert time.monotonic() - started < 8
    assert (answers[0].kind, answers[0].wait_ms) == (pb.WAIT, 2000)


def test_a_server_leaves_the_environment_of_its_program_alone(
    federation, tmp_path, monkeypatch
):
    monkeypatch.delenv("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", raising=False)
    before = dict(os.environ)
    with served(federation, tmp_path):
        assert dict(os.environ) == before


def test_a_port_in_use_is_one_clear_error(run):
    about = Served(run.rounds, run.federation.authority, plan().canonical())
    second = Server(about, address=f"localhost:{run.port}")
    with pytest.raises(ConfigError, match="another aggregator"), serving(second):
        pass


_FLOOD = """
import os, socket, sys
address = ("localhost", int(sys.argv[1]))
idle = [socket.create_connection(address) for _ in range(200)]
print("begun", flush=True)
while True:
    with socket.create_connection(address) as stranger:
        stranger.sendall(os.urandom(512))
"""


def test_strangers_cannot_stop_honest_rounds(run, clients):
    flood = subprocess.Popen(
        [sys.executable, "-c", _FLOOD, str(run.port)], stdout=subprocess.PIPE
    )
    try:
        assert flood.stdout.readline() == b"begun\n"
        collecting = Collecting(run.rounds, call(NAMES))
        for client in clients.values():
            until(lambda c=client: _works(c), timeout_s=30)
        assert flood.poll() is None
        assert equal(collecting.done().total(), sum_of(NAMES))
    finally:
        flood.kill()
        flood.communicate()


def _works(client):
    """One try of a partner's program, which tries for ever."""
    try:
        return client.work(1000) in (pb.ACCEPTED, pb.DUPLICATE)
    except grpc.RpcError:
        return False


@pytest.mark.parametrize("has_own_authority", [True, False])
def test_a_peer_without_a_certificate_of_the_authority_gets_no_connection(
    run, federation, tmp_path, has_own_authority
):
    if has_own_authority:
        other = Federation.of(tmp_path / "other", ["a"])
        # It trusts the right server, but shows its own authority's certificate.
        mixed = Federation(tmp_path, federation.authority, other.keys, other.pairs)
        client = Client(mixed, "a", run.port)
        stranger = client.channel
    else:
        credentials = grpc.ssl_channel_credentials(federation.authority.authority_pem)
        stranger = grpc.secure_channel(f"localhost:{run.port}", credentials)
    call_ = stranger.unary_unary("/fedtrain.wire.v1.Aggregator/Hello")
    with pytest.raises(grpc.RpcError) as refused:
        call_(b"", timeout=3)
    stranger.close()
    assert refused.value.code() in {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }


def test_metrics_count_calls_bytes_and_rounds(run, clients):
    collecting = Collecting(run.rounds, call(["a"]))
    assert clients["a"].work() == pb.ACCEPTED
    collecting.done()
    text = generate_latest(run.server.registry).decode()
    assert 'fedtrain_requests_total{code="ACCEPTED",method="Submit"} 1.0' in text
    assert 'fedtrain_round_events_total{kind="closed"} 1.0' in text
    assert 'fedtrain_bytes_total{direction="received"} 32.0' in text
    assert "fedtrain_connected_partners 1.0" in text
