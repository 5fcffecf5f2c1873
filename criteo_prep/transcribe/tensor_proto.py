"""A tensor in a tf.train.Example, as protocol buffer bytes, without TensorFlow.

    Example { features { feature { key: "data", value { bytes_list { value: <TensorProto> } } } } }
    TensorProto { dtype, tensor_shape { dim { size } ... }, tensor_content }

A ragged tensor is a string tensor [2] with the TensorProtos of values and row splits, in string_val in place of
tensor_content. The bytes that are written here are the bytes that TensorFlow writes.

Source: example.proto, feature.proto, tensor.proto and tensor_shape.proto of TensorFlow.
"""

from collections.abc import Iterator

import numpy as np

DTYPES = {1: "float32", 3: "int32", 6: "int8", 9: "int64", 19: "float16"}
_NUMBERS = {name: number for number, name in DTYPES.items()}
_STRING = 7
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class ProtoError(ValueError):
    """Bytes are not the expected message. The caller adds where the bytes are."""


def tensor(array: np.ndarray) -> bytes:
    """The TensorProto of an array, whose dtype is one of DTYPES."""
    head = _tag(1, _VARINT) + _varint(_NUMBERS[array.dtype.name]) + _shape(array.shape)
    content = np.ascontiguousarray(array).tobytes()
    return head + _field(4, content) if content else head


def ragged_tensor(values: np.ndarray, row_splits: np.ndarray) -> bytes:
    """The string tensor of a ragged tensor: int32 values [num_ids], row_splits [rows + 1]."""
    strings = _field(8, tensor(values)) + _field(8, tensor(row_splits))
    return _tag(1, _VARINT) + _varint(_STRING) + _shape((2,)) + strings


def example(name: str, data: bytes) -> bytes:
    """A tf.train.Example with one bytes feature."""
    feature = _field(1, _field(1, data))
    return _field(1, _field(1, _field(1, name.encode()) + _field(2, feature)))


def parse_example(data: bytes, name: str) -> memoryview:
    """The bytes of the feature `name`. Raises ProtoError unless there is exactly one value."""
    values_of_name = None
    for features in _messages(data, 1):
        for entry in _messages(features, 1):
            if [bytes(key) for key in _messages(entry, 1)] == [name.encode()]:
                values_of_name = [
                    value
                    for feature in _messages(entry, 2)
                    for values in _messages(feature, 1)
                    for value in _messages(values, 1)
                ]
    if values_of_name is None or len(values_of_name) != 1:
        raise ProtoError(f"is not an Example with one value of feature {name!r}")
    return values_of_name[0]


def parse_tensor(data: memoryview) -> np.ndarray:
    """The array of a TensorProto, a view of its bytes. Raises ProtoError."""
    number, shape, content = _parts(data)
    if number not in DTYPES:
        raise ProtoError(f"is a tensor of type {number}; {', '.join(DTYPES.values())} are read")
    dtype, count = np.dtype(DTYPES[number]), 1
    for size in shape:
        count *= size
    if count * dtype.itemsize != len(content):
        raise ProtoError(f"has shape {shape} of {dtype}, but {len(content)} bytes of content")
    return np.frombuffer(content, dtype).reshape(shape)


def parse_ragged(data: memoryview) -> tuple[np.ndarray, np.ndarray]:
    """(values, row splits) of a ragged tensor, both one-dimensional. Raises ProtoError."""
    number, shape, _ = _parts(data)
    strings = list(_messages(data, 8))
    if number != _STRING or shape != [2] or len(strings) != 2:
        raise ProtoError(f"is a tensor of type {number} and shape {shape}, not the two strings of a ragged tensor")
    values, row_splits = map(parse_tensor, strings)
    if row_splits.dtype.kind != "i":
        raise ProtoError(f"has row splits of type {row_splits.dtype}")
    splits = row_splits.astype(np.int64, copy=False)
    good = values.ndim == splits.ndim == 1 and len(splits) > 0 and splits[0] == 0 and splits[-1] == len(values)
    if not good or (splits[1:] < splits[:-1]).any():
        raise ProtoError("has row splits that do not rise from 0 to the number of values")
    return values, splits


def _parts(data: memoryview) -> tuple[int, list[int], memoryview]:
    """(type, shape, content) of a TensorProto."""
    number, shape, content = 0, [], memoryview(b"")
    for field, value in _fields(data):
        if field == 1 and isinstance(value, int):
            number = value
        elif field == 2 and not isinstance(value, int):
            for dim in _messages(value, 2):
                shape.append(sum(size for part, size in _fields(dim) if part == 1 and isinstance(size, int)))
        elif field == 4 and not isinstance(value, int):
            content = value
    if any(size >= 1 << 40 for size in shape) or len(shape) > 4:
        raise ProtoError(f"has shape {shape[:5]}")
    return number, shape, content


def _messages(data: bytes | memoryview, number: int) -> Iterator[memoryview]:
    """The length-delimited fields with this number."""
    return (value for field, value in _fields(data) if field == number and not isinstance(value, int))


def _fields(data: bytes | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Every field of a message as (number, value)."""
    data, place = memoryview(data), 0
    while place < len(data):
        tag, place = _read_varint(data, place)
        kind = tag & 7
        if kind == _VARINT:
            value, place = _read_varint(data, place)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            length, place = _read_varint(data, place)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise ProtoError(f"has a field of wire type {kind}")
        if length > len(data) - place:
            raise ProtoError(f"has a field of {length} bytes where {len(data) - place} are left")
        yield tag >> 3, data[place : place + length]
        place += length


def _read_varint(data: memoryview, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        value |= (data[place] & 0x7F) << shift
        place += 1
        if data[place - 1] < 0x80:
            return value, place
    raise ProtoError("has a number that does not end")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _tag(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _field(number: int, data: bytes) -> bytes:
    """A length-delimited field."""
    return _tag(number, _BYTES) + _varint(len(data)) + data


def _shape(shape: tuple[int, ...]) -> bytes:
    # A size of 0 is the default and is not written.
    return _field(2, b"".join(_field(2, _tag(1, _VARINT) + _varint(n) if n else b"") for n in shape))
