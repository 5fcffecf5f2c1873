"""Input files -> splits: one task parses one split.

A plain file is cut every split_bytes. A cut is moved to the next start of a line by the task itself, so nobody reads
the file to plan. A compressed file is one split. A parquet file is cut between row groups.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from criteo_prep.preprocess.locations import Location, open_location, size_of
from criteo_prep.preprocess.parquet_file import open_parquet
from criteo_prep.preprocess.parse.parquet_rows import is_parquet
from criteo_prep.preprocess.parse.text_stream import InputError, compression

_SCAN_BYTES = 1 << 16
TEXT, COMPRESSED, PARQUET = "text", "compressed", "parquet"


@dataclass(frozen=True)
class InputSplit:
    """A part of an input file.

    Attributes:
      number: number of the split in all files.
      file: number of the file.
      path: the file.
      state: size and time of change of the file when the run began.
      kind: TEXT, COMPRESSED or PARQUET.
      start, stop: TEXT: the split has the lines that begin at the bytes start to stop - 1. PARQUET: rows of the file.
    """

    number: int
    file: int
    path: Location
    state: dict
    kind: str
    start: int = 0
    stop: int = 0


def plan_splits(paths: Sequence[Location], states: Sequence[dict], *, split_bytes: int) -> list[InputSplit]:
    """The splits of all files, in order; every file has at least one.

    Args:
      paths: the input files.
      states: see InputSplit.state.
      split_bytes: bytes of text in a split.

    Raises:
      InputError: a file has a format that is not read.
    """
    splits: list[InputSplit] = []
    for file, (path, state) in enumerate(zip(paths, states, strict=True)):
        for kind, start, stop in _ranges(path, split_bytes):
            splits.append(InputSplit(len(splits), file, path, state=state, kind=kind, start=start, stop=stop))
    return splits


def lines_of(split: InputSplit) -> tuple[int, int]:
    """The bytes of the whole lines of a text split: (start, stop)."""
    return _line_start(split.path, split.start), _line_start(split.path, split.stop)


def _ranges(path: Location, split_bytes: int) -> Iterator[tuple[str, int, int]]:
    if is_parquet(path):
        yield from ((PARQUET, start, stop) for start, stop in _row_groups(path, split_bytes))
    elif compression(path):
        yield COMPRESSED, 0, 0
    else:
        size = size_of(path)
        for start in range(0, max(1, size), split_bytes):
            yield TEXT, start, min(start + split_bytes, size)


def _row_groups(path: Location, split_bytes: int) -> Iterator[tuple[int, int]]:
    """Yields (first row, row after the last) of runs of row groups."""
    with open_parquet(path, InputError) as file:
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        sizes = [(group.num_rows, group.total_byte_size) for group in groups]
    start = stop = num_bytes = 0
    for rows, group_bytes in sizes:
        stop, num_bytes = stop + rows, num_bytes + group_bytes
        if num_bytes >= split_bytes:
            yield start, stop
            start, num_bytes = stop, 0
    if stop > start or not stop:
        yield start, stop


def _line_start(path: Location, position: int) -> int:
    """The first start of a line at `position` or behind it; the size of the file where there is none."""
    if position == 0:
        return 0
    with open_location(path) as file:
        place = position - 1
        file.seek(place)
        while data := file.read(_SCAN_BYTES):
            newline = data.find(b"\n")
            if newline >= 0:
                return place + newline + 1
            place += len(data)
        return place
