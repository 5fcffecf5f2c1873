"""Rows from parquet files with the same 40 columns in the same order: label, 13 integers, 26 values.

Names do not matter. The label is an integer or bool column, a numerical an integer column; a value is hexadecimal
text as in the logs, or the number that it stands for: an integer column from 0 to 2^32 - 1, or int32, whose negative
numbers are the upper half. A null or an empty text is a missing field. The same rules hold as for text (see tsv.py).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.preprocess.parse import fields, tsv
from criteo_prep.preprocess.parse.text_blocks import InputError
from criteo_prep.schema import NUM_CATEGORICAL, NUM_NUMERICAL

_MAGIC = b"PAR1"
BLOCK_ROWS = 1 << 14
_BUFFER_BYTES = 1 << 20  # of each column


def is_parquet(path: str | Path) -> bool:
    """By the file's first bytes."""
    with open(path, "rb") as file:
        found = file.read(len(_MAGIC)) == _MAGIC
    if not found and Path(path).suffix == ".parquet":
        raise InputError(f"{path}: is named .parquet but is none. Fetch it again, or rename it.")
    return found


def num_rows_of(path: str | Path) -> int:
    with _open(path) as file:
        return file.metadata.num_rows


def num_columns_of(path: str | Path) -> int:
    with _open(path) as file:
        return file.metadata.num_columns


def row_blocks(path: str | Path, labelled: bool = True, skip_rows: int = 0) -> Iterator[tuple[object, int]]:
    """Yields (record batch, rows of the file up to its end), in order.

    Args:
      skip_rows: this many rows are passed over.

    Raises:
      InputError: the file cannot be read, or its columns are not those of the logs.
    """
    import pyarrow

    with _open(path) as file:
        _check_columns(path, file.schema_arrow, labelled)
        done = 0
        try:
            for batch in file.iter_batches(BLOCK_ROWS):
                start, done = done, done + batch.num_rows
                if done > skip_rows:
                    yield batch.slice(max(0, skip_rows - start)), done
        except pyarrow.ArrowException as error:
            raise InputError(f"{path}: cannot be read: {error}. Fetch the file again.") from None


def rows_of(batch, labelled: bool = True) -> tsv.Rows:
    """The rows of a record batch; a bad row is numbered as a line is."""
    import pyarrow

    num_rows = batch.num_rows
    columns = list(batch.columns)
    missing = np.zeros(num_rows, np.uint64)
    wrong = np.full(num_rows, -1, np.int64)  # the first wrong field of each row
    label = np.zeros(num_rows, bool)
    if labelled:
        numbers, absent = _integers(columns.pop(0))
        label = numbers == 1
        wrong[absent | (numbers < 0) | (numbers > 1)] = 0
    integers = np.zeros((num_rows, NUM_NUMERICAL), np.int64)
    for column in range(NUM_NUMERICAL):
        integers[:, column], absent = _integers(columns[column])
        missing |= absent.astype(np.uint64) << np.uint64(1 + column)
        too_long = np.abs(integers[:, column]) >= 10**fields.MAX_DIGITS
        wrong[(wrong < 0) & (too_long | (integers[:, column] == np.iinfo(np.int64).min))] = 1 + column
    values = np.empty((NUM_CATEGORICAL, num_rows), np.uint32)
    for column in range(NUM_CATEGORICAL):
        data = columns[NUM_NUMERICAL + column]
        if pyarrow.types.is_integer(data.type):
            numbers, absent = _integers(data)
            bad = (numbers < (-(1 << 31) if data.type.bit_width == 32 else 0)) | (numbers >= 1 << 32)
            values[column] = numbers.astype(np.uint32)
        else:
            values[column], absent, bad = _hexadecimal(data)
        missing |= absent.astype(np.uint64) << np.uint64(tsv.FIRST_VALUE + column)
        wrong[(wrong < 0) & bad] = tsv.FIRST_VALUE + column
    return _good_rows(batch, labelled, label=label, integers=integers, values=values, missing=missing, wrong=wrong)


def _good_rows(batch, labelled, *, label, integers, values, missing, wrong) -> tsv.Rows:
    """Leaves out the bad rows. `wrong` is int64 [n], -1 for a good row."""
    good = wrong < 0
    reasons = [tsv.reason_of_field(field) for field in wrong[~good].tolist()]
    lines = np.flatnonzero(~good).tolist()
    first_bad = {}
    for line, reason in zip(lines, reasons, strict=True):
        column = int(wrong[line]) - (not labelled)
        found = f"field {column + 1} ({tsv.FIELDS[wrong[line]]}) is {batch.columns[column][line].as_py()!r}"
        first_bad.setdefault(reason, tsv.BadRow(line, reason, found))
    if not good.all():
        label, integers, missing = label[good], integers[good], missing[good]
        values = np.ascontiguousarray(values[:, good])
    first_value = np.uint64(tsv.FIRST_VALUE)
    there = [~(missing >> (first_value + np.uint64(c)) & np.uint64(1)).astype(bool) for c in range(NUM_CATEGORICAL)]
    num_zeros = sum(int(np.count_nonzero((values[c] == 0) & there[c])) for c in range(NUM_CATEGORICAL))
    return tsv.Rows(
        label,
        integers,
        values=values,
        missing=missing,
        num_zeros=num_zeros,
        num_lines=len(good),
        num_bad=np.bincount(reasons, minlength=len(tsv.REASONS)).astype(np.int64),
        first_bad=tuple(first_bad.values()),
    )


def _open(path: str | Path):
    import pyarrow
    import pyarrow.parquet

    try:
        # By default all that was read stays in memory until the file is closed.
        return pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES)
    except pyarrow.ArrowException as error:
        raise InputError(f"{path}: is no whole parquet file: {error}. Fetch the file again.") from None


def _check_columns(path, schema, labelled: bool) -> None:
    import pyarrow.types as types

    names = tsv.FIELDS if labelled else tsv.FIELDS[1:]
    if len(schema) != len(names):
        raise InputError(f"{path}: has {len(schema)} columns; expected {len(names)}: {names[0]}, ..., {names[-1]}.")
    for number, (field, name) in enumerate(zip(schema, names, strict=True)):
        integer = types.is_integer(field.type) or (name == tsv.FIELDS[0] and types.is_boolean(field.type))
        text = types.is_string(field.type) or types.is_large_string(field.type)
        categorical = name in tsv.FIELDS[tsv.FIRST_VALUE :]
        if not integer and not (text and categorical):
            wanted = "hexadecimal text or integers" if categorical else "integers"
            raise InputError(
                f"{path}: column {number + 1} ({field.name}) is of type {field.type}; {name} must be {wanted}. "
                "Cast the column."
            )


def _integers(array) -> tuple[np.ndarray, np.ndarray]:
    """(int64 [n] with 0 where null, bool [n] null); uint64 above int64 becomes the smallest int64."""
    import pyarrow
    import pyarrow.compute as compute

    absent = np.asarray(array.is_null())
    if pyarrow.types.is_uint64(array.type):
        numbers = np.asarray(compute.fill_null(array, 0))
        return np.where(numbers > np.iinfo(np.int64).max, np.iinfo(np.int64).min, numbers.astype(np.int64)), absent
    filled = compute.fill_null(array, False if pyarrow.types.is_boolean(array.type) else 0)
    return np.asarray(filled.cast(pyarrow.int64())), absent


def _hexadecimal(array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(uint32 [n], bool [n] missing, bool [n] wrong) of a column of text."""
    import pyarrow
    import pyarrow.compute as compute

    array = compute.fill_null(array, "").cast(pyarrow.large_string())
    _, offsets, data = array.buffers()
    starts = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    text = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
    values, bad = np.empty(len(array), np.uint32), np.empty(len(array), np.bool_)
    _read_hexadecimal(text, starts, fields.HEX, values, bad)
    return values, np.diff(starts) == 0, bad


@compiled
def _read_hexadecimal(text, starts, hex_digits, values, bad):
    """Text i is text[starts[i]:starts[i + 1]]; fills values and whether it is no hexadecimal number."""
    for i in range(values.size):
        value = np.uint32(0)
        bad[i] = starts[i + 1] - starts[i] > 8
        if not bad[i]:
            for position in range(starts[i], starts[i + 1]):
                digit = hex_digits[text[position]]
                bad[i] |= digit == 255
                value = np.uint32((value << np.uint32(4)) | np.uint32(digit & 15))
        values[i] = 0 if bad[i] else value
