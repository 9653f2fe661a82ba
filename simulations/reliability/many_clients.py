"""Many light clients connected at once: time, memory and open files of the aggregator.

python -m simulations.reliability.many_clients --clients 1000 --rounds 200
python -m simulations.reliability.many_clients --clients 10 --weights 10000000
"""

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import grpc
import numpy as np

from aggregator.authority import Authority, Terms, init
from aggregator.calls import Served
from aggregator.journal import Journal
from aggregator.rounds import RoundCall, Rounds
from aggregator.server import SERVICE, Server, serving
from fedtrain.core.errors import FedtrainError
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.acceptance import accept
from fedtrain.wire.arrays import CHUNK_BYTES, ArraySpec
from fedtrain.wire.enrolment import EnrolmentRequest
from fedtrain.wire.identity import keys_in, new_keys, tls_pair_in
from fedtrain.wire.plan import Plan
from fedtrain.wire.signing import Sequencer, signed
from fedtrain.wire.tls import channel_credentials, channel_options

_RUN_ID = "run"
_REPLIES = {"Next": pb.Task, "Fetch": pb.Chunk, "Submit": pb.Receipt}


def plan(num_weights: int) -> Plan:
    """One array each way."""
    spec = ArraySpec((num_weights,), "float32")
    return Plan(
        name="many",
        operator="Many",
        software="fedtrain",
        task={"sections": {}, "schema": {}},
        broadcast=(spec,),
        contribution=(spec,),
        num_rounds=1_000_000,
        report_goal=1,
        least_reports=1,
        deadline_s=600.0,
        privacy=None,
        leaves=("numbers",),
    )


def aggregate(folder: Path, options: Any, pipe: Any) -> None:
    """The aggregator's process: tells its port, then each round's figures."""
    about = plan(options.weights)
    spec = about.contribution[0]
    journal = Journal(folder / "journal")
    rounds = Rounds(
        journal, run_id=_RUN_ID, plan_sha256=about.sha256, folder=folder / "spool"
    )
    served = Served(rounds, Authority(folder / "authority"), about.canonical())
    cohort = tuple(f"client-{number}" for number in range(options.clients))
    weights = np.zeros(spec.shape, np.float32)
    with serving(Server(served, address="127.0.0.1:0")) as port:
        pipe.send(port)
        pipe.recv()
        idle_mb = _resident_mb("VmRSS")
        for number in range(options.rounds):
            begun = time.monotonic()
            collected = rounds.collect(_call(number, weights, cohort, spec))
            (total,) = collected.total()
            if not np.all(total == np.float32(options.clients)):
                raise FedtrainError("The sum is wrong.")
            del total
            rounds.committed(number, f"{number:064x}")
            pipe.send(
                {
                    "round": number,
                    "seconds": round(time.monotonic() - begun, 2),
                    "idle_mb": idle_mb,
                    "resident_mb": _resident_mb("VmRSS"),
                    "peak_mb": _resident_mb("VmHWM"),
                    "files": len(os.listdir("/proc/self/fd")),
                }
            )
        rounds.finish("finished", "done")
        pipe.recv()


class Client:
    """One partner on the event loop that all of them share.

    Attributes:
      failures: Calls of all clients that were made again, by status.
    """

    failures: ClassVar[Counter[str]] = Counter()

    def __init__(self, folder: Path, name: str, port: int, about: Plan) -> None:
        self._name = name
        self._key = keys_in(folder / name).identity
        self._plan_sha256 = bytes.fromhex(about.sha256)
        self._content = np.ones(about.contribution[0].shape, np.float32).tobytes()
        self._sequencer = Sequencer()
        pem = (folder / "authority.pem").read_bytes()
        pair = tls_pair_in(folder / name / "tls.pem")
        options = channel_options(server_name="localhost")
        options.append(("grpc.use_local_subchannel_pool", 1))
        self._channel = grpc.aio.secure_channel(
            f"127.0.0.1:{port}",
            channel_credentials(pair, authority_pem=pem),
            options=options,
        )

    async def run(self) -> None:
        """Does what it is told until the run is finished."""
        while True:
            try:
                is_done = await self._step()
            except grpc.aio.AioRpcError as error:
                # As the agent does, and counted: a busy machine misses deadlines.
                self.failures[error.code().name] += 1
                await asyncio.sleep(1.0)
                continue
            if is_done:
                await self._channel.close()
                return

    async def _step(self) -> bool:
        body = pb.NextRequest(plan_sha256=self._plan_sha256, wait_ms=25_000)
        task = await self._call("unary_unary", "Next")(self._signed("Next", body))
        if task.kind == pb.TRAIN:
            await self._work(task)
        return bool(task.kind == pb.FINISHED)

    async def _work(self, task: pb.Task) -> None:
        body = pb.FetchRequest(attempt=task.attempt, kind=task.kind)
        request = self._signed("Fetch", body, task.round_number)
        num_bytes = 0
        async for chunk in self._call("unary_stream", "Fetch")(request):
            num_bytes += len(chunk.content)
        if num_bytes != task.broadcast_bytes:
            raise FedtrainError(f"{num_bytes} of {task.broadcast_bytes} bytes came.")
        receipt = await self._call("stream_unary", "Submit")(self._parts(task))
        if receipt.code not in {pb.ACCEPTED, pb.DUPLICATE}:
            raise FedtrainError(f"{self._name}: {receipt}")

    async def _parts(self, task: pb.Task) -> Any:
        header = pb.SubmitHeader(
            attempt=task.attempt,
            kind=task.kind,
            num_bytes=len(self._content),
            sha256=hashlib.sha256(self._content).digest(),
            plan_sha256=self._plan_sha256,
        )
        yield pb.SubmitPart(header=self._signed("Submit", header, task.round_number))
        for start in range(0, len(self._content), CHUNK_BYTES):
            yield pb.SubmitPart(content=self._content[start : start + CHUNK_BYTES])

    def _signed(self, method: str, body: Any, round_number: int = 0) -> Any:
        request = pb.SignedRequest(
            client_id=self._name,
            run_id=_RUN_ID,
            round_number=round_number,
            sequence=self._sequencer.next(),
            body=body.SerializeToString(),
        )
        return signed(request, method, self._key)

    def _call(self, shape: str, method: str) -> Any:
        return getattr(self._channel, shape)(
            f"/{SERVICE}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=_REPLIES[method].FromString,
        )


def main() -> None:
    """Prints a line for every tenth round, and one of the first against the last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weights", type=int, default=1000)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base)
        _enrol(folder, options)
        ours, theirs = context.Pipe()
        process = context.Process(
            target=aggregate, args=(folder, options, theirs), daemon=True
        )
        process.start()
        theirs.close()  # or its end would not be noticed here
        try:
            asyncio.run(_run_clients(folder, options, ours))
            ours.send("end")
            process.join()
        finally:
            process.kill()


async def _run_clients(folder: Path, options: Any, pipe: Any) -> None:
    loop = asyncio.get_running_loop()
    port = await loop.run_in_executor(None, pipe.recv)
    about = plan(options.weights)
    names = [f"client-{number}" for number in range(options.clients)]
    clients = [Client(folder, name, port, about) for name in names]
    running = [asyncio.create_task(client.run()) for client in clients]
    pipe.send("begin")
    for number in range(options.rounds):
        found = loop.run_in_executor(None, pipe.recv)
        await asyncio.wait([found, *running], return_when=asyncio.FIRST_COMPLETED)
        if not found.done():
            await asyncio.gather(*(task for task in running if task.done()))
        figures = await found
        if number % 10 == 0 or number == options.rounds - 1:
            figures["calls_made_again"] = dict(Client.failures)
            print(json.dumps(figures), flush=True)
    await asyncio.gather(*running)


def _enrol(folder: Path, options: Any) -> None:
    authority = init(folder / "authority", name="many", hosts=["localhost"])
    (folder / "authority.pem").write_bytes(authority.authority_pem)
    terms = Terms(plan(options.weights), "localhost:1", "localhost")
    for number in range(options.clients):
        name = f"client-{number}"
        request = EnrolmentRequest.of(name, new_keys(folder / name))
        accept(authority.admit(request, terms), folder / name)


def _call(number: int, weights: Any, cohort: Any, spec: ArraySpec) -> RoundCall:
    return RoundCall(
        run_id=_RUN_ID,
        round_number=number,
        kind="train",
        cohort=cohort,
        report_goal=len(cohort),
        least_reports=len(cohort),
        deadline_s=600.0,
        max_deadlines=1,
        broadcast=[weights],
        contribution=(spec,),
        info={},
    )


def _resident_mb(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(x for x in lines if x.startswith(field)).split()[1]) // 1024


if __name__ == "__main__":
    main()
