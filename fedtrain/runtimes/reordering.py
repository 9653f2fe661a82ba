"""Sums in compiled rounds keep the order in which they were written."""

import tensorflow as tf

_OPTION = "arithmetic_optimization"


def forbid_reordering() -> None:
    """Turns off TensorFlow's rewrite of sums and products; process-wide.

    The rewrite makes one sum of a tree of additions, in an order that depends on the
    names of operations and so on how many programs were traced before. A run that is
    resumed traces fewer, and its last bits would differ.
    """
    options = tf.config.optimizer.get_experimental_options()
    if options.get(_OPTION, True):
        tf.config.optimizer.set_experimental_options({**options, _OPTION: False})
