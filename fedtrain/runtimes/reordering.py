"""Sums in compiled rounds keep the order in which they were written."""

from threading import local

import tensorflow as tf

_OPTION = "arithmetic_optimization"
_this_thread = local()


def forbid_reordering() -> None:
    """Turns off TensorFlow's rewrite of sums and products; process-wide.

    The rewrite makes one sum of a tree of additions, in an order that depends on the
    names of operations and so on how many programs were traced before. A run that is
    resumed traces fewer, and its last bits would differ.

    To be called by each thread that calls compiled programs: it keeps a copy of the
    options from its first call, which only setting them there renews.
    """
    if not getattr(_this_thread, "is_told", False):
        tf.config.optimizer.set_experimental_options({_OPTION: False})
        _this_thread.is_told = True
