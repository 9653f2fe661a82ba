"""One worker of ``fedtrain simulate --workers``: the command, bound to its launcher.

Run as ``python -m fedtrain.cli.worker_process LAUNCHER ARGUMENTS...``.
"""

import ctypes
import os
import signal
import sys

from fedtrain.cli.main import run

_PR_SET_PDEATHSIG = 1


def end_with(launcher: int) -> None:
    """Has the system end this process when ``launcher``, its parent, ends.

    However the parent ends: no code of either process has to run for it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        os._exit(1)


if __name__ == "__main__":
    end_with(int(sys.argv[1]))
    # A background job is started deaf to Ctrl-C, which the launcher sends on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = run(sys.argv[2:])
    sys.stdout.flush()
    sys.stderr.flush()
    # TensorFlow's threads may wait for workers that are gone.
    os._exit(code)
