"""Cells of one column of any type as text, integers or numbers; and which cells cannot be read."""

from datetime import datetime
from typing import NamedTuple

import numpy as np

from criteo_prep.table.document_values import SchemaError

INTEGER, TEXT, HEXADECIMAL = "integer", "text", "hexadecimal"
_TIME_FORMS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")


class ColumnKind(NamedTuple):
    """What the values of a categorical column are on disk, between parse and encoding.

    Attributes:
      values: INTEGER, TEXT or HEXADECIMAL.
      is_list: whether a row has several values.
    """

    values: str
    is_list: bool = False


class Cells(NamedTuple):
    """The cells of a column.

    Attributes:
      values: polars Series of String or Int64 (of all rows, one after the other, for a list); null where missing.
      bad: bool [n], rows with a cell that cannot be read; None where there is no such row.
      lengths: int32 [n], values of each row; None for single values.
    """

    values: object
    bad: np.ndarray | None = None
    lengths: np.ndarray | None = None


def is_text_like(kind) -> bool:
    """Whether the cells of a column of this polars type have a form as text."""
    import polars

    return not (kind.is_nested() or kind in (polars.Binary, polars.Object, polars.Duration))


def text_of(series, where: str):
    """The cells as text: whole floats as integers, true and false as in JSON, times as in ISO 8601; empty is null."""
    import polars

    kind = series.dtype
    if kind == polars.String:
        return series.replace("", None) if (series == "").any() else series
    if kind.is_float():
        whole = series.cast(polars.Int64, strict=False)
        return polars.select(
            polars.when(whole.cast(kind) == series)
            .then(whole.cast(polars.String))
            .otherwise(series.fill_nan(None).cast(polars.String))
        ).to_series()
    if not is_text_like(kind):
        raise _wrong_type(where, kind, "text, integers, true and false, or times")
    return series.cast(polars.String)


def categorical_cells(series, wanted: str | None, *, where: str) -> tuple[str, Cells]:
    """(INTEGER, TEXT or HEXADECIMAL; the cells) of a column of single values.

    Args:
      series: polars Series of any type.
      wanted: the type that the schema asks for; None for what the column has.
      where: file and column, for messages.
    """
    import polars

    kind = series.dtype
    if kind.is_nested() or kind in (polars.Binary, polars.Object) or kind.is_decimal():
        raise _wrong_type(where, kind, "text, integers, true and false, or a list of one of these")
    if wanted == TEXT or (wanted is None and not (kind.is_integer() or kind.is_float())):
        return TEXT, Cells(text_of(series, where))
    if wanted == HEXADECIMAL and not kind.is_integer():
        return HEXADECIMAL, _hexadecimal(text_of(series, where))
    source = series.fill_nan(None) if kind.is_float() else series
    if kind in (polars.String, polars.Categorical, polars.Enum):
        source = text_of(series, where)
    numbers = source.cast(polars.Int64, strict=False)
    bad = numbers.is_null() & source.is_not_null()
    if kind.is_float():
        bad = bad | (numbers.cast(polars.Float64) != source.cast(polars.Float64)).fill_null(False)
    if wanted == HEXADECIMAL:
        bad = bad | ((numbers < 0) | (numbers >= 1 << 32)).fill_null(False)
    return wanted or INTEGER, Cells(numbers, _mask(bad))


def list_cells(series, wanted: str | None, *, separator: str | None, where: str) -> tuple[str, Cells]:
    """The same of a column of lists, or of text with a separator; a missing list is an empty list."""
    import polars

    if not series.dtype.is_nested():
        series = text_of(series, where)
        series = (
            series.str.split(separator)
            if separator
            else series.to_frame("v")
            .select(polars.when(polars.col("v").is_null()).then(None).otherwise(polars.concat_list("v")))
            .to_series()
        )
    elif isinstance(series.dtype, polars.Array):
        series = series.arr.to_list()
    if not isinstance(series.dtype, polars.List):
        raise _wrong_type(where, series.dtype, "text, integers, true and false, or a list of one of these")
    lengths = series.list.len().fill_null(0).to_numpy().astype(np.int32)
    kind, (values, bad, _) = categorical_cells(
        series.explode(empty_as_null=False, keep_nulls=False), wanted, where=where
    )
    if bad is not None:
        rows = np.repeat(np.arange(len(lengths)), lengths)[bad]
        bad = np.isin(np.arange(len(lengths)), rows)
    return kind, Cells(values, bad, lengths=lengths)


def numerical_cells(series, where: str) -> tuple[np.ndarray, np.ndarray | None]:
    """(float64 [n], NaN where missing; bool [n], rows whose cell is not a finite number, or None)."""
    import polars

    kind = series.dtype
    if not (kind.is_numeric() or kind in (polars.String, polars.Boolean, polars.Null, polars.Categorical)):
        raise _wrong_type(where, kind, "numbers")
    if kind == polars.Categorical:
        series = series.cast(polars.String)
    numbers = series.cast(polars.Float64, strict=False)
    bad = numbers.is_null() & series.is_not_null() | numbers.is_infinite().fill_null(False)
    if kind == polars.String:
        bad = bad & (series != "")
    return numbers.fill_null(float("nan")).to_numpy(), _mask(bad)


def later_rows(series, limit: int | float | datetime, *, where: str) -> tuple[np.ndarray, np.ndarray | None]:
    """(bool [n], rows whose time is `limit` or later; bool [n], rows without a time, or None)."""
    import polars

    kind = series.dtype
    if kind.is_nested() or kind in (polars.Binary, polars.Time, polars.Duration):
        raise _wrong_type(where, kind, "times or numbers")
    if isinstance(limit, datetime):
        if kind.is_numeric():
            raise SchemaError(
                f"{where}: is of type {kind}, but the schema's time is {limit}. Write it as a number too."
            )
        times = _times_of(series) if kind == polars.String else series
        if getattr(times.dtype, "time_zone", None):
            times = times.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        times = times.cast(polars.Datetime("us"), strict=False)
    else:
        if kind.is_temporal():
            raise SchemaError(f"{where}: is of type {kind}, but the schema's time is {limit}. Write it as a date.")
        times = series.cast(polars.Int64 if isinstance(limit, int) else polars.Float64, strict=False)
    return (times >= limit).fill_null(False).to_numpy(), _mask(times.is_null())


def _times_of(text):
    """The times in a Series of text, in one of the forms of _TIME_FORMS; null for other text."""
    import polars

    text = text.str.strip_suffix("Z").str.replace("T", " ", literal=True)
    times = polars.Series(text.name, [None] * len(text), dtype=polars.Datetime("us"))
    for form in _TIME_FORMS:
        if times.null_count() > text.null_count():
            parsed = text.str.to_datetime(form, strict=False, time_unit="us")
            times = times.zip_with(times.is_not_null(), parsed)
    return times


def is_integer_text(series) -> bool:
    """Whether every value of a Series of text is an integer of 64 bits: an optional minus and digits."""
    import polars

    pattern = r"^-?[0-9]{1,19}$"
    return bool(series.str.contains(pattern).all()) and series.cast(polars.Int64, strict=False).null_count() == 0


def _hexadecimal(text) -> Cells:
    good = text.str.contains(r"^[0-9A-Fa-f]{1,8}$").fill_null(True)
    values = text.str.to_integer(base=16, strict=False)
    return Cells(values, _mask(~good))


def _mask(bad) -> np.ndarray | None:
    return bad.to_numpy() if bad.any() else None


def _wrong_type(where: str, kind: object, expected: str) -> SchemaError:
    return SchemaError(
        f"{where}: is of type {kind}, expected {expected}. Cast the column, or leave it out of the schema."
    )
