"""A TCP proxy that drops, delays, duplicates, flips and truncates what passes."""

import contextlib
import socket
import threading
import time
from typing import Literal

import numpy as np

Mode = Literal["pass", "drop", "delay", "duplicate", "flip", "truncate"]
MODES: tuple[Mode, ...] = ("drop", "delay", "duplicate", "flip", "truncate")


class Proxy:
    """Listens on a port of its own, and connects to another one.

    Args:
      target: Port on loopback.
      chance: Where random numbers come from.

    Attributes:
      port: Where it listens.
      mode: What it does now; set it at any time.
    """

    def __init__(self, target: int, chance: np.random.Generator) -> None:
        self.mode: Mode = "pass"
        self._target = target
        self._chance = chance
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections."""
        # Closing alone does not wake the thread that waits for one.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            for pair in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(16 * 1024):
                sink.sendall(self._bent(data))
        except OSError:
            pass
        for end in (source, sink):
            # Closing alone neither wakes the other thread nor tells the peer.
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _bent(self, data: bytes) -> bytes:
        mode = self.mode
        if mode == "drop":
            raise OSError("dropped")
        if mode == "delay":
            time.sleep(self._chance.uniform(0.0, 0.3))
        if mode == "duplicate":
            return data + data
        if mode == "flip":
            at = self._chance.integers(len(data))
            return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        if mode == "truncate":
            return data[: self._chance.integers(len(data))]
        return data
