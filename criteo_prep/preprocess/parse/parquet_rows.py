"""Rows from parquet files with the same 40 columns in the same order: label, 13 integers, 26 values.

Column names are not read. The label is an integer or bool column; a numerical column has integers. A categorical column
has hexadecimal text as in the logs, or the numbers behind the text: integers from 0 to 2^32 - 1, or int32, where
negative numbers are the upper half. A null or an empty text is a missing field. All other rules are as for text, see
tsv.py.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.preprocess.parse import fields, tsv
from criteo_prep.preprocess.parse.text_stream import InputError
from criteo_prep.schema import NUM_CATEGORICAL, NUM_NUMERICAL

_MAGIC = b"PAR1"
BLOCK_ROWS = 1 << 14
_BUFFER_BYTES = 1 << 20  # read buffer of each column


def is_parquet(path: str | Path) -> bool:
    """Whether a file is parquet, by its first bytes. Raises InputError for a .parquet file that is not."""
    with open(path, "rb") as file:
        found = file.read(len(_MAGIC)) == _MAGIC
    if not found and Path(path).suffix == ".parquet":
        raise InputError(f"{path}: is named .parquet but is not a parquet file. Fetch it again, or rename it.")
    return found


def num_rows_of(path: str | Path) -> int:
    """Number of rows, by the footer of the file."""
    with _open(path) as file:
        return file.metadata.num_rows


def num_columns_of(path: str | Path) -> int:
    """Number of columns, by the footer of the file."""
    with _open(path) as file:
        return file.metadata.num_columns


def row_blocks(path: str | Path, labelled: bool = True, skip_rows: int = 0) -> Iterator[tuple[object, int]]:
    """Yields (record batch, rows of the file up to the end of the batch), in order.

    Args:
      path: a parquet file.
      labelled: whether rows have labels.
      skip_rows: rows at the start of the file that are left out.

    Raises:
      InputError: the file cannot be read, or its columns differ from the columns of the logs.
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
    """The rows of a record batch; bad rows are numbered like lines."""
    columns = list(batch.columns)
    missing = np.zeros(batch.num_rows, np.uint64)
    wrong = np.full(batch.num_rows, -1, np.int64)  # the first wrong field of each row, -1 for a good row
    label = _read_label(columns.pop(0), wrong) if labelled else np.zeros(batch.num_rows, bool)
    numbers = _read_numbers(columns[:NUM_NUMERICAL], missing, wrong)
    values = _read_values(columns[NUM_NUMERICAL:], missing, wrong)
    num_bad, first_bad = _bad_rows(batch, wrong, labelled)
    good = wrong < 0
    if not good.all():
        label, numbers, missing = label[good], numbers[good], missing[good]
        values = np.ascontiguousarray(values[:, good])
    present = missing >> (np.uint64(tsv.FIRST_VALUE) + np.arange(NUM_CATEGORICAL, dtype=np.uint64)[:, None])
    present = present & np.uint64(1) == 0
    return tsv.Rows(
        label,
        numbers,
        values=values,
        missing=missing,
        num_zeros=int(np.count_nonzero((values == 0) & present)),
        num_lines=batch.num_rows,
        num_bad=num_bad,
        first_bad=first_bad,
    )


def _read_label(array, wrong: np.ndarray) -> np.ndarray:
    """bool [n]; marks the rows without a label of 0 or 1 in `wrong`."""
    numbers, absent = _integers(array)
    wrong[absent | (numbers < 0) | (numbers > 1)] = 0
    return numbers == 1


def _read_numbers(arrays: list, missing: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """The numericals, int64 [n, 13]; sets the bits of `missing`, and marks the rows with other numbers in `wrong`."""
    numbers = np.zeros((len(missing), NUM_NUMERICAL), np.int64)
    for column, array in enumerate(arrays):
        numbers[:, column], absent = _integers(array)
        missing |= absent.astype(np.uint64) << np.uint64(1 + column)
        too_long = np.abs(numbers[:, column]) >= 10**fields.MAX_DIGITS
        wrong[(wrong < 0) & (too_long | (numbers[:, column] == np.iinfo(np.int64).min))] = 1 + column
    return numbers


def _read_values(arrays: list, missing: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """The values, uint32 [26, n]; sets the bits of `missing`, and marks the rows with other values in `wrong`."""
    import pyarrow

    values = np.empty((NUM_CATEGORICAL, len(missing)), np.uint32)
    for column, array in enumerate(arrays):
        if pyarrow.types.is_integer(array.type):
            numbers, absent = _integers(array)
            bad = (numbers < (-(1 << 31) if array.type.bit_width == 32 else 0)) | (numbers >= 1 << 32)
            values[column] = numbers.astype(np.uint32)
        else:
            values[column], absent, bad = _hexadecimal(array)
        missing |= absent.astype(np.uint64) << np.uint64(tsv.FIRST_VALUE + column)
        wrong[(wrong < 0) & bad] = tsv.FIRST_VALUE + column
    return values


def _bad_rows(batch, wrong: np.ndarray, labelled: bool) -> tuple[np.ndarray, tuple[tsv.BadRow, ...]]:
    """(bad rows by reason, int64 [number of reasons]; the first bad row of each reason)."""
    num_bad, first_bad = np.zeros(len(tsv.REASONS), np.int64), {}
    for line in np.flatnonzero(wrong >= 0).tolist():
        field = int(wrong[line])
        reason = tsv.reason_of_field(field)
        num_bad[reason] += 1
        if reason not in first_bad:
            column = field - (not labelled)
            found = f"field {column + 1} ({tsv.FIELDS[field]}) is {batch.columns[column][line].as_py()!r}"
            first_bad[reason] = tsv.BadRow(line, reason, found)
    return num_bad, tuple(first_bad.values())


def _open(path: str | Path):
    import pyarrow
    import pyarrow.parquet

    try:
        # By default everything that was read stays in memory until the file is closed.
        return pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES)
    except pyarrow.ArrowException as error:
        raise InputError(f"{path}: is not a whole parquet file: {error}. Fetch the file again.") from None


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
    """(numbers int64 [n], 0 where null; bool [n], whether null). A uint64 above int64 becomes the smallest int64."""
    import pyarrow
    import pyarrow.compute as compute

    absent = np.asarray(array.is_null())
    if pyarrow.types.is_uint64(array.type):
        numbers = np.asarray(compute.fill_null(array, 0))
        return np.where(numbers > np.iinfo(np.int64).max, np.iinfo(np.int64).min, numbers.astype(np.int64)), absent
    filled = compute.fill_null(array, False if pyarrow.types.is_boolean(array.type) else 0)
    return np.asarray(filled.cast(pyarrow.int64())), absent


def _hexadecimal(array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(values uint32 [n], bool [n] whether missing, bool [n] whether wrong) of a column of text."""
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
