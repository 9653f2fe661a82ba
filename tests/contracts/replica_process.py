"""One process of a distributed parity test; prints what it found as JSON.

Run as ``python replica_process.py devices|workers NAME...``.
"""

import hashlib
import json
import sys

import tensorflow as tf

from fedtrain.core.errors import ConfigError
from fedtrain.runtimes.distributed import DistributedRuntime
from fedtrain.runtimes.joining import join, place_from_environment
from fedtrain.runtimes.replicas import Replicas

NUM_DEVICES = 3


def replicas_of(kind):
    if kind == "workers":
        return join(place_from_environment(), timeout_s=120.0)
    (cpu,) = tf.config.list_physical_devices("CPU")
    several = [tf.config.LogicalDeviceConfiguration()] * NUM_DEVICES
    tf.config.set_logical_device_configuration(cpu, several)
    devices = [f"CPU:{i}" for i in range(NUM_DEVICES)]
    return Replicas(tf.distribute.MirroredStrategy(devices))


def found(replicas, name):
    import test_runtimes as contract  # noqa: PLC0415 - after TensorFlow was set up

    round_ = contract.example_rounds(tf.float32)[name]
    runtime = DistributedRuntime(replicas, num_workers=1)
    actual = contract.after_rounds(runtime, round_, "float32")
    expected = contract.by_plain_python(name, "float32")
    digest = hashlib.sha256()
    for leaf in tf.nest.flatten(actual.state):
        digest.update(leaf.numpy().tobytes())
    return {
        "state": float(contract.largest_difference(actual.state, expected.state)),
        "clients": float(
            contract.largest_difference(actual.client_states, expected.client_states)
        ),
        "metrics": [dict(actual.metrics), dict(expected.metrics)],
        "bits": digest.hexdigest(),
    }


def refusals(replicas):
    """What is said of facts that one worker has otherwise."""
    try:
        replicas.require_same({"seed": "1", "settings": str(replicas.worker)})
    except ConfigError as error:
        return str(error)
    return ""


def main(kind, names):
    replicas = replicas_of(kind)
    said = b"\x00odd bytes\xff" * 3
    report = {
        "worker": replicas.worker,
        "num_replicas": replicas.num_replicas,
        "heard": replicas.broadcast(said if replicas.is_chief else b"") == said,
        "refusal": refusals(replicas),
        "rounds": {name: found(replicas, name) for name in names},
    }
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
