import contextlib
import json
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from fedtrain.core.addresses import free_addresses
from fedtrain.core.errors import ConfigError, WorkerLostError
from fedtrain.runtimes.execution import num_cores
from fedtrain.runtimes.joining import (
    Place,
    _let_go,
    _report_to_the_chief,
    _wait_for_the_others,
    place_from_environment,
)


@pytest.fixture
def place_of(monkeypatch):
    def place(cluster, kind, index):
        task = {"type": kind, "index": index}
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
        return place_from_environment()

    return place


def test_the_chief_comes_before_the_workers(place_of):
    cluster = {"chief": ["a:1"], "worker": ["b:1", "b:2"]}
    assert place_of(cluster, "chief", 0).worker == 0
    place = place_of(cluster, "worker", 1)
    assert place == Place(("a:1", "b:1", "b:2"), 2)
    assert place.on_this_machine == 2
    assert place.num_threads == max(num_cores() // 2, 1)


def test_without_others_there_is_no_place(place_of, monkeypatch):
    assert place_of({"worker": ["a:1"]}, "worker", 0) is None
    monkeypatch.delenv("TF_CONFIG")
    assert place_from_environment() is None


@pytest.mark.parametrize(
    ("cluster", "kind", "index", "words"),
    [
        ({"worker": ["a:1"], "ps": ["a:2"]}, "worker", 0, "Parameter servers"),
        ({"worker": ["a:1", "a:2"]}, "evaluator", 0, "'evaluator'"),
        ({"worker": ["a:1", "a:2"]}, "worker", 2, "2 places"),
    ],
)
def test_a_task_that_does_not_train_is_refused(place_of, cluster, kind, index, words):
    with pytest.raises(ConfigError, match=words):
        place_of(cluster, kind, index)


@pytest.mark.network
def test_workers_meet_whoever_comes_first():
    addresses = tuple(free_addresses(3))
    deadline = time.monotonic() + 30.0
    told = []
    with ThreadPoolExecutor(3) as pool:
        early = pool.submit(
            _report_to_the_chief, Place(addresses, 2), deadline, told.append
        )
        chief = pool.submit(
            _wait_for_the_others, Place(addresses, 0), deadline, told.append
        )
        time.sleep(0.3)
        assert not chief.done()
        assert not early.done()
        _report_to_the_chief(Place(addresses, 1), deadline, told.append)
        early.result(10.0)
        chief.result(10.0)
    assert told == []


@pytest.mark.network
@pytest.mark.parametrize("words", [b"", b"GET / HTTP/1.1\r\n\r\n", b"7\n"])
def test_a_stranger_at_the_port_is_no_worker(words):
    addresses = tuple(free_addresses(2))
    deadline = time.monotonic() + 30.0
    with ThreadPoolExecutor(1) as pool:
        chief = pool.submit(
            _wait_for_the_others, Place(addresses, 0), deadline, lambda line: None
        )
        _knock(addresses[0], words)
        _report_to_the_chief(Place(addresses, 1), deadline, lambda line: None)
        chief.result(10.0)


@pytest.mark.network
def test_a_worker_that_ends_while_others_are_awaited_may_come_back():
    addresses = tuple(free_addresses(3))
    deadline = time.monotonic() + 30.0
    with ThreadPoolExecutor(3) as pool:
        chief = pool.submit(
            _wait_for_the_others, Place(addresses, 0), deadline, lambda line: None
        )
        _knock(addresses[0], b"1\n")
        second = pool.submit(
            _report_to_the_chief, Place(addresses, 2), deadline, lambda line: None
        )
        time.sleep(0.5)
        assert not chief.done()
        assert not second.done()
        _report_to_the_chief(Place(addresses, 1), deadline, lambda line: None)
        second.result(10.0)
        chief.result(10.0)


@pytest.mark.network
def test_a_worker_that_ends_at_the_last_moment_is_named():
    mine, other = socket.socketpair()
    with mine:
        other.close()
        place = Place(("a:1", "b:2"), 0)
        with pytest.raises(WorkerLostError, match=r"Worker 1 \(b:2\) ended"):
            _let_go({1: mine}, place)


def _knock(address, words):
    """Says something and leaves without an answer, as a port's probe does."""
    host, _, port = address.rpartition(":")
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            stranger = socket.create_connection((host, int(port)), timeout=10.0)
            break
    with stranger:
        # Leaves with a reset.
        linger = struct.pack("ii", 1, 0)
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        stranger.sendall(words)


@pytest.mark.network
@pytest.mark.parametrize(
    ("meet", "worker"), [(_wait_for_the_others, 0), (_report_to_the_chief, 1)]
)
def test_waiting_ends(meet, worker):
    addresses = tuple(free_addresses(2))
    absent = addresses[1 - worker]
    with pytest.raises(WorkerLostError, match=absent):
        meet(Place(addresses, worker), time.monotonic() + 0.5, lambda line: None)
