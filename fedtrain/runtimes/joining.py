"""From ``TF_CONFIG`` to replicas: waiting for the other workers, and joining them.

TensorFlow itself waits for absent workers without end and without hearing Ctrl-C. So
the workers first meet over plain sockets, on the chief's own address, and hand the
address to TensorFlow when all are there.
"""

import contextlib
import faulthandler
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import tensorflow as tf

from fedtrain.core.errors import ConfigError, WorkerLostError
from fedtrain.runtimes.cluster_worker import cluster_config
from fedtrain.runtimes.execution import num_cores
from fedtrain.runtimes.replicas import Replicas

_POLL_S = 0.2
_TELL_AFTER_S = 5.0
# From the meeting to the first collective; TensorFlow needs a second or two.
_JOIN_TIMEOUT_S = 120.0
# A worker says at once who it is.
_INTRODUCTION_TIMEOUT_S = 5.0
_GO = b"go\n"


class Place(NamedTuple):
    """A worker's place among all.

    Attributes:
      addresses: ``host:port`` of each worker, the chief's first.
      worker: Which of them is this process.
    """

    addresses: tuple[str, ...]
    worker: int

    @property
    def on_this_machine(self) -> int:
        """How many of the workers have this worker's host."""
        hosts = [address.rpartition(":")[0] for address in self.addresses]
        return hosts.count(hosts[self.worker])

    @property
    def num_threads(self) -> int:
        """This worker's share of the cores."""
        return max(num_cores() // self.on_this_machine, 1)


def place_from_environment() -> Place | None:
    """This process's place by ``TF_CONFIG``; None without it, or without others.

    Raises:
      ConfigError: If ``TF_CONFIG`` is damaged, or names a task that does not train.
    """
    if not os.environ.get("TF_CONFIG"):
        return None
    config = cluster_config()
    cluster, task = config["cluster"], config["task"]
    chiefs, workers = cluster.get("chief", []), cluster["worker"]
    if task["type"] not in ("chief", "worker") or "ps" in cluster:
        raise ConfigError(
            f"TF_CONFIG's task type is {task['type']!r} in a cluster of "
            f"{sorted(cluster)}; here every task is a worker (or the chief) that "
            "trains its share. Parameter servers belong to train_async()."
        )
    before = len(chiefs) if task["type"] == "worker" else 0
    place = Place((*chiefs, *workers), before + int(task["index"]))
    if not 0 <= place.worker < len(place.addresses):
        raise ConfigError(
            f"TF_CONFIG's task index is {task['index']}, but its cluster has "
            f"{len(place.addresses)} places."
        )
    return place if len(place.addresses) > 1 else None


def join(
    place: Place,
    *,
    timeout_s: float = 600.0,
    tell: Callable[[str], None] = lambda line: None,
) -> Replicas:
    """Waits until all workers are up, and joins them; once in a process's life.

    Args:
      place: From ``place_from_environment``.
      timeout_s: How long to wait for the others.
      tell: Hears who is waited for.

    Raises:
      ConfigError: If TensorFlow has done something already.
      WorkerLostError: If the others are not there in time.
    """
    deadline = time.monotonic() + timeout_s
    meet = _wait_for_the_others if place.worker == 0 else _report_to_the_chief
    meet(place, deadline, tell)
    with _bounded_start():
        try:
            return Replicas(tf.distribute.MultiWorkerMirroredStrategy())
        except RuntimeError as error:
            raise ConfigError(
                "The workers have to be joined before TensorFlow does anything else "
                f"in this process: {error}"
            ) from error


@contextlib.contextmanager
def _bounded_start() -> Iterator[None]:
    """TensorFlow's start holds the interpreter; only a thread outside it can end it."""
    ended = signal.getsignal(signal.SIGTERM)
    faulthandler.dump_traceback_later(_JOIN_TIMEOUT_S, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        # TensorFlow makes the process deaf to it.
        signal.signal(signal.SIGTERM, ended)


def _wait_for_the_others(
    place: Place, deadline: float, tell: Callable[[str], None]
) -> None:
    missing = set(range(1, len(place.addresses)))
    told_at = time.monotonic() + _TELL_AFTER_S
    with contextlib.ExitStack() as stack:
        door = stack.enter_context(_door(place.addresses[0]))
        guests: dict[int, socket.socket] = {}
        while missing - set(guests):
            absent = [place.addresses[i] for i in sorted(missing - set(guests))]
            if time.monotonic() > told_at:
                tell(f"waiting for {', '.join(absent)}")
                told_at = float("inf")
            if time.monotonic() > deadline:
                raise WorkerLostError(f"These workers did not come: {absent}.")
            # Whoever else knocks at the port, or leaves again, is no reason to end.
            with contextlib.suppress(OSError):
                guest = stack.enter_context(door.accept()[0])
                number = _number_of(guest)
                if number in missing:
                    guests[number] = guest
            # One that ended while others were awaited may yet come back.
            guests = {i: guest for i, guest in guests.items() if not _has_left(guest)}
        _let_go(guests, place)


def _let_go(guests: Mapping[int, socket.socket], place: Place) -> None:
    for answer in (_said_go, _hung_up):
        for number, guest in guests.items():
            try:
                answer(guest)
            except OSError as error:
                raise WorkerLostError(
                    f"Worker {number} ({place.addresses[number]}) ended while the "
                    f"others were awaited ({error}). Start all workers again."
                ) from error


def _said_go(guest: socket.socket) -> None:
    guest.sendall(_GO)


def _hung_up(guest: socket.socket) -> None:
    """The guests do first, so that the chief's port stays usable."""
    guest.recv(1)


def _has_left(guest: socket.socket) -> bool:
    """A worker that has said who it is says no more: what comes is its end."""
    return bool(select.select([guest], [], [], 0.0)[0])


def _report_to_the_chief(
    place: Place, deadline: float, tell: Callable[[str], None]
) -> None:
    host, _, port = place.addresses[0].rpartition(":")
    told_at = time.monotonic() + _TELL_AFTER_S
    while time.monotonic() < deadline:
        if _chief_said_go((host, int(port)), place.worker, deadline):
            return
        if time.monotonic() > told_at:
            tell(f"waiting for the chief, {place.addresses[0]}")
            told_at = float("inf")
        time.sleep(_POLL_S)
    raise WorkerLostError(f"The chief, {place.addresses[0]}, did not answer.")


def _chief_said_go(chief: tuple[str, int], worker: int, deadline: float) -> bool:
    try:
        with socket.create_connection(chief, timeout=5.0) as line:
            line.settimeout(max(deadline - time.monotonic(), _POLL_S))
            line.sendall(f"{worker}\n".encode())
            return line.recv(len(_GO)) == _GO
    except OSError:  # it is not there yet, or hung up
        return False


def _door(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    is_local = host in ("localhost", "127.0.0.1", "::1")
    door = socket.create_server((host if is_local else "", int(port)))
    door.settimeout(_POLL_S)
    return door


def _number_of(guest: socket.socket) -> int:
    guest.settimeout(_INTRODUCTION_TIMEOUT_S)
    line = guest.makefile("rb", buffering=0).readline(16)
    guest.settimeout(_JOIN_TIMEOUT_S)
    return int(line) if line.strip().isdigit() else -1
