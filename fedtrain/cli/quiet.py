"""TensorFlow's start without the lines it writes past every logging setting."""

import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from fedtrain.core.native_lines import stderr_into


def load_tensorflow(
    *, one_thread_per_operation: bool = False, start: bool = True
) -> None:
    """Imports TensorFlow with the process's standard error closed to it.

    Current versions write to the descriptor itself before they read any setting. Errors
    of the import are raised as ever; a signal to end is acted on after it, because what
    it raises inside an import may be lost there.

    Args:
      one_thread_per_operation: Clients that run side by side, a thread each, do best
        if their operations do not ask for more. ``TF_NUM_INTRAOP_THREADS`` overrules.
      start: Whether to run an operation; a worker has to join the others before.
    """
    if "tensorflow" in sys.modules:
        return
    with _signals_held():
        _import(one_thread_per_operation=one_thread_per_operation, start=start)


def _import(*, one_thread_per_operation: bool, start: bool) -> None:
    with Path(os.devnull).open("wb") as nowhere, stderr_into(nowhere.fileno()):
        tensorflow = importlib.import_module("tensorflow")
        if one_thread_per_operation and not os.environ.get("TF_NUM_INTRAOP_THREADS"):
            tensorflow.config.threading.set_intra_op_parallelism_threads(1)
        if start:  # the first operation starts the runtime, with lines of its own
            tensorflow.function(lambda: tensorflow.constant(0) + 1)()


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Notes SIGINT and SIGTERM meanwhile, and sends the first one again at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    noted: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: noted.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if noted:
        signal.raise_signal(noted[0])
