import threading

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedtrain.core.errors import IdentityError, WireError
from fedtrain.wire.decoding import decoded
from fedtrain.wire.messages_pb2 import SignedRequest
from fedtrain.wire.signing import (
    RefusedRequestError,
    ReplayedRequestError,
    ReplayGuard,
    Sequencer,
    signed,
    signed_bytes,
    verified,
)

KEYS = {name: Ed25519PrivateKey.generate() for name in ("bank-a", "bank-b")}
METHODS = ("Hello", "Next", "Fetch", "Submit", "Renew")
RUNS = ("", "run-1", "run-2")
COVERED = ("client_id", "run_id", "round_number", "sequence", "nonce", "body")
# The long search is the issue's: 10,000 cases that must all be refused.
FEW = settings(max_examples=100, deadline=None)
MANY = settings(max_examples=4_000, deadline=None)

methods = st.sampled_from(METHODS)
requests = st.builds(
    SignedRequest,
    client_id=st.sampled_from(sorted(KEYS)),
    run_id=st.sampled_from(RUNS),
    round_number=st.integers(0, 2**32 - 1),
    sequence=st.integers(1, 2**64 - 1),
    body=st.binary(max_size=200),
)


def checked(data, method, *, client_id, run_id, guard):
    """What the aggregator does with bytes that claim to be a request."""
    request = decoded(SignedRequest, data)
    body = verified(
        request,
        method,
        KEYS[client_id].public_key(),
        client_id=client_id,
        run_id=run_id,
    )
    guard.accept(client_id, request.sequence)
    return body


def refused(data, method, *, client_id, run_id, guard=None):
    with pytest.raises((IdentityError, WireError)):
        checked(
            data,
            method,
            client_id=client_id,
            run_id=run_id,
            guard=guard or ReplayGuard(),
        )


def flip_is_refused(request, method, place):
    data = signed(request, method, KEYS[request.client_id]).SerializeToString()
    position = place % (8 * len(data))
    flipped = bytearray(data)
    flipped[position // 8] ^= 1 << position % 8
    refused(bytes(flipped), method, client_id=request.client_id, run_id=request.run_id)


def reuse_is_refused(request, method, other_method, other_client, other_run):
    client_id, run_id = request.client_id, request.run_id
    assume((method, client_id, run_id) != (other_method, other_client, other_run))
    data = signed(request, method, KEYS[client_id]).SerializeToString()
    refused(data, other_method, client_id=other_client, run_id=other_run)


def change_is_refused(request, method, other, fields):
    original = signed(request, method, KEYS[request.client_id])
    changed = SignedRequest()
    changed.CopyFrom(original)
    for field in fields:
        setattr(changed, field, getattr(other, field))
    assume(changed != original)
    refused(
        changed.SerializeToString(),
        method,
        client_id=changed.client_id,
        run_id=changed.run_id,
    )


def replay_is_refused(first, second, method):
    """In any order, what is not above all that came before is refused."""
    guard = ReplayGuard()
    accept = {"client_id": "bank-a", "run_id": "run-1", "guard": guard}
    for request in (first, second):
        request.client_id, request.run_id = "bank-a", "run-1"
    low, high = sorted((first, second), key=lambda request: request.sequence)
    assume(low.sequence < high.sequence)
    early, late = (
        signed(request, method, KEYS["bank-a"]).SerializeToString()
        for request in (low, high)
    )
    assert checked(early, method, **accept) == low.body
    refused(early, method, **accept)
    assert checked(late, method, **accept) == high.body
    refused(late, method, **accept)
    refused(early, method, **accept)


flips = given(requests, methods, st.integers(0, 2**32))
reuses = given(
    requests, methods, methods, st.sampled_from(sorted(KEYS)), st.sampled_from(RUNS)
)
changes = given(
    requests, methods, requests, st.sets(st.sampled_from(COVERED), min_size=1)
)
replays = given(requests, requests, methods)
PROPERTIES = {
    "any flipped bit": flips(flip_is_refused),
    "another method, client or run": reuses(reuse_is_refused),
    "fields of another request": changes(change_is_refused),
    "replay and reordering": replays(replay_is_refused),
}
each_property = pytest.mark.parametrize(
    "holds", PROPERTIES.values(), ids=PROPERTIES.keys()
)


@each_property
def test_is_refused(holds):
    FEW(holds)()


@pytest.mark.slow
@each_property
def test_is_refused_in_thousands_of_cases(holds):
    MANY(holds)()


def test_every_single_bit_of_a_request_counts():
    request = SignedRequest(
        client_id="bank-a",
        run_id="run-1",
        round_number=2**31,
        sequence=2**63,
        body=b"x",
    )
    num_bits = 8 * len(signed(request, "Next", KEYS["bank-a"]).SerializeToString())
    for place in range(num_bits):
        flip_is_refused(request, "Next", place)


@FEW
@given(requests, methods)
def test_a_signed_request_gives_its_body(request, method):
    data = signed(request, method, KEYS[request.client_id]).SerializeToString()
    body = checked(
        data,
        method,
        client_id=request.client_id,
        run_id=request.run_id,
        guard=ReplayGuard(),
    )
    assert body == request.body


@FEW
@given(requests, methods, requests, methods)
def test_two_requests_never_have_the_same_signed_bytes(
    one, method, other, other_method
):
    assume((one, method) != (other, other_method))
    assert signed_bytes(one, method) != signed_bytes(other, other_method)


@FEW
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_the_declared_way(data):
    refused(data, "Next", client_id="bank-a", run_id="run-1")


def test_each_signature_has_a_nonce_of_its_own():
    request = SignedRequest(client_id="bank-a", sequence=1)
    nonces = {bytes(signed(request, "Next", KEYS["bank-a"]).nonce) for _ in range(9)}
    assert len(nonces) == 9
    assert request.nonce == b""


def test_refusals_say_why():
    request = SignedRequest(client_id="bank-a", run_id="run-1", sequence=1)
    key = KEYS["bank-a"].public_key()
    with pytest.raises(RefusedRequestError, match="its certificate 'bank-b'"):
        verified(request, "Next", key, client_id="bank-b", run_id="run-1")
    with pytest.raises(RefusedRequestError, match="for run 'run-1', not 'run-2'"):
        verified(request, "Next", key, client_id="bank-a", run_id="run-2")
    with pytest.raises(RefusedRequestError, match="wrong length"):
        verified(request, "Next", key, client_id="bank-a", run_id="run-1")


def test_a_restarted_guard_goes_on_from_what_it_remembered():
    guard = ReplayGuard()
    guard.accept("bank-a", 5)
    again = ReplayGuard(guard.remembered())
    with pytest.raises(ReplayedRequestError, match=r"Sequence 5 .* not above 5"):
        again.accept("bank-a", 5)
    again.accept("bank-b", 1)
    again.accept("bank-a", 6)


def test_of_many_threads_with_one_sequence_one_is_accepted():
    guard = ReplayGuard()
    accepted = []

    def call():
        try:
            guard.accept("bank-a", 7)
            accepted.append(True)
        except ReplayedRequestError:
            pass

    threads = [threading.Thread(target=call) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert accepted == [True]


def test_sequences_grow_across_restarts_and_clock_jumps():
    assert Sequencer().next() < Sequencer().next()
    times = iter([100, 50, 50, 200])
    sequencer = Sequencer(clock=lambda: next(times))
    assert [sequencer.next() for _ in range(3)] == [100, 101, 102]
    sequencer.skip_to(300)
    assert sequencer.next() == 301
