"""CSV as frames of text, strictly: a row with too few or too many fields is a bad row, and an empty field is null.

pyarrow reads CSV here, and not polars, because polars fills a short row with nulls without a word.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from criteo_prep.messages import shown
from criteo_prep.preprocess.locations import Location, open_location
from criteo_prep.preprocess.parse.text_stream import InputError, open_text
from criteo_prep.preprocess.parse.tsv import BadRowError
from criteo_prep.table.schema import ReadOptions
from criteo_prep.table.utf8_text import Utf8File

BLOCK_BYTES = 8 << 20


class CsvFile:
    """One CSV file.

    Args:
      path: plain, gzip or zstd text.
      options: delimiter, quote and names of columns.
      skip_bad_rows: whether rows with a wrong number of fields are left out and counted.
    """

    def __init__(self, path: Location, options: ReadOptions, skip_bad_rows: bool = False):
        self.path, self._options, self._skip = path, options, skip_bad_rows
        self._delimiter = options.delimiter or _delimiter_of(path)

    def columns(self) -> list[str]:
        """Names of all columns. Raises InputError for an empty file."""
        with self._reader(None) as reader:
            return reader.schema.names

    def blocks(self, columns: tuple[str, ...], position: int = 0, rows_before: int = 0) -> Iterator[tuple]:
        """Yields frames of text in the order of the file.

        Args:
          columns: the columns to read.
          position: good rows that are skipped.
          rows_before: rows before the position, which is of no interest for CSV.

        Yields:
          (polars DataFrame of String columns, position after it, rows of the file that are left out so far)

        Raises:
          BadRowError: a row has a wrong number of fields or is not UTF-8.
        """
        import polars

        done, counted, left_out = 0, 0, []
        with self._reader(columns, left_out) as reader:
            for batch in self._batches(reader, columns):
                start, done = done, done + batch.num_rows
                if done > position:
                    frame = polars.from_arrow(batch.slice(max(0, position - start)))
                    yield frame, done, (counted := len(left_out))
        if len(left_out) > counted:
            yield polars.DataFrame(schema=dict.fromkeys(columns, polars.String)), done, len(left_out)

    def _batches(self, reader, columns: tuple[str, ...]) -> Iterator:
        import pyarrow

        while True:
            try:
                yield reader.read_next_batch()
            except StopIteration:
                return
            except pyarrow.ArrowInvalid as error:
                self._explain(columns, str(error))

    def _explain(self, columns: tuple[str, ...], problem: str) -> None:
        """Raises BadRowError with the number of the row, which only one thread knows."""
        import pyarrow

        bad: list = []
        first = 0 if self._options.columns else 1
        try:
            with self._reader(columns, bad, threads=False) as reader:
                for _ in reader:
                    pass
        except pyarrow.ArrowInvalid as error:
            problem = str(error)
        if bad and not self._skip:
            number, expected, found, text = bad[0]
            where = f"row {number - first}" if number else "a row"
            raise BadRowError(
                f"{self.path}: {where}: has {found} fields, expected {expected}: {shown(text)}. Correct the row "
                "(or the delimiter or quote in the schema), or add --on_bad_row skip to leave such rows out."
            )
        raise InputError(f"{self.path}: cannot be read as CSV: {problem.splitlines()[0]}.")

    @contextmanager
    def _reader(self, columns: tuple[str, ...] | None, left_out: list | None = None, *, threads: bool = True):
        import pyarrow
        import pyarrow.csv

        def on_bad_row(row) -> str:
            if left_out is not None:
                left_out.append((row.number, row.expected_columns, row.actual_columns, row.text))
            return "skip" if self._skip or columns is None else "error"

        read = pyarrow.csv.ReadOptions(
            block_size=BLOCK_BYTES,
            column_names=self._options.columns and list(self._options.columns),
            use_threads=threads,
        )
        parse = pyarrow.csv.ParseOptions(
            delimiter=self._delimiter,
            quote_char=self._options.quote or False,
            newlines_in_values=bool(self._options.quote),
            ignore_empty_lines=True,
            invalid_row_handler=on_bad_row,
        )
        convert = pyarrow.csv.ConvertOptions(
            column_types={name: pyarrow.string() for name in columns or ()},
            include_columns=list(columns or ()),
            strings_can_be_null=True,
            quoted_strings_can_be_null=True,
            null_values=[""],
        )
        with open_location(self.path) as stored:
            try:
                source = pyarrow.PythonFile(Utf8File(open_text(stored, self.path), self.path), mode="r")
                reader = pyarrow.csv.open_csv(source, read_options=read, parse_options=parse, convert_options=convert)
            except pyarrow.ArrowInvalid as error:
                if columns is not None and "Empty CSV file" not in str(error):
                    self._explain_first(columns, str(error), threads=threads)
                raise InputError(f"{self.path}: cannot be read as CSV: {str(error).splitlines()[0]}.") from None
            with reader:
                yield reader

    def _explain_first(self, columns: tuple[str, ...], problem: str, *, threads: bool) -> None:
        if threads:
            self._explain(columns, problem)
        import pyarrow

        raise pyarrow.ArrowInvalid(problem)


def _delimiter_of(path: Location) -> str:
    """The usual delimiter that occurs most often in the first line."""
    with open_location(path) as stored:
        buffer = bytearray(1 << 16)
        count = open_text(stored, path).readinto(buffer)
    line = bytes(buffer[:count]).split(b"\n", 1)[0].decode("utf-8", "replace")
    return max(",\t;|", key=lambda character: (line.count(character), character == ","))
