"""Addresses of this machine for processes that talk to each other."""

import contextlib
import socket


def free_addresses(num: int, host: str = "127.0.0.1") -> list[str]:
    """``num`` different addresses, as host:port, where nothing listens at this moment.

    Args:
      num: How many.
      host: A name or address of this machine.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(num)]
        for free in sockets:
            free.bind((host, 0))
        return [f"{host}:{free.getsockname()[1]}" for free in sockets]
