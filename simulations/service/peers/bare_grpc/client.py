"""Receives, trains, sends, over one call."""

import queue
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np

from fedtrain.wire.arrays import CHUNK_BYTES
from fedtrain.wire.identity import tls_pair_in
from fedtrain.wire.tls import channel_credentials, channel_options
from simulations.service.workload import NUM_ROUNDS, PORT, Training, Weights, arguments


def main() -> None:
    """All rounds of one client."""
    about = arguments()
    folder = Path(about["folder"])
    train = Training(about["position"], about["weights"], about["batches"])
    weights = np.empty(about["weights"], np.float32)
    answers: queue.SimpleQueue[Weights] = queue.SimpleQueue()
    credentials = channel_credentials(
        tls_pair_in(folder / about["client"] / "tls.pem"),
        authority_pem=(folder / "authority.pem").read_bytes(),
    )
    options = channel_options(server_name="localhost")
    with grpc.secure_channel(f"127.0.0.1:{PORT}", credentials, options) as channel:
        call = channel.stream_stream("/bare/Trade")
        parts = call(_sent(answers), wait_for_ready=True)
        for _ in range(NUM_ROUNDS):
            view, begin = memoryview(weights).cast("B"), 0
            while begin < len(view):
                part = next(parts)
                view[begin : begin + len(part)] = part
                begin += len(part)
            answers.put(train(weights))
        next(parts, None)  # there is none: waits until the watcher ends all


def _sent(answers: "queue.SimpleQueue[Weights]") -> Iterator[bytes]:
    for _ in range(NUM_ROUNDS):
        view = memoryview(answers.get()).cast("B")
        for begin in range(0, len(view), CHUNK_BYTES):
            yield bytes(view[begin : begin + CHUNK_BYTES])


if __name__ == "__main__":
    main()
