"""Rows from parquet files with the 40 columns of the logs: label, 13 integers, 26 values; see parquet_columns.py.

The label and the numericals are integers of any type; or float64, in which pandas has integers with gaps. A
categorical column has hexadecimal text as in the logs, as text or as bytes; or the numbers behind the text: integers
from 0 to 2^32 - 1, or int32, where negative numbers are the upper half. Any column may be a dictionary, or all null. A
null, a NaN or an empty text is a missing field. All other rules are as for text, see tsv.py.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from criteo_prep.preprocess.locations import Location, location_of, open_location
from criteo_prep.preprocess.parquet_file import open_parquet
from criteo_prep.preprocess.parse import fields, parquet_values, tsv
from criteo_prep.preprocess.parse.parquet_columns import find_columns
from criteo_prep.preprocess.parse.text_stream import InputError
from criteo_prep.schema import NUM_CATEGORICAL, NUM_NUMERICAL

_MAGIC = b"PAR1"
_NUMBER_BYTES = 6  # of a row in a text column with a dictionary, at most; plain text takes 4 and its length
BLOCK_ROWS = 1 << 16
_TOO_LARGE = 10**fields.MAX_DIGITS
# Larger values could fill the memory when a batch of rows is read. A good value has 8 bytes, a good row about 400.
_MAX_VALUE_BYTES, _MAX_ROW_BYTES, _MAX_EXTRA_BYTES = 256, 2560, 16 << 20


def is_parquet(path: str | Location) -> bool:
    """Whether a file is parquet, by its first bytes. Raises InputError for a .parquet file that is not."""
    path = location_of(path)
    with open_location(path) as file:
        found = file.read(len(_MAGIC)) == _MAGIC
    if not found and path.suffix == ".parquet":
        raise InputError(f"{path}: is named .parquet but is not a parquet file. Fetch it again, or rename it.")
    return found


def num_rows_of(path: str | Location) -> int:
    """Number of rows, by the footer of the file."""
    with open_parquet(path, InputError) as file:
        return file.metadata.num_rows


def column_names(path: str | Location) -> list[str]:
    """Names of the columns, in the order of the file."""
    with open_parquet(path, InputError) as file:
        return file.schema_arrow.names


def row_blocks(path: str | Location, labelled: bool = True, skip_rows: int = 0) -> Iterator[tuple[object, int]]:
    """Yields (record batch, rows of the file up to the end of the batch), in order.

    The columns of a batch are the label, if rows have labels, the 13 numericals, and the 26 values.

    Args:
      path: a parquet file.
      labelled: whether rows have labels.
      skip_rows: rows at the start of the file that are left out.

    Raises:
      InputError: the file is damaged, or its columns cannot be the columns of the logs.
    """
    names, repeated_text = _names_and_repeated_text(path)
    positions = list(find_columns(path, names, labelled).positions)
    with (
        open_parquet(path, InputError, dictionaries=repeated_text) as file,
        open_parquet(path, InputError, dictionaries=names) as preview,
    ):
        _check_types(path, [file.schema_arrow.field(position) for position in positions], labelled)
        done = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if done + rows <= skip_rows:
                done += rows
                continue
            _check_sizes(path, preview, group)
            for batch in file.iter_batches(BLOCK_ROWS, row_groups=[group]):
                start, done = done, done + batch.num_rows
                if done > skip_rows:
                    yield batch.select(positions).slice(max(0, skip_rows - start)), done


def _names_and_repeated_text(path: str | Location) -> tuple[list[str], list[str]]:
    """Names of the columns, in the order of the file; and of the text columns with few different values.

    Of such a column the file has a dictionary and numbers, which are smaller than the text.
    """
    with open_parquet(path, InputError) as file:
        metadata, schema = file.metadata, file.schema_arrow
        groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        text = [column for column, field in enumerate(schema) if parquet_values.is_text(field.type)]
        bytes_ = {column: sum(group.column(column).total_uncompressed_size for group in groups) for column in text}
        return schema.names, [
            schema.names[column] for column in text if bytes_[column] < _NUMBER_BYTES * metadata.num_rows
        ]


def rows_of(batch, labelled: bool = True) -> tsv.Rows:
    """The rows of a record batch; bad rows are numbered like lines."""
    is_text = parquet_values.is_text_dictionary
    columns = [array if is_text(array.type) else parquet_values.plain(array) for array in batch.columns]
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
    num_missing = int(np.bitwise_count(missing >> np.uint64(tsv.FIRST_VALUE)).sum())
    return tsv.Rows(
        label,
        numbers,
        values=values,
        missing=missing,
        num_zeros=values.size - np.count_nonzero(values) - num_missing,  # a missing value is 0
        num_lines=batch.num_rows,
        num_bad=num_bad,
        first_bad=first_bad,
    )


def _read_label(array, wrong: np.ndarray) -> np.ndarray:
    """bool [n]; marks the rows without a label of 0 or 1 in `wrong`."""
    numbers, absent = parquet_values.integers(array)
    wrong[absent | (numbers < 0) | (numbers > 1)] = 0
    return numbers == 1


def _read_numbers(arrays: list, missing: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """The numericals, int64 [n, 13]; sets the bits of `missing`, and marks the rows with other numbers in `wrong`."""
    numbers = np.empty((len(missing), NUM_NUMERICAL), np.int64)
    for column, array in enumerate(arrays):
        found, absent = parquet_values.integers(array)
        if absent.any():
            missing |= absent.astype(np.uint64) << np.uint64(1 + column)
        too_long = (found >= _TOO_LARGE) | (found <= -_TOO_LARGE)  # so is NOT_AN_INTEGER
        if too_long.any():
            wrong[(wrong < 0) & too_long] = 1 + column
        numbers[:, column] = found
    return numbers


def _read_values(arrays: list, missing: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """The values, uint32 [26, n]; sets the bits of `missing`, and marks the rows with other values in `wrong`."""
    import pyarrow

    values = np.empty((NUM_CATEGORICAL, len(missing)), np.uint32)
    for column, array in enumerate(arrays):
        kind = array.type
        if pyarrow.types.is_large_binary(kind) or pyarrow.types.is_dictionary(kind):
            values[column], absent, bad = parquet_values.hexadecimal(array)
        else:
            numbers, absent = parquet_values.integers(array)
            bad = (numbers < (-(1 << 31) if pyarrow.types.is_int32(kind) else 0)) | (numbers >= 1 << 32)
            values[column] = numbers.astype(np.uint32)
        if absent.any():
            missing |= absent.astype(np.uint64) << np.uint64(tsv.FIRST_VALUE + column)
        if bad.any():
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
            shown = parquet_values.shown(batch.columns[column].slice(line, 1))
            first_bad[reason] = tsv.BadRow(line, reason, f"field {column + 1} ({tsv.FIELDS[field]}) is {shown}")
    return num_bad, tuple(first_bad.values())


def _check_types(path: str | Location, columns: Sequence, labelled: bool) -> None:
    """Raises InputError for a column whose type cannot hold its field; `columns` are the pyarrow fields in order."""
    import pyarrow.types as types

    for number, column in enumerate(columns):
        name = tsv.FIELDS[number if labelled else number + 1]
        kind = column.type.value_type if types.is_dictionary(column.type) else column.type
        categorical = name in tsv.FIELDS[tsv.FIRST_VALUE :]
        good = types.is_integer(kind) or types.is_float64(kind) or types.is_null(kind)
        good |= types.is_boolean(kind) and name == tsv.FIELDS[0]
        if good or (categorical and parquet_values.is_text(kind)):
            continue
        wanted = "hexadecimal text or integers" if categorical else "integers"
        if types.is_floating(kind):
            wanted += f" ({kind} does not hold all integers of the logs, float64 does)"
        raise InputError(
            f"{path}: column {column.name!r} is {name} and of type {column.type}; expected {wanted}. Cast the column."
        )


def _check_sizes(path: str | Location, preview, group: int) -> None:
    """Raises InputError where the values of a row group are so large that a batch of them could fill the memory.

    A text column with a dictionary is small in the file, however large its values are, so the dictionary is looked at.

    Args:
      path: the file, for the message.
      preview: the file, with its text columns read as dictionaries.
      group: number of the row group.
    """
    import pyarrow.compute as compute
    import pyarrow.types as types

    details = preview.metadata.row_group(group)  # its columns() would end the process for a damaged file
    if details.total_byte_size > _MAX_ROW_BYTES * details.num_rows + _MAX_EXTRA_BYTES:
        raise InputError(
            f"{path}: row group {group} has {details.total_byte_size:,} bytes for {details.num_rows:,} rows; expected "
            f"{_MAX_ROW_BYTES} bytes a row at most. Find the column with large values, and leave such rows out."
        )
    for first_row in preview.iter_batches(1, row_groups=[group]):
        for name, array in zip(first_row.schema.names, first_row.columns, strict=True):
            if types.is_dictionary(array.type) and parquet_values.is_text(array.type.value_type):
                longest = compute.max(compute.binary_length(array.dictionary)).as_py()
                if longest is not None and longest > _MAX_VALUE_BYTES:
                    raise InputError(
                        f"{path}: column {name!r} has a value of {longest:,} bytes in row group {group}; expected 8 "
                        "hexadecimal digits at most. Leave such rows out."
                    )
        break
