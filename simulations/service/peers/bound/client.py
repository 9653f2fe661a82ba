"""Receives, trains, sends, until the other side has gone."""

import socket
import time
from pathlib import Path

from simulations.service.peers.bound.tls import context, receive, send
from simulations.service.workload import PORT, Training, arguments, start


def main() -> None:
    """All rounds of one client."""
    about = arguments()
    folder = Path(about["folder"])
    made = context(folder, folder / about["client"] / "tls.pem", is_server=False)
    train = Training(about["position"], about["weights"], about["batches"])
    weights = start(about["weights"])
    with made.wrap_socket(_connected(), server_hostname="localhost") as connection:
        while receive(connection, weights):
            send(connection, train(weights))


def _connected() -> socket.socket:
    give_up = time.monotonic() + 60.0
    while True:
        try:
            return socket.create_connection(("127.0.0.1", PORT))
        except ConnectionRefusedError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.05)


if __name__ == "__main__":
    main()
