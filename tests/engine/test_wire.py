"""Messages between worker and child."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from facegraft.engine.sandbox import wire

ARRAYS = st.dictionaries(
    st.text(max_size=8),
    hnp.arrays(
        st.sampled_from(["<f4", "<f8", "<i8", "<i4", "|u1", "|b1"]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        elements={"allow_nan": False},
    ),
    max_size=4,
)


def parse(message: bytes) -> tuple[dict, dict]:
    header, payload = wire.read_prefix(message, 1 << 20)
    start = wire.PREFIX.size
    assert len(message) == start + header + payload
    return wire.decode(message[start : start + header], message[start + header :])


@given(ARRAYS, st.booleans())
def test_what_goes_in_comes_out(arrays: dict[str, np.ndarray], transposed: bool) -> None:
    sent = {name: array.T if transposed else array for name, array in arrays.items()}
    header, received = parse(b"".join(wire.encode({"op": "item", "row": {"a": None}}, sent)))
    assert header == {"op": "item", "row": {"a": None}}
    assert list(received) == list(sent)
    for name, array in sent.items():
        assert received[name].dtype == array.dtype
        np.testing.assert_array_equal(received[name], array)


def test_objects_are_never_unpacked() -> None:
    message = b"".join(wire.encode({}, {"a": np.zeros(2)})).replace(b'"<f8"', b'"|O8"')
    with pytest.raises(wire.WireError, match="'a' has dtype object"):
        parse(message)


@given(st.binary(min_size=16, max_size=16))
def test_noise_is_no_message(noise: bytes) -> None:
    with pytest.raises(wire.WireError, match="not a message"):
        wire.read_prefix(noise if not noise.startswith(wire.MAGIC) else b"x" * 16, 1 << 20)


def test_absurd_sizes_are_refused_before_they_are_allocated() -> None:
    with pytest.raises(wire.WireError):
        wire.read_prefix(wire.PREFIX.pack(wire.MAGIC, 10, 1 << 60), 1 << 30)


@given(st.data())
def test_damaged_headers_raise_wire_errors_only(data: st.DataObject) -> None:
    message = bytearray(b"".join(wire.encode({"op": "item"}, {"a": np.arange(3), "b": np.zeros((2, 2), np.uint8)})))
    where = data.draw(st.integers(wire.PREFIX.size, len(message) - 1))
    message[where] ^= data.draw(st.integers(1, 255))
    try:
        _, arrays = parse(bytes(message))
    except wire.WireError:
        return
    # Not noticed here (a value, a name): that is the business of the schema. But never more bytes than came, nor objects.
    assert sum(array.nbytes for array in arrays.values()) == 3 * 8 + 4
    assert all(array.dtype.kind in "biuf" for array in arrays.values())
