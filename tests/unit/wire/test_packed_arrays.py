import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st

from fedtrain.core.errors import WireError
from fedtrain.core.packing import Packing
from fedtrain.wire.arrays import ArraySpec, from_bytes, num_bytes, to_bytes

SINGLE = ArraySpec((), "float32")


def declared(shape, dtype="float32", **packing):
    return [ArraySpec((), dtype), ArraySpec(shape, dtype, Packing(**packing))]


@settings(deadline=None)
@given(
    num_bits=st.sampled_from([4, 8]),
    dtype=st.sampled_from(["float32", "float64"]),
    step=st.floats(0.0, 2.0**100, width=32, allow_subnormal=False),
    data=st.data(),
)
def test_multiples_come_back_bit_by_bit(num_bits, dtype, step, data):
    most = Packing(num_bits=num_bits).most
    shape = data.draw(np_st.array_shapes(min_dims=0, min_side=0, max_side=5))
    multiples = data.draw(
        np_st.arrays(np.int8, shape, elements=st.integers(-most, most))
    )
    step = np.asarray(step, dtype)
    array = np.asarray(multiples.astype(dtype) * step)
    specs = declared(shape, dtype, num_bits=num_bits)
    content = to_bytes(specs, [step, array])
    assert len(content) == num_bytes(specs)
    found = from_bytes(specs, content)[1]
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)


@settings(deadline=None)
@given(
    np_st.arrays(
        np.float32,
        np_st.array_shapes(min_side=0, max_side=5),
        elements=st.sampled_from([0.0, 0.0, 1.5, -2.0, np.nan]),
    ),
    st.integers(0, 3),
)
def test_kept_numbers_come_back_bit_by_bit(array, more):
    kept = min(np.count_nonzero(array) + more, array.size)
    specs = [ArraySpec(array.shape, "float32", Packing(num_kept=kept))]
    content = to_bytes(specs, [array])
    assert len(content) == 8 * kept
    np.testing.assert_array_equal(from_bytes(specs, content)[0], array)


def test_a_number_takes_a_byte_half_a_byte_or_nothing():
    shapes = {"num_bits": 8}, {"num_bits": 4}, {"num_kept": 10}
    sizes = [
        ArraySpec((1001,), "float32", Packing(**kind)).num_bytes for kind in shapes
    ]
    assert sizes == [1001, 501, 80]
    assert ArraySpec((1001,), "float32").num_bytes == 4004


@settings(deadline=None)
@given(
    st.sampled_from([{"num_bits": 8}, {"num_bits": 4}, {"num_kept": 2}]),
    st.binary(max_size=24),
)
def test_any_bytes_are_what_would_be_written_or_refused(kind, data):
    specs = declared((5,), **kind)
    try:
        found = from_bytes(specs, data)
    except WireError:
        return
    if all(np.isfinite(array).all() for array in found):
        again = from_bytes(specs, to_bytes(specs, found))
        np.testing.assert_array_equal(again[1], found[1])


@pytest.mark.parametrize(
    ("kind", "content", "reason"),
    [
        ({"num_bits": 8}, b"\x80\x00\x00", "at least -127"),
        ({"num_bits": 4}, b"\x08\x00", "at least -7"),
        ({"num_bits": 4}, b"\x00\x10", "half byte after the last"),
        ({"num_kept": 1}, b"\x03\x00\x00\x00\x00\x00\x80?", "ascend below 3"),
        ({"num_kept": 2}, b"\x01\x00\x00\x00" * 2 + b"\x00\x00\x80?" * 2, "ascend"),
    ],
)
def test_bytes_written_in_another_way_are_refused(kind, content, reason):
    with pytest.raises(WireError, match=reason):
        from_bytes(declared((3,), **kind), b"\x00\x00\x80?" + content)


@pytest.mark.parametrize(
    ("kind", "array", "reason"),
    [
        ({"num_bits": 8}, [0.5, 0, 0], "not multiples of 1"),
        ({"num_bits": 4}, [8, 0, 0], "at most 7"),
        ({"num_kept": 1}, [1, 2, 0], "At most 1 numbers"),
    ],
)
def test_arrays_that_are_not_as_declared_are_not_sent(kind, array, reason):
    arrays = [np.float32(1.0), np.array(array, np.float32)]
    with pytest.raises(WireError, match=reason):
        to_bytes(declared((3,), **kind), [np.asarray(one) for one in arrays])


def test_multiples_need_a_step_before_them():
    specs = [ArraySpec((2,), "float32", Packing(num_bits=8)), SINGLE]
    with pytest.raises(WireError, match="single float before it"):
        from_bytes(specs, bytes(6))


def test_a_step_that_is_not_finite_makes_numbers_that_are_not():
    specs = declared((3,), num_bits=8)
    nan = np.full(3, np.nan, np.float32)
    found = from_bytes(specs, to_bytes(specs, [np.asarray(nan[0]), nan]))[1]
    assert np.isnan(found).all()
    huge = np.float32(3e38).tobytes() + b"\x7f\x01\x00"
    assert np.isinf(from_bytes(specs, huge)[1][0])


@pytest.mark.parametrize(
    ("shape", "dtype", "kind"),
    [((3,), "int32", {"num_bits": 8}), ((3,), "float32", {"num_kept": 4})],
)
def test_packings_that_do_not_fit_are_refused(shape, dtype, kind):
    with pytest.raises(WireError, match="cannot be written as"):
        ArraySpec(shape, dtype, Packing(**kind))


@pytest.mark.parametrize(
    "kind", [{}, {"num_bits": 8, "num_kept": 1}, {"num_bits": 2}, {"num_kept": -1}]
)
def test_a_packing_is_one_of_the_two(kind):
    with pytest.raises(WireError, match="either num_bits"):
        Packing(**kind)
