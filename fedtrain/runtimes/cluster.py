"""Clients computed by the workers of a ``tf.distribute`` cluster.

TensorFlow's ``ClusterCoordinator`` hands each client to a worker that is free, with the
message and the client's rows. A client whose worker dies is computed by another, from
the same message and seed; a worker that is back is used again.

Source: https://www.tensorflow.org/tutorials/distribute/parameter_server_training
"""

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import tensorflow as tf

from fedtrain.core import validate
from fedtrain.core.addresses import free_addresses
from fedtrain.core.errors import ConfigError, FedtrainError
from fedtrain.runtimes.asynchronous import QueueExecutor
from fedtrain.runtimes.cluster_worker import cluster_config

_log = logging.getLogger(__name__)
_WORKER = ("-m", "fedtrain.runtimes.cluster_worker", "--until-stdin-closes")
_POLL_S = 0.2
_END_TIMEOUT_S = 10.0


def cluster_executor(
    config: Mapping[str, Any] | None = None, *, timeout_s: float = 300.0
) -> QueueExecutor:
    """Connects this process, the chief, with the cluster's workers.

    The workers stay up when the executor is closed, for whoever started them.

    TensorFlow belongs to one cluster for the rest of the process's life, so this is
    called once. All workers have to be up; later they may end and return.
    ``ClusterCoordinator`` insists on a parameter server, which nothing here stores
    anything on: where the cluster names none, it lives in this process.

    Args:
      config: Cluster and task, by default from ``TF_CONFIG``.
      timeout_s: How long to wait for the workers.

    Raises:
      ConfigError: If this process is not the chief.
      FedtrainError: If a worker cannot be reached in time.
    """
    given = cluster_config() if config is None else config
    _refuse_other_tasks(given)
    os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")
    workers = list(given["cluster"]["worker"])
    _wait_until_listening(workers, timeout_s)
    spec = _with_parameter_server(given["cluster"])
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        spec, rpc_layer="grpc", task_type="chief", task_id=0
    )
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    _keep_for_ever(coordinator)
    return QueueExecutor(partial(_computed, coordinator), len(workers))


class LocalWorkers:
    """Worker processes on this machine; they end with this process at the latest.

    Args:
      num_workers: How many.
      intra_op_threads: TensorFlow's threads within one operation, of each worker.

    Attributes:
      config: What ``cluster_executor`` takes.
    """

    def __init__(self, num_workers: int, *, intra_op_threads: int = 1) -> None:
        validate.positive_integer(
            num_workers=num_workers, intra_op_threads=intra_op_threads
        )
        addresses = free_addresses(num_workers + 1)
        self._cluster = {"chief": addresses[:1], "worker": addresses[1:]}
        self._arguments = (*_WORKER, "--intra-op-threads", str(intra_op_threads))
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.config = self._config("chief", 0)
        for index in range(num_workers):
            self.start(index)

    def start(self, index: int) -> None:
        """Starts worker ``index``, or starts it again after it has ended."""
        given = json.dumps(self._config("worker", index))
        self._processes[index] = subprocess.Popen(
            [sys.executable, *self._arguments],
            stdin=subprocess.PIPE,
            env={**os.environ, "TF_CONFIG": given},
        )

    def kill(self, index: int) -> None:
        """Ends worker ``index`` without warning, as a crash would."""
        process = self._processes.pop(index)
        process.kill()
        process.wait(_END_TIMEOUT_S)
        if process.stdin is not None:
            process.stdin.close()

    def close(self) -> None:
        """Ends all workers."""
        for index in list(self._processes):
            self.kill(index)

    def _config(self, job: str, index: int) -> dict[str, Any]:
        return {"cluster": self._cluster, "task": {"type": job, "index": index}}


@contextlib.contextmanager
def local_workers(
    num_workers: int, *, intra_op_threads: int = 1
) -> Iterator[LocalWorkers]:
    """``num_workers`` processes on this machine for the length of a ``with`` block."""
    workers = LocalWorkers(num_workers, intra_op_threads=intra_op_threads)
    try:
        yield workers
    finally:
        workers.close()


def _keep_for_ever(coordinator: Any) -> None:
    """Holds a reference that is never dropped, not even when the process ends.

    A coordinator that is collected while a worker is dead waits for its return, which
    would keep a process whose run has ended from exiting.
    """
    wait = threading.Event().wait
    thread = threading.Thread(target=lambda _: wait(), args=(coordinator,), daemon=True)
    thread.start()


def _computed(coordinator: Any, function: Any, arguments: tuple[Any, ...]) -> Any:
    """``function(*arguments)``, computed by any worker, however many die over it.

    The coordinator tries again where a worker dies while it computes, but not where it
    dies before what it computed was fetched.
    """
    while True:
        value = coordinator.schedule(function, args=arguments)
        try:
            return value.get()
        except tf.errors.OpError as error:
            if not _is_lost_worker(error):
                raise
            _log.warning("a worker was lost with a client's result; trying again")


def _is_lost_worker(error: tf.errors.OpError) -> bool:
    gone = isinstance(error, tf.errors.UnavailableError | tf.errors.AbortedError)
    return gone or "remote_handle" in error.message


def _refuse_other_tasks(config: Mapping[str, Any]) -> None:
    task = config["task"]["type"]
    if task != "chief" or "chief" not in config["cluster"]:
        raise ConfigError(
            f"TF_CONFIG's task type is {task!r} in a cluster of "
            f'{", ".join(config["cluster"])}, but train_async runs in the "chief". '
            "Start workers with `python -m fedtrain.runtimes.cluster_worker`."
        )


def _wait_until_listening(addresses: list[str], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    for address in addresses:
        while not _listens(address):
            if time.monotonic() > deadline:
                raise FedtrainError(
                    f"The worker at {address} did not answer within {timeout_s:g} s. "
                    "Start it with `python -m fedtrain.runtimes.cluster_worker`, and "
                    "check that TF_CONFIG is the same in all processes but for task."
                )
            time.sleep(_POLL_S)


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_POLL_S).close()
    except OSError:
        return False
    return True


def _with_parameter_server(cluster: Mapping[str, Any]) -> tf.train.ClusterSpec:
    if "ps" in cluster:
        return tf.train.ClusterSpec(dict(cluster))
    host = cluster["chief"][0].rpartition(":")[0]
    spec = tf.train.ClusterSpec({**cluster, "ps": free_addresses(1, host)})
    tf.distribute.Server(spec, job_name="ps", task_index=0, protocol="grpc")
    return spec
