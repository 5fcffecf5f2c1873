"""What the beginning of a log shows about each column: its type, its different values, its range."""

from collections.abc import Sequence
from typing import NamedTuple

from criteo_prep.messages import one_line
from criteo_prep.preprocess.locations import Location
from criteo_prep.preprocess.parse.text_stream import InputError
from criteo_prep.table.cells import is_text_like, text_of
from criteo_prep.table.parse import open_table
from criteo_prep.table.schema import TableSchema

SAMPLE_ROWS = 100_000
_SEPARATORS = "|;, "


class ColumnProfile(NamedTuple):
    """A column in a sample of rows.

    Attributes:
      name: name of the column.
      kind: "list", "time", "decimal", "integer", "hexadecimal", "true and false" or "text"; "record" for a type that
        cannot be a feature.
      num_rows, num_missing: rows of the sample.
      num_distinct: different values.
      num_single: values that occur once.
      lowest, highest, median: of integers and decimals; else 0.
      values: the most frequent values as text, at most 3.
      separator: what seems to separate the values of a list in text; None where nothing does.
      longest: values of the longest list.
    """

    name: str
    kind: str
    num_rows: int
    num_missing: int
    num_distinct: int
    num_single: int
    lowest: float = 0.0
    highest: float = 0.0
    median: float = 0.0
    values: tuple[str, ...] = ()
    separator: str | None = None
    longest: int = 1


def sample_of(paths: Sequence[Location], schema: TableSchema):
    """polars DataFrame of rows from the beginning of the first and of the last file, of the columns of the first.

    Args:
      paths: the files.
      schema: how files are read; its columns are not used.
    """
    import polars

    parts, chosen = [], [paths[0], *([paths[-1]] if len(paths) > 1 else [])]
    columns = tuple(open_table(paths[0], schema).columns())
    if len(set(columns)) < len(columns):
        raise InputError(f"{paths[0]}: two columns have the same name. Rename one.")
    for path in chosen:
        missing, wanted = SAMPLE_ROWS // len(chosen), columns
        if path is not paths[0] and set(columns) - set(open_table(path, schema).columns()):
            raise InputError(f"{path}: has other columns than {paths[0]}. Name files of one kind.")
        for frame, _, _ in open_table(path, schema, skip_bad_rows=True).blocks(wanted):
            parts.append(frame.head(missing))
            missing -= parts[-1].height
            if missing <= 0:
                break
    if not sum(part.height for part in parts):
        raise InputError(f"{paths[0]}: holds no row. Name a file with rows.")
    try:
        return polars.concat(parts, how="diagonal_relaxed")
    except polars.exceptions.PolarsError as error:
        raise InputError(f"{paths[-1]}: has other types than {paths[0]}: {one_line(str(error), 200)}.") from None


def profile_of(series) -> ColumnProfile:
    """The profile of a column, a polars Series of any type."""
    import polars

    num_missing = series.null_count()
    is_list = isinstance(series.dtype, polars.List | polars.Array) and is_text_like(series.dtype.inner)
    if is_list or not is_text_like(series.dtype):
        if not is_list:
            return ColumnProfile(
                series.name, "record", len(series), num_missing=num_missing, num_distinct=0, num_single=0
            )
        flat = series.explode(empty_as_null=False, keep_nulls=False)
        longest = int(series.list.len().max() or 0) if isinstance(series.dtype, polars.List) else series.dtype.size
        return _counted(series, "list", numbers=flat, text=text_of(flat, series.name))._replace(longest=longest)
    text = text_of(series, series.name)
    kind, numbers = _kind(series, text.drop_nulls())
    found = _counted(series, kind, numbers=numbers, text=text)
    if kind == "text" and (separator := _separator(text.drop_nulls())):
        pieces = text.str.split(separator)
        found = found._replace(separator=separator, longest=int(pieces.list.len().max()))
    return found


def _counted(series, kind: str, *, numbers, text) -> ColumnProfile:
    """The profile of a column by its values as numbers, where they are numbers, and as text."""
    counts = text.drop_nulls().alias("value").value_counts(name="times")
    counts = counts.sort(["times", "value"], descending=[True, False])
    lowest = highest = median = 0.0
    if kind in ("integer", "decimal") and len(numbers):
        lowest, highest, median = numbers.min(), numbers.max(), numbers.median()
    top = tuple(counts["value"].head(3).to_list())
    return ColumnProfile(
        series.name,
        kind,
        len(series),
        num_missing=text.null_count(),
        num_distinct=counts.height,
        num_single=int((counts["times"] == 1).sum()),
        lowest=lowest,
        highest=highest,
        median=median,
        values=top,
    )


def _kind(series, text) -> tuple[str, object]:
    """(kind, the values as numbers where they are numbers) of a column of single values."""
    import polars

    if series.dtype == polars.Boolean:
        return "true and false", text
    if series.dtype.is_temporal():
        return "time", text
    if not len(text):
        return "text", text
    numbers = text.cast(polars.Float64, strict=False)
    if not numbers.null_count():
        is_integer = text.str.contains(r"^-?[0-9]{1,19}$").all()
        if is_integer and text.str.contains(r"^0[0-9]").any() and text.str.len_bytes().n_unique() == 1:
            return "hexadecimal", text  # hashes of digits only, or codes such as 00123
        return ("integer" if is_integer else "decimal"), numbers
    if text.str.contains(r"^[0-9a-f]{8}$").all():
        return "hexadecimal", text
    if not text.head(1000).str.contains(r"^\d{4}-\d\d-\d\d").all():
        return "text", text
    return ("time" if not text.str.to_datetime(strict=False).null_count() else "text"), text


def _separator(text) -> str | None:
    """A character that splits most texts into pieces that repeat far more than the texts."""
    for separator in _SEPARATORS:
        share = text.str.contains(separator, literal=True).mean() if len(text) else 0
        if share and share > 0.3:
            pieces = text.str.split(separator).explode()
            if pieces.n_unique() * 2 < text.n_unique() and not (pieces == "").any():
                return separator
    return None
