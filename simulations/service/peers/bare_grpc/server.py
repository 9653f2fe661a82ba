"""Streams the weights to all, and takes theirs, in chunks as large as fedtrain's."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from fedtrain.wire.arrays import CHUNK_BYTES
from fedtrain.wire.identity import TlsPair
from fedtrain.wire.tls import server_credentials
from simulations.service.workload import (
    CLIENTS,
    NUM_ROUNDS,
    PORT,
    Marks,
    arguments,
    start,
)

_OPTIONS = [("grpc.max_receive_message_length", 2 * CHUNK_BYTES)]


class Exchange:
    """One call for each client and round: the weights down, the trained ones up."""

    def __init__(self, num_weights: int) -> None:
        self._num_weights = num_weights
        self._is_open = asyncio.Condition()
        self.connected = 0
        self.number = -1
        self.weights = b""
        self.buffers: dict[int, Any] = {}

    async def trade(self, parts: AsyncIterator[bytes], context: Any) -> None:
        """Waits for each round, sends it, and takes the answer."""
        position = self.connected
        self.connected += 1
        buffer = np.empty(self._num_weights, np.float32)
        for number in range(NUM_ROUNDS):
            async with self._is_open:
                await self._is_open.wait_for(lambda n=number: self.number >= n)
            for begin in range(0, len(self.weights), CHUNK_BYTES):
                await context.write(self.weights[begin : begin + CHUNK_BYTES])
            view, begin = memoryview(buffer).cast("B"), 0
            while begin < len(view):
                part = await anext(parts)
                view[begin : begin + len(part)] = part
                begin += len(part)
            async with self._is_open:
                self.buffers[position] = buffer
                self._is_open.notify_all()
        await asyncio.Event().wait()  # the watcher looks at open connections

    async def run(self, marks: Marks) -> None:
        """All rounds."""
        while self.connected < len(CLIENTS):
            await asyncio.sleep(0.05)
        marks.idle()
        weights = start(self._num_weights)
        for number in range(NUM_ROUNDS):
            async with self._is_open:
                self.weights, self.buffers = weights.tobytes(), {}
                self.number = number
                self._is_open.notify_all()
                await self._is_open.wait_for(lambda: len(self.buffers) == len(CLIENTS))
            marks.round_done()
            weights = np.mean(list(self.buffers.values()), axis=0, dtype=np.float32)
        marks.done(weights)


async def _serve(about: dict[str, Any]) -> None:
    folder = Path(about["folder"])
    exchange = Exchange(about["weights"])
    handler = grpc.stream_stream_rpc_method_handler(exchange.trade)
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("bare", {"Trade": handler})]
    )
    pair = TlsPair(
        (folder / "server.key").read_bytes(), (folder / "server.pem").read_bytes()
    )
    authority = (folder / "authority.pem").read_bytes()
    credentials = server_credentials(lambda: pair, authority_pem=authority)
    server.add_secure_port(f"127.0.0.1:{PORT}", credentials)
    await server.start()
    await exchange.run(Marks(folder))


if __name__ == "__main__":
    asyncio.run(_serve(arguments()))
