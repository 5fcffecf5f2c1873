"""JSON, one object a line, as frames. polars parses it, block by block; values that differ in type become text."""

import io
import json
from collections.abc import Iterator

from criteo_prep.messages import one_line, shown
from criteo_prep.preprocess.locations import Location
from criteo_prep.preprocess.parse.text_blocks import text_blocks
from criteo_prep.preprocess.parse.text_stream import InputError
from criteo_prep.preprocess.parse.tsv import BadRowError

_BLOCK_BYTES = 4 << 20


class NdjsonFile:
    """One file of JSON lines.

    Args:
      path: plain, gzip or zstd text.
    """

    def __init__(self, path: Location):
        self.path = path

    def columns(self) -> list[str]:
        """Names of all columns in the first block."""
        for block, _ in text_blocks(self.path, 1 << 16):
            return self._frame(block.tobytes(), 0).columns
        raise InputError(f"{self.path}: is empty. Leave it out.")

    def blocks(self, columns: tuple[str, ...], position: int = 0, rows_before: int = 0) -> Iterator[tuple]:
        """Yields (polars DataFrame, position after it, 0) in the order of the file; see CsvFile.blocks.

        Args:
          columns: the columns to read; null where a block has no value of a column.
          position: bytes of text that are skipped.
          rows_before: rows in the skipped bytes, for messages.
        """
        import polars

        num_rows = rows_before
        for block, stop in text_blocks(self.path, _BLOCK_BYTES, skip_bytes=position):
            frame = self._frame(block.tobytes(), num_rows)
            num_rows += frame.height
            missing = [polars.lit(None).alias(name) for name in columns if name not in frame.columns]
            yield frame.with_columns(missing).select(columns), stop, 0

    def _frame(self, text: bytes, first_row: int):
        """The rows of a block. Raises BadRowError for a line that is not a JSON object."""
        import polars

        try:
            return polars.read_ndjson(io.BytesIO(text), infer_schema_length=None)
        except (polars.exceptions.PolarsError, RuntimeError) as error:
            for number, line in enumerate(filter(bytes.strip, text.split(b"\n")), first_row + 1):
                try:
                    if not isinstance(json.loads(line.decode("utf-8")), dict):
                        raise ValueError("it is not an object")
                except (ValueError, RecursionError) as problem:
                    begin = shown(line[:80].decode("utf-8", "replace"))
                    raise BadRowError(
                        f"{self.path}: row {number}: {begin} is not a JSON object: "
                        f"{one_line(str(problem), 100)}. Write one object a line, in UTF-8."
                    ) from None
            raise InputError(f"{self.path}: cannot be read as JSON lines: {one_line(str(error), 200)}.") from None
