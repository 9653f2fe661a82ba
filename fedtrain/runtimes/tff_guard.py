"""Guards TensorFlow Federated's worker process; run as a program, never imported.

TFF's worker executes whatever computation it is sent, from anyone, on every network
interface, and outlives the Python process that started it. This program stands between:
it takes away the network, relays one Unix socket to the worker, and ends the worker
when its own standard input ends, which also happens when the parent is killed.

Usage: ``python tff_guard.py WORKER_BINARY SOCKET_PATH``. Prints ``isolated`` or
``open PORT`` once it listens.
"""

import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
CONNECT_TIMEOUT_S = 60.0
CHUNK_BYTES = 1 << 18

_INPUT_ENDED = threading.Event()


def main(binary: str, socket_path: str) -> None:
    """Runs the worker until standard input ends, then removes the socket's folder."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(socket_path)
    listener.listen()
    isolated = _leave_the_network()
    port = _unused_port()
    worker = subprocess.Popen(
        [binary, f"--port={port}"],
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        preexec_fn=_die_with_parent,
    )
    threading.Thread(target=_end_with_input, args=(worker,), daemon=True).start()
    threading.Thread(target=_accept, args=(listener, port), daemon=True).start()
    os.write(1, b"isolated\n" if isolated else b"open %d\n" % port)
    worker.wait()
    if _INPUT_ENDED.is_set():
        shutil.rmtree(os.path.dirname(socket_path), ignore_errors=True)


def _leave_the_network() -> bool:
    """Moves this process to a network of its own, where only loopback exists."""
    libc = ctypes.CDLL(None, use_errno=True)
    for flags in (CLONE_NEWNET, CLONE_NEWUSER | CLONE_NEWNET):
        if libc.unshare(flags) == 0:
            request = struct.pack("16sH14x", b"lo", IFF_UP)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
                fcntl.ioctl(control, SIOCSIFFLAGS, request)
            return True
    return False


def _unused_port() -> int:
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_with_input(worker: "subprocess.Popen[bytes]") -> None:
    while os.read(0, CHUNK_BYTES):
        pass
    _INPUT_ENDED.set()
    worker.kill()


def _accept(listener: socket.socket, port: int) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_relay, args=(connection, port), daemon=True).start()


def _relay(connection: socket.socket, port: int) -> None:
    worker = _connect(port)
    back = threading.Thread(target=_copy, args=(worker, connection), daemon=True)
    back.start()
    _copy(connection, worker)
    back.join()
    connection.close()
    worker.close()


def _connect(port: int) -> socket.socket:
    deadline = time.monotonic() + CONNECT_TIMEOUT_S
    while True:
        try:
            return socket.create_connection(("localhost", port))
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(CHUNK_BYTES):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        # One side went away: the other must learn of it.
        for end in (source, target):
            end.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
