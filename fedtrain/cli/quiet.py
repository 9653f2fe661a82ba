"""TensorFlow's start without the lines it writes past every logging setting."""

import importlib
import os
import sys


def load_tensorflow() -> None:
    """Imports TensorFlow with the process's standard error closed to it.

    Current versions write to the descriptor itself before they read any setting. Errors
    of the import are raised as ever.
    """
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        tensorflow = importlib.import_module("tensorflow")
        # The first operation starts the runtime, which has its own lines to say.
        tensorflow.function(lambda: tensorflow.constant(0) + 1)()
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
