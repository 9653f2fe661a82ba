"""Faults that a process brings on itself: a clock that jumps, a disk that is full."""

import resource
import signal
import threading
import time
from functools import partial

from fedtrain.wire.signing import Sequencer


def befall(faults: dict[str, float]) -> None:
    """Prepares this process for what is to happen to it.

    Args:
      faults: ``clock`` and ``disk``: seconds from now at which the wall clock jumps, by
        ``jump_s``, and the disk is full for a second.
    """
    # Bound when the module was imported; here it is to see the jump.
    Sequencer.__init__.__kwdefaults__["clock"] = lambda: time.time_ns()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    jump = partial(_jump, faults.get("jump_s", 0.0))
    for name, action in (("clock", jump), ("disk", _fill)):
        if name in faults:
            timer = threading.Timer(faults[name], action)
            timer.daemon = True
            timer.start()


def _jump(by_s: float) -> None:
    """Sets this process's wall clock by ``by_s``.

    Not ``time.time``: gRPC's Python half takes deadlines from it, and its C half knows
    the true clock only; two clocks would disagree, which no machine's do.
    """
    true_ns = time.time_ns
    time.time_ns = lambda: true_ns() + int(by_s * 1e9)


def _fill() -> None:
    """Lets no file grow beyond a few KiB, for a second: as on a full disk."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, most))
    time.sleep(1.0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
