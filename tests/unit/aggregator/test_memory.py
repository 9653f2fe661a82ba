import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import aggregator.serve as serve_module
from aggregator.grpc_runtime import _tensor
from aggregator.memory import ALIGNED_BYTES, aligned

_ALLOCATOR = "TF_ONEDNN_USE_SYSTEM_ALLOCATOR"


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint32"])
@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_a_sum_becomes_a_tensor_where_it_lies(dtype, size):
    array = aligned(size, dtype)
    array[:] = np.arange(size)
    tensor = _tensor(array)
    assert tensor.dtype.name == dtype
    if size:
        assert array.ctypes.data % ALIGNED_BYTES == 0
        assert np.asarray(tensor).ctypes.data == array.ctypes.data
    del array  # the tensor keeps the memory
    np.testing.assert_array_equal(tensor * tf.constant(2, dtype), 2 * np.arange(size))


def test_other_arrays_are_copied():
    unaligned = aligned(101, "float32")[1:]
    unaligned[:] = 3.0
    tensor = _tensor(unaligned)
    unaligned[:] = 4.0
    np.testing.assert_array_equal(tensor, np.full(100, 3.0))
    truth = np.array([True, False])
    np.testing.assert_array_equal(_tensor(truth), truth)


class StoppedHereError(Exception):
    pass


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("0", "0")])
def test_serving_has_tensorflow_give_memory_back_unless_the_operator_does_not_want_it(
    monkeypatch, before, after
):
    def stop(*_):
        raise StoppedHereError

    if before is None:
        # Set first: what serving sets is then removed again after the test.
        monkeypatch.setenv(_ALLOCATOR, "")
        monkeypatch.delenv(_ALLOCATOR)
    else:
        monkeypatch.setenv(_ALLOCATOR, before)
    monkeypatch.setattr(serve_module, "give_memory_back", lambda: None)
    monkeypatch.setattr(serve_module, "ended_by_sigterm", stop)
    with pytest.raises(StoppedHereError):
        serve_module.serve(None, console=None)
    assert os.environ[_ALLOCATOR] == after


def test_tensorflow_is_not_loaded_before_it_is_told():
    code = "import sys, aggregator.serve; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
