import base64

import pytest

from aggregator.audit_heads import check_heads, signed_head
from aggregator.events import Draft, Event
from aggregator.uploads import RefusedError
from fedtrain.core.errors import IdentityError
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.signing import signed
from tests.unit.aggregator.served_run import Federation


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    return Federation.of(tmp_path_factory.mktemp("operator"), ["a", "b"])


def noted(federation, name="a", length=7):
    """A contribution's request, and the event that the journal has of it."""
    header = pb.SubmitHeader(audit_length=length, audit_sha256=bytes(range(32)))
    request = pb.SignedRequest(
        client_id=name,
        run_id="run",
        round_number=3,
        sequence=11,
        body=header.SerializeToString(),
    )
    request = signed(request, "Submit", federation.keys[name].identity)
    body = {"client": name, "sequence": 11, **signed_head(request, header)}
    return body, Event(5, Draft("run", 3, 0, "accepted", body, 0), "", "")


def test_heads_are_proven_by_what_their_partner_signed(federation):
    events = [noted(federation, name)[1] for name in ("a", "b")]
    partners = federation.authority.partners()
    assert check_heads(events, partners).startswith("2 heads")
    with pytest.raises(IdentityError, match=r"Event 5 .* 'b'"):
        check_heads(events, partners[:1])


@pytest.mark.parametrize(
    "change",
    [
        {"length": 8},
        {"hash": "00" * 32},
        {"signed": "?"},
        {"signed": base64.b64encode(b"no request").decode()},
    ],
    ids=str,
)
def test_a_head_that_was_not_signed_so_is_named(federation, change):
    body, event = noted(federation)
    body["audit"] = body["audit"] | change
    with pytest.raises(IdentityError, match="did not sign"):
        check_heads([event], federation.authority.partners())


def test_another_partners_request_proves_nothing(federation):
    body, event = noted(federation)
    body["audit"] = noted(federation, "b")[0]["audit"]
    with pytest.raises(IdentityError, match="did not sign"):
        check_heads([event], federation.authority.partners())


def test_a_client_without_a_log_has_no_head_and_a_head_has_32_bytes():
    assert signed_head(pb.SignedRequest(), pb.SubmitHeader()) == {}
    with pytest.raises(RefusedError, match="32 bytes"):
        signed_head(pb.SignedRequest(), pb.SubmitHeader(audit_sha256=b"short"))
