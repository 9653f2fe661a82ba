import dataclasses
import hashlib

import grpc
import pytest

from aggregator.authority import init
from clients.calls import (
    RefusedError,
    RejectedError,
    RoundClosedError,
    UnreachableError,
    raise_for,
)
from clients.transport import Transport, caller_of
from fedtrain.core.errors import StoppedError
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.acceptance import accept

pytestmark = pytest.mark.network


@pytest.fixture
def caller(bank):
    accept(bank.invitation, bank.home.path)
    return caller_of(bank.invitation, bank.home)


def task_for(content):
    digest = hashlib.sha256(content).digest()
    return pb.Task(broadcast_bytes=len(content), broadcast_sha256=digest)


@pytest.mark.parametrize("change", ["authority_pem", "server_name"])
def test_another_authority_or_name_gets_no_request(
    aggregator, caller, change, tmp_path
):
    other = init(tmp_path / "other", name="other", hosts=["localhost"])
    wrong = {"authority_pem": other.authority_pem, "server_name": "elsewhere"}
    stranger = dataclasses.replace(caller, **{change: wrong[change]})
    with Transport(stranger) as calls, pytest.raises(UnreachableError):
        calls.hello()
    assert not aggregator.said


@pytest.mark.parametrize("extra", [-1, 1])
def test_a_broadcast_longer_or_shorter_than_declared_is_refused(
    aggregator, caller, extra
):
    declared = aggregator.broadcast
    aggregator.broadcast = declared[:-1] if extra < 0 else declared + b"."
    with Transport(caller) as calls, pytest.raises(UnreachableError, match="damaged"):
        calls.fetch("run-1", task_for(declared), num_bytes=len(declared))


def test_a_request_for_another_run_is_refused(aggregator, caller):
    with Transport(caller) as calls, pytest.raises(RefusedError, match="run-2"):
        calls.next_task("run-2", plan_sha256="", status="", wait_ms=0)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (grpc.StatusCode.PERMISSION_DENIED, RefusedError),
        (grpc.StatusCode.FAILED_PRECONDITION, RoundClosedError),
        (grpc.StatusCode.UNIMPLEMENTED, StoppedError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, UnreachableError),
    ],
)
def test_a_status_means_what_the_agent_does_next(aggregator, caller, status, error):
    aggregator.faults["Fetch"].append(status)
    content = aggregator.broadcast
    with Transport(caller) as calls, pytest.raises(error, match="scripted"):
        calls.fetch("run-1", task_for(content), num_bytes=len(content))


def test_every_code_means_something():
    for code in pb.Code.values():
        if code in (pb.ACCEPTED, pb.DUPLICATE):
            raise_for(code, "")
            continue
        with pytest.raises(
            (
                UnreachableError,
                RoundClosedError,
                RejectedError,
                RefusedError,
                StoppedError,
            )
        ):
            raise_for(code, "why")
    with pytest.raises(UnreachableError, match="code 99"):
        raise_for(99, "")


def test_busy_says_how_long():
    with pytest.raises(UnreachableError) as caught:
        raise_for(pb.BUSY, "later", wait_ms=1500)
    assert caught.value.wait_s == 1.5
