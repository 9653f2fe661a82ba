"""How a compiled round is carried out: everything that decides its bits and its speed.

A run records its ``Execution``; resumed with the same one it repeats every bit. Only
``num_workers`` may differ without changing a bit.
"""

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import tensorflow as tf

from fedtrain.core import validate
from fedtrain.core.errors import ConfigError
from fedtrain.runtimes.precision import PRECISIONS, Precision, check_precision
from fedtrain.runtimes.strategies import STRATEGIES, WORDS, Strategy

# Sums are added chunk by chunk; this many chunks keep a few workers evenly busy.
_CHUNKS = 16


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How the clients of a round are computed.

    Attributes:
      strategy: See ``fedtrain.runtimes.strategies``.
      chunk_size: Clients in a chunk; None is a sixteenth of each cohort, rounded up.
        Sums are rounded chunk by chunk, so another size changes the last bits.
      num_workers: Python threads that run chunks side by side.
      precision: Of matrix products and convolutions inside a client's steps; weights,
        updates and sums are never rounded below the model's own type.
      intra_op_threads: Threads inside one TensorFlow operation; a property of the
        process (0 is one for each core), recorded because it changes the last bits.
    """

    strategy: Strategy = "graph"
    chunk_size: int | None = None
    num_workers: int = 1
    precision: Precision = "float32"
    intra_op_threads: int = 0

    def __post_init__(self) -> None:
        """Names are known and sizes positive."""
        validate.one_of(STRATEGIES, strategy=self.strategy)
        validate.one_of(PRECISIONS, precision=self.precision)
        validate.positive_integer(
            num_workers=self.num_workers, chunk_size=self.chunk_size or 1
        )

    def clients_in_chunk(self, cohort_size: int) -> int:
        """Clients in a chunk of a cohort of ``cohort_size``."""
        return self.chunk_size or -(-max(cohort_size, 1) // _CHUNKS)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def __str__(self) -> str:
        """In words."""
        workers = (
            "one worker" if self.num_workers == 1 else f"{self.num_workers} workers"
        )
        chunks = (
            f"{self.chunk_size} clients a chunk" if self.chunk_size else "16 chunks"
        )
        lower = "" if self.precision == "float32" else f", {self.precision}"
        return f"{WORDS[self.strategy]}, {workers}, {chunks}{lower}"


def execution_from(recorded: Mapping[str, Any]) -> Execution:
    """The ``Execution`` that ``as_dict`` gave.

    Raises:
      ConfigError: If it has a field that this version does not know, this machine does
        not have its precision, or this process has other intra-op threads, which would
        change the last bits.
    """
    known = [field.name for field in fields(Execution)]
    for name in recorded:
        if name not in known:
            raise ConfigError(
                f"The run's execution has the field {name!r}, but this version of "
                f"fedtrain knows only {', '.join(known)}. Resume it with the version "
                "that started it, or start anew."
            )
    execution = Execution(**recorded)
    check_precision(execution.precision)
    here = intra_op_threads()
    if execution.intra_op_threads != here:
        raise ConfigError(
            f"The run was computed with intra_op_threads = "
            f"{execution.intra_op_threads}, but this process has {here}, which changes "
            f"the last bits. Set TF_NUM_INTRAOP_THREADS={execution.intra_op_threads}, "
            "or in Python, before TensorFlow does anything, call tf.config.threading."
            f"set_intra_op_parallelism_threads({execution.intra_op_threads})."
        )
    return execution


def intra_op_threads() -> int:
    """Threads inside one operation, as set for this process; 0 is one for each core."""
    configured = int(tf.config.threading.get_intra_op_parallelism_threads())
    return configured or int(os.environ.get("TF_NUM_INTRAOP_THREADS") or 0)


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine() -> str:
    """What decides which strategy is fastest, apart from the work itself."""
    devices = [device.name for device in tf.config.list_logical_devices()]
    return (
        f"{_processor()}; {num_cores()} cores; {devices}; TensorFlow {tf.__version__}"
    )


def free_memory_bytes() -> int | None:
    """Memory that can be had without swapping; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    available = [line for line in lines if line.startswith("MemAvailable")]
    return int(available[0].split()[1]) * 1024 if available else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()
