import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st

from fedtrain.core.errors import WireError
from fedtrain.wire.arrays import (
    CHUNK_BYTES,
    ArraySpec,
    all_finite,
    chunks,
    from_bytes,
    num_bytes,
    to_bytes,
)

DTYPES = ("float32", "float64", "int32", "int64", "uint32", "bool")
arrays_of_any_kind = st.sampled_from(DTYPES).flatmap(
    lambda dtype: np_st.arrays(
        dtype, np_st.array_shapes(min_dims=0, min_side=0, max_side=4)
    )
)
specs = st.builds(
    ArraySpec,
    st.lists(st.integers(0, 300), max_size=4).map(tuple),
    st.sampled_from(DTYPES),
)


@settings(deadline=None)
@given(st.lists(arrays_of_any_kind, max_size=5))
def test_arrays_come_back_bit_by_bit(arrays):
    declared = [ArraySpec.of(array) for array in arrays]
    data = to_bytes(declared, arrays)
    assert len(data) == num_bytes(declared)
    for array, found in zip(arrays, from_bytes(declared, data), strict=True):
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        assert found.tobytes() == array.tobytes()


def test_order_in_memory_and_endianness_do_not_matter():
    array = np.arange(6, dtype=">f4").reshape(2, 3)
    declared = [ArraySpec((2, 3), "float32")]
    expected = np.arange(6, dtype="<f4").tobytes()
    assert to_bytes(declared, [array]) == expected
    assert to_bytes(declared, [np.asfortranarray(array)]) == expected


def test_chunks_are_full_but_the_last():
    arrays = [np.zeros(100_000, np.float32), np.zeros(3, bool), np.zeros(10, np.int64)]
    declared = [ArraySpec.of(array) for array in arrays]
    sizes = [len(chunk) for chunk in chunks(declared, arrays)]
    assert sizes == [CHUNK_BYTES, 400_083 - CHUNK_BYTES]


def test_decoded_arrays_are_read_only_views(tmp_path):
    declared = [ArraySpec((5,), "float32"), ArraySpec((3,), "int64")]
    path = tmp_path / "arrays"
    path.write_bytes(to_bytes(declared, [np.ones(5, np.float32), np.arange(3)]))
    mapped = np.memmap(path, np.uint8, "r")
    for array in from_bytes(declared, mapped):
        assert np.shares_memory(array, mapped)
        assert not array.flags.writeable


@settings(deadline=None)
@given(st.lists(specs, max_size=4), st.binary(max_size=200))
def test_any_bytes_become_the_declared_arrays_or_an_error(declared, data):
    tracemalloc.start()
    try:
        found = from_bytes(declared, data)
        assert [ArraySpec.of(array) for array in found] == declared
    except WireError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # Views take no memory for what they show, however much was declared.
    assert peak < 100_000


def test_a_truth_value_is_zero_or_one():
    with pytest.raises(WireError, match="0 or 1"):
        from_bytes([ArraySpec((2,), "bool")], b"\x01\x02")


@pytest.mark.parametrize(
    ("shape", "dtype", "reason"),
    [
        ((2,), "float16", "dtype must be"),
        ((2,), "object", "dtype must be"),
        ((-1,), "float32", "at least 0"),
        ((1,) * 17, "float32", "at most 16"),
        ((2**30, 2**30), "bool", "more than 2"),
    ],
)
def test_specifications_are_bounded(shape, dtype, reason):
    with pytest.raises(WireError, match=reason):
        ArraySpec(shape, dtype)


def test_other_arrays_than_declared_are_not_sent():
    declared = [ArraySpec((2,), "float32")]
    with pytest.raises(WireError, match="shape \\(3,\\) and type float32"):
        to_bytes(declared, [np.zeros(3, np.float32)])
    with pytest.raises(WireError, match="1 arrays were declared, 0 given"):
        to_bytes(declared, [])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 70_000), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_one_value_that_is_not_finite_is_found_anywhere(position, value):
    array = np.zeros(70_001, np.float32)
    assert all_finite([array, np.array([True]), np.array(3)])
    array[position] = value
    assert not all_finite([np.zeros(2), array])


def test_finiteness_is_checked_chunk_by_chunk():
    array = np.zeros((1000, 5000), np.float32)
    tracemalloc.start()
    assert all_finite([array])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < CHUNK_BYTES
