from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import tensorflow as tf

from fedtrain.runtimes.precision import computing_in


def lower_precisions_on():
    options = tf.config.optimizer.get_experimental_options()
    return [name for name, on in options.items() if "mixed_precision" in name and on]


def test_what_threads_leave_one_after_another_is_on_until_the_last_has_left():
    entered, first_left = Barrier(2), Barrier(2)

    def first():
        with computing_in("bfloat16"):
            entered.wait(10.0)
        first_left.wait(10.0)

    def last():
        with computing_in("bfloat16"):
            entered.wait(10.0)
            first_left.wait(10.0)
            return lower_precisions_on()

    with ThreadPoolExecutor(2) as pool:
        leaving, staying = pool.submit(first), pool.submit(last)
        assert len(staying.result()) == 1
        leaving.result()
    assert lower_precisions_on() == []
