"""The process that executes TensorFlow Federated's computations, and its end."""

import logging
import shutil
import subprocess
import sys
import tempfile
import time
import weakref
from pathlib import Path

import grpc

from fedtrain.core.errors import FedtrainError
from fedtrain.runtimes import tff_guard

_LOG = logging.getLogger(__name__)
_START_TIMEOUT_S = 120.0
_END_TIMEOUT_S = 10.0
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]


class TffWorker:
    """TFF's worker behind a guard that ends it together with this process.

    The worker runs any computation that reaches it, from anyone. The guard gives it a
    network namespace of its own and relays one Unix socket, which only this user can
    open. Where the system does not allow namespaces a warning is logged.

    Attributes:
      channel: The gRPC channel to the worker.
      is_isolated: Whether the worker is cut off from every network.
    """

    def __init__(self, binary: Path) -> None:
        """Starts the process and waits until it answers."""
        folder = Path(tempfile.mkdtemp(prefix="fedtrain-tff-"))
        self._log_path = folder / "worker.log"
        socket_path = folder / "worker.sock"
        self._process = _start(binary, socket_path, self._log_path)
        self._end = weakref.finalize(self, _end, self._process, folder)
        try:
            self.is_isolated = self._read_isolation()
            self.channel = self._connect(socket_path)
        except BaseException:
            self._end()
            raise

    def close(self) -> None:
        """Ends the worker and removes its socket.

        The channel is not closed but left to the garbage collector: TFF subscribes to
        it, and gRPC's polling thread raises when a channel is closed under it.
        """
        self._end()

    def _read_isolation(self) -> bool:
        line = self._process.stdout.readline().decode() if self._process.stdout else ""
        if line.startswith("open"):
            _LOG.warning(
                "TensorFlow Federated's worker listens on every network interface, "
                "port %s, until the runtime is closed, and runs whatever it is sent: "
                "this system allows no network namespaces. Use a trusted network.",
                line.split()[1],
            )
        return line.startswith("isolated")

    def _connect(self, socket_path: Path) -> grpc.Channel:
        channel = grpc.insecure_channel(f"unix:{socket_path}", _CHANNEL_OPTIONS)
        ready = grpc.channel_ready_future(channel)
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                ready.result(timeout=1.0)
            except grpc.FutureTimeoutError:
                continue
            return channel
        log = self._log_path.read_text(errors="replace")[-1000:]
        raise FedtrainError(f"TensorFlow Federated's worker did not start:\n{log}")


def _start(
    binary: Path, socket_path: Path, log_path: Path
) -> "subprocess.Popen[bytes]":
    # A session of its own, so that Ctrl-C reaches this process and not the guard: the
    # guard ends when its input does. Its log is a file, so no reader waits for it.
    with log_path.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-I", tff_guard.__file__, str(binary), str(socket_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )


def _end(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(_END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    shutil.rmtree(folder, ignore_errors=True)
