"""The arrays of a parquet column, of any type that programs write, as the numbers of the logs."""

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.preprocess.parse import fields

NOT_AN_INTEGER = np.iinfo(np.int64).min  # stands for a fraction, and for a number beyond int64


def is_text(kind) -> bool:
    """Whether a pyarrow type holds text or bytes."""
    import pyarrow.types as types

    texts = (types.is_string, types.is_large_string, types.is_string_view)
    return any(is_kind(kind) for is_kind in (*texts, types.is_binary, types.is_large_binary, types.is_binary_view))


def is_text_dictionary(kind) -> bool:
    """Whether a pyarrow type is a dictionary of text or bytes."""
    import pyarrow.types as types

    return types.is_dictionary(kind) and is_text(kind.value_type)


def plain(array):
    """A column without dictionary, with text as large_binary and an all-null column as int64."""
    import pyarrow
    import pyarrow.types as types

    if types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if types.is_null(array.type):
        return array.cast(pyarrow.int64())
    if types.is_string_view(array.type):
        array = array.cast(pyarrow.large_string())
    return array.cast(pyarrow.large_binary()) if is_text(array.type) else array


def integers(array) -> tuple[np.ndarray, np.ndarray]:
    """(numbers int64 [n], 0 where missing; bool [n], whether missing). What is not an int64 is NOT_AN_INTEGER."""
    import pyarrow
    import pyarrow.compute as compute

    absent = np.asarray(array.is_null())
    if pyarrow.types.is_floating(array.type):
        numbers = np.asarray(compute.fill_null(array, float("nan")))
        absent = np.isnan(numbers)
        whole = (np.abs(numbers) < 2.0**63) & (numbers == np.floor(numbers))
        integers = np.where(whole, numbers, 0).astype(np.int64)
        return np.where(whole | absent, integers, NOT_AN_INTEGER), absent
    if pyarrow.types.is_uint64(array.type):
        numbers = np.asarray(compute.fill_null(array, 0))
        return np.where(numbers > np.iinfo(np.int64).max, NOT_AN_INTEGER, numbers.astype(np.int64)), absent
    filled = compute.fill_null(array, False if pyarrow.types.is_boolean(array.type) else 0)
    return np.asarray(filled.cast(pyarrow.int64())), absent


def hexadecimal(array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(values uint32 [n], bool [n] whether missing, bool [n] whether wrong) of a column or dictionary of text."""
    import pyarrow.compute as compute

    if is_text_dictionary(array.type):
        entries, empty, wrong = hexadecimal(array.dictionary)
        if not len(entries):  # all rows are null
            return np.zeros(len(array), np.uint32), np.ones(len(array), bool), np.zeros(len(array), bool)
        missing = np.array(array.indices.is_null())
        places = np.asarray(compute.fill_null(array.indices, 0) if array.null_count else array.indices)
        values, bad = np.empty(len(array), np.uint32), np.empty(len(array), np.bool_)
        _look_up(places, entries, empty, wrong, missing, values, bad)
        return values, missing, bad
    array = compute.fill_null(plain(array), b"")
    _, offsets, data = array.buffers()
    starts = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    text = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    values, bad = np.empty(len(array), np.uint32), np.empty(len(array), np.bool_)
    _read_hexadecimal(text, starts, fields.HEX, values, bad)
    return values, np.diff(starts) == 0, bad


@compiled
def _read_hexadecimal(text, starts, hex_digits, values, bad):
    """Fills values[i] from text[starts[i]:starts[i + 1]], and bad[i]: whether that is not a hexadecimal number."""
    for i in range(values.size):
        value = np.uint32(0)
        bad[i] = starts[i + 1] - starts[i] > 8
        if not bad[i]:
            for position in range(starts[i], starts[i + 1]):
                digit = hex_digits[text[position]]
                bad[i] |= digit == 255
                value = np.uint32((value << np.uint32(4)) | np.uint32(digit & 15))
        values[i] = 0 if bad[i] else value


@compiled
def _look_up(places, entries, empty, wrong, missing, values, bad):
    """Fills values and bad with the entry at each place of a dictionary; missing[i] becomes true for an empty entry."""
    for i in range(values.size):
        place = places[i]
        missing[i] |= empty[place]
        values[i] = np.uint32(0) if missing[i] else entries[place]
        bad[i] = wrong[place] and not missing[i]


def shown(array) -> str:
    """The only element of an array as a message shows it."""
    element = plain(array)[0].as_py()
    if isinstance(element, bytes):
        return repr(element[:32])[1:] + ("..." if len(element) > 32 else "")
    return repr(element)
