"""A worker of a cluster: ``python -m fedtrain.runtimes.cluster_worker``.

It takes its place from ``TF_CONFIG`` and computes what the chief sends it until it is
ended. It runs whatever reaches its port: use a trusted network.
"""

import argparse
import json
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Never

from fedtrain.core import validate
from fedtrain.core.errors import ConfigError


def cluster_config() -> dict[str, Any]:
    """The content of ``TF_CONFIG``: ``cluster`` (addresses by job) and ``task``.

    Raises:
      ConfigError: If the variable is missing, no JSON, or lacks one of them.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        config["cluster"]["worker"][0], config["task"]["type"], config["task"]["index"]
    except (ValueError, LookupError, TypeError) as error:
        raise ConfigError(
            f"TF_CONFIG is {text!r}, but must be JSON such as "
            '{"cluster": {"chief": ["host:port"], "worker": ["host:port"]}, '
            '"task": {"type": "worker", "index": 0}}.'
        ) from error
    return dict(config)


def serve(config: Mapping[str, Any], *, intra_op_threads: int | None = None) -> Never:
    """Computes what the chief sends, until the process is ended.

    Args:
      config: As ``cluster_config()`` gives it.
      intra_op_threads: TensorFlow's threads within one operation; None for its own
        choice. With as many workers as cores, 1 is fastest.
    """
    validate.positive_integer(intra_op_threads=intra_op_threads or 1)
    # Without it, calls to a process that is gone would wait for it for ever.
    os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")
    import tensorflow as tf  # noqa: PLC0415 - gRPC's settings come before it

    if config["task"]["type"] != "worker":
        raise ConfigError(
            f"TF_CONFIG's task type is {config['task']['type']!r}, but this process "
            'can only be a "worker".'
        )
    server = tf.distribute.Server(
        tf.train.ClusterSpec(config["cluster"]),
        job_name="worker",
        task_index=int(config["task"]["index"]),
        protocol="grpc",
        config=tf.compat.v1.ConfigProto(
            intra_op_parallelism_threads=intra_op_threads or 0
        ),
    )
    server.join()
    raise SystemExit(0)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--intra-op-threads", type=int)
    parser.add_argument(
        "--until-stdin-closes",
        action="store_true",
        help="end with the process that started this one",
    )
    given = parser.parse_args(arguments)
    if given.until_stdin_closes:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    serve(cluster_config(), intra_op_threads=given.intra_op_threads)


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
