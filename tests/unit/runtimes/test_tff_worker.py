"""The guard around TFF's worker, with a small program in the worker's place."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from fedtrain.runtimes import tff_guard

ECHO = """#!{python}
import socket, sys
server = socket.create_server(("", int(sys.argv[1].split("=")[1])))
while True:
    connection, _ = server.accept()
    connection.sendall(connection.recv(99))
    connection.close()
"""


@pytest.fixture
def guarded():
    """A guard over an echo server: the process, its socket and its first line."""
    # A socket's path has at most 107 characters; pytest's own folders are deeper.
    folder = Path(tempfile.mkdtemp(prefix="guard-"))
    program = folder / "worker"
    program.write_text(ECHO.format(python=sys.executable))
    program.chmod(0o700)
    path = folder / "worker.sock"
    with subprocess.Popen(
        [sys.executable, "-I", tff_guard.__file__, program, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        yield process, path, process.stdout.readline().split()
        process.kill()
    shutil.rmtree(folder, ignore_errors=True)


def children(process):
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(child) for child in path.read_text().split()]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid):
    deadline = time.monotonic() + 20
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(pid)


def test_relays_its_socket_to_the_worker(guarded):
    _, path, _ = guarded
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"hello")
        assert client.recv(99) == b"hello"


def test_no_network_reaches_an_isolated_worker(guarded):
    process, _, (state, *_) = guarded
    if state != b"isolated":
        pytest.skip("this system allows no network namespaces")
    ours = os.readlink("/proc/self/ns/net")
    assert [os.readlink(f"/proc/{c}/ns/net") != ours for c in children(process)] == [
        True
    ]


def test_end_of_input_ends_the_worker_and_removes_the_folder(guarded):
    process, path, _ = guarded
    (worker,) = children(process)
    process.stdin.close()
    process.wait(20)
    assert ends(worker)
    assert not path.parent.exists()


def test_the_worker_dies_with_a_killed_guard(guarded):
    process, _, _ = guarded
    (worker,) = children(process)
    os.kill(process.pid, signal.SIGKILL)
    assert ends(worker)
