"""What secure aggregation costs, cell by cell, each in a process of its own.

    uv run python -m simulations.secure_aggregation.run [--weights 1e5 1e6]

One client and the aggregator are measured; what the other clients do is only what these
two need of them. Times are processor seconds, so other work on the machine disturbs
them little; memory is the peak of the resident set above what there was before.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedtrain.aggregation.fixed_point import FixedPoint, to_ring
from fedtrain.core.keystream import KeyStream, new_key
from fedtrain.secagg import masks
from fedtrain.secagg.client import ClientSession
from fedtrain.secagg.envelopes import encoded, enveloped
from fedtrain.secagg.messages_pb2 import MASKED_INPUT, MaskedInput
from fedtrain.secagg.parameters import parameters_for
from fedtrain.secagg.server import ServerSession
from fedtrain.secagg.simulated_network import SimulatedNetwork

WEIGHTS = (1e5, 1e6, 1e7, 1e8)
CLIENTS = (3, 10, 50)
_WORD_BYTES = 4
_Result = TypeVar("_Result")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a row for each cell; returns the exit code."""
    asked = _parser().parse_args(arguments)
    if asked.cell:
        num_weights, num_clients = map(int, asked.cell)
        print(json.dumps(measured(num_weights, num_clients)))
        return 0
    gigabytes = aes_bytes_per_s() / 1e9
    print(f"{platform.processor() or platform.machine()}, AES-256-CTR ", end="")
    print(f"{gigabytes:.2f} GB/s on one core\n")
    print(_row(_HEADINGS))
    print(_row(["---:"] * len(_HEADINGS)))
    for num_weights in map(int, asked.weights):
        for num_clients in asked.clients:
            cell = _in_own_process(num_weights, num_clients)
            print(_row(_written(cell, gigabytes)), flush=True)
    return 0


def aes_bytes_per_s() -> float:
    """How many bytes of AES-256-CTR key stream this machine makes in a second."""
    encryptor = Cipher(algorithms.AES(new_key()), modes.CTR(bytes(16))).encryptor()
    zeros, num_calls = bytes(_WORD_BYTES * masks.CHUNK_WORDS), 1000
    space = bytearray(len(zeros) + 16)
    began = time.process_time()
    for _ in range(num_calls):
        encryptor.update_into(zeros, space)
    return num_calls * len(zeros) / (time.process_time() - began)


def measured(num_weights: int, num_clients: int) -> dict[str, Any]:
    """The figures of one cell; one client is lost where that is tolerated."""
    network = SimulatedNetwork(
        parameters_for(num_clients),
        client_ids=[f"client-{number:02}" for number in range(num_clients)],
        vector_length=num_weights,
    )
    session = _Session(network)
    session.hold_shares()
    return {
        "num_weights": num_weights,
        "num_clients": num_clients,
        **session.one_client_masks(),
        **session.inputs_arrive(),
        **session.sum_is_opened(),
        "encoding_s": _encoding_s(num_weights),
    }


class _Session:
    """One session whose measured client is the first, and whose last is lost."""

    def __init__(self, network: SimulatedNetwork) -> None:
        self.network = network
        self.server: ServerSession = network.server(0)
        opening = self.server.roster_message
        self.names = sorted(network.identities)
        self.measured = self.names[0]
        self.clients: dict[str, ClientSession] = {}
        self.key_s = 0.0
        self.message_bytes = 0
        for name in self.names:
            self.clients[name] = self._timed(
                name, partial(network.client, name, opening)
            )

    def hold_shares(self) -> None:
        """Steps 0 and 1."""
        for name in self.names:
            self.server.receive_keys(self._sent(name, ClientSession.advertisement))
        keys = self.server.close_keys()
        for name in self.names:
            self.server.receive_shares(self._sent(name, ClientSession.share_keys, keys))
        for name, delivery in self.server.close_shares().items():
            self._timed(name, partial(self.clients[name].hold_shares, delivery))

    def one_client_masks(self) -> dict[str, float]:
        """Step 2 at the client: masks, and what goes out in chunks."""
        memory = _Memory()
        self.vector = np.ones(self.network.vector_length, np.uint32)
        began = time.process_time()
        self.announced = self.clients[self.measured].mask(self.vector)
        mask_s = time.process_time() - began
        sent = sum(len(chunk) for chunk in masks.content(self.vector))
        self.message_bytes += len(self.announced)
        return {
            "mask_s": mask_s,
            "content_bytes": sent,
            "client_bytes": memory.peak_bytes(),
        }

    def inputs_arrive(self) -> dict[str, float]:
        """Step 2 at the aggregator: the others send ones, which cost what masks do."""
        digest = masks.content_sha256(np.ones(self.network.vector_length, np.uint32))
        staying = self.names[1 : self.network.parameters.num_clients - self.num_lost]
        self.memory = _Memory()
        began = time.process_time()
        self.server.receive_input(self.announced, masks.content(self.vector))
        for name in staying:
            body = MaskedInput(sha256=digest)
            message = encoded(
                enveloped(
                    MASKED_INPUT,
                    body,
                    session=self.server.roster.session,
                    sender=name,
                    key=self.network.identities[name],
                )
            )
            # As if it had masked: the survivors are confirmed by those who did.
            self.clients[name]._secrets = None
            self.server.receive_input(message, self._ones())
        input_s = (time.process_time() - began) / (1 + len(staying))
        return {"input_s": input_s}

    @property
    def num_lost(self) -> int:
        """One, if the session can bear it."""
        return min(1, self.network.parameters.num_tolerated_losses)

    def sum_is_opened(self) -> dict[str, float]:
        """Steps 3 and 4."""
        announced = self.server.close_inputs()
        survivors = self.server.survivors
        for name in survivors:
            self.server.receive_consistency(
                self._sent(name, ClientSession.confirm, announced)
            )
        request = self.server.close_consistency()
        for name in survivors:
            self.server.receive_unmask(self._sent(name, ClientSession.unmask, request))
        began = time.process_time()
        self.server.close_unmask()
        unmask_s = time.process_time() - began
        return {
            "num_lost": self.num_lost,
            "unmask_s": unmask_s,
            "server_bytes": self.memory.peak_bytes(),
            "key_s": self.key_s,
            "message_bytes": self.message_bytes,
        }

    def _ones(self) -> Iterator[bytes]:
        chunk = np.ones(masks.CHUNK_WORDS, np.uint32).tobytes()
        whole, rest = divmod(self.network.vector_length, masks.CHUNK_WORDS)
        for _ in range(whole):
            yield chunk
        yield chunk[: _WORD_BYTES * rest]

    def _sent(self, name: str, step: Callable[..., bytes], *arguments: bytes) -> bytes:
        message = self._timed(name, lambda: step(self.clients[name], *arguments))
        if name == self.measured:
            self.message_bytes += len(message)
        return message

    def _timed(self, name: str, call: Callable[[], _Result]) -> _Result:
        began = time.process_time()
        result = call()
        if name == self.measured:
            self.key_s += time.process_time() - began
        return result


def _encoding_s(num_weights: int) -> float:
    update = np.sin(np.arange(num_weights, dtype=np.float32))
    began = time.process_time()
    fixed_point = FixedPoint(num_weights=num_weights)
    source = KeyStream(new_key(), "rounding")
    to_ring(fixed_point.encode(update, clipping_norm=1.0, source=source))
    return time.process_time() - began


class _Memory:
    """The greatest resident set since it was made, above that of then (Linux)."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self._before = _status_bytes("VmRSS")

    def peak_bytes(self) -> int:
        return _status_bytes("VmHWM") - self._before


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(name))
    return 1024 * int(line.split()[1])


def _in_own_process(num_weights: int, num_clients: int) -> dict[str, Any]:
    command = [sys.executable, "-m", __spec__.name, "--cell"]
    done = subprocess.run(
        [*command, str(num_weights), str(num_clients)],
        stdout=subprocess.PIPE,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


_HEADINGS = (
    "weights",
    "clients",
    "key stream, MB",
    "at AES speed, s",
    "client: masks, s",
    "encoding, s",
    "keys, ms",
    "upload / 4 bytes",
    "memory, vectors",
    "aggregator: an input, s",
    "lost",
    "opening, s",
    "memory, vectors",
)


def _written(cell: dict[str, Any], gigabytes: float) -> list[str]:
    vector_bytes = _WORD_BYTES * cell["num_weights"]
    stream_bytes = vector_bytes * cell["num_clients"]
    return [
        f"{cell['num_weights']:.0e}",
        f"{cell['num_clients']}",
        f"{stream_bytes / 1e6:.1f}",
        f"{stream_bytes / gigabytes / 1e9:.3f}",
        f"{cell['mask_s']:.3f}",
        f"{cell['encoding_s']:.2f}",
        f"{1000 * cell['key_s']:.0f}",
        f"{(cell['content_bytes'] + cell['message_bytes']) / vector_bytes:.4f}",
        f"{cell['client_bytes'] / vector_bytes:.2f}",
        f"{cell['input_s']:.3f}",
        f"{cell['num_lost']}",
        f"{cell['unmask_s']:.3f}",
        f"{cell['server_bytes'] / vector_bytes:.2f}",
    ]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=float, nargs="+", default=WEIGHTS)
    parser.add_argument("--clients", type=int, nargs="+", default=CLIENTS)
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
