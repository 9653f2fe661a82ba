"""Sends the weights to all at once, and takes theirs; one thread each."""

import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from simulations.service.peers.bound.tls import context, receive, send
from simulations.service.workload import (
    NUM_CLIENTS,
    NUM_ROUNDS,
    PORT,
    Marks,
    Weights,
    arguments,
    start,
)


def main() -> None:
    """All rounds. A round's clock stops when all bytes are there."""
    about = arguments()
    folder = Path(about["folder"])
    marks = Marks(folder)
    connections = _connected(folder)
    marks.idle()
    weights = start(about["weights"])
    buffers = [np.empty_like(weights) for _ in connections]
    with ThreadPoolExecutor(NUM_CLIENTS) as pool:
        for _ in range(NUM_ROUNDS):
            list(pool.map(partial(_exchange, weights), connections, buffers))
            marks.round_done()
            weights = np.mean(buffers, axis=0, dtype=np.float32)
    marks.done(weights)


def _exchange(weights: Weights, connection: ssl.SSLSocket, buffer: Weights) -> None:
    send(connection, weights)
    if not receive(connection, buffer):
        raise ConnectionError("A client has gone.")


def _connected(folder: Path) -> list[ssl.SSLSocket]:
    pair = folder / "server-pair.pem"
    pair.write_bytes(
        (folder / "server.key").read_bytes() + (folder / "server.pem").read_bytes()
    )
    made = context(folder, pair, is_server=True)
    with socket.create_server(("127.0.0.1", PORT), backlog=NUM_CLIENTS) as listener:
        return [
            made.wrap_socket(listener.accept()[0], server_side=True)
            for _ in range(NUM_CLIENTS)
        ]


if __name__ == "__main__":
    main()
