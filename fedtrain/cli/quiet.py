"""TensorFlow's start without the lines it writes past every logging setting."""

import importlib
import os
import sys


def load_tensorflow(
    *, one_thread_per_operation: bool = False, start: bool = True
) -> None:
    """Imports TensorFlow with the process's standard error closed to it.

    Current versions write to the descriptor itself before they read any setting. Errors
    of the import are raised as ever.

    Args:
      one_thread_per_operation: Clients that run side by side, a thread each, do best
        if their operations do not ask for more. ``TF_NUM_INTRAOP_THREADS`` overrules.
      start: Whether to run an operation; a worker has to join the others before.
    """
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        tensorflow = importlib.import_module("tensorflow")
        if one_thread_per_operation and not os.environ.get("TF_NUM_INTRAOP_THREADS"):
            tensorflow.config.threading.set_intra_op_parallelism_threads(1)
        if start:  # the first operation starts the runtime, with lines of its own
            tensorflow.function(lambda: tensorflow.constant(0) + 1)()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
