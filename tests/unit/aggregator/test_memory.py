import numpy as np
import pytest
import tensorflow as tf

from aggregator.grpc_runtime import _tensor
from aggregator.memory import ALIGNED_BYTES, aligned, give_memory_back, trim


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


def test_giving_back_twice_raises_nothing(monkeypatch):
    monkeypatch.setenv("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "0")
    give_memory_back()
    give_memory_back()
    trim()
    array = aligned(1000, "float32")
    array[:] = 1.0
    assert array.sum() == 1000
