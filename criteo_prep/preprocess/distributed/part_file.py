"""A part: some parsed rows in one file on the shared disk. It appears whole, and always with the same bytes.

label       bool [n]
numerical   float16 [n, 13]
values      uint32 [26, n], 0 for a missing value
zeros       int64, for each column the rows of the part whose value is 0 and not missing, ascending
sample      uint32 [26, s], values of s rows that are spread over the part
facts       JSON, see PartFacts
tail        bytes of the JSON, as a little-endian integer of 8 bytes; then 8 bytes that say that this is a part
"""

import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from criteo_prep.durable import naming
from criteo_prep.preprocess.parse.raw_columns import append
from criteo_prep.preprocess.parse.row_writer import ParsedBlock
from criteo_prep.preprocess.parse.text_stream import InputError
from criteo_prep.schema import NUM_CATEGORICAL, NUM_NUMERICAL

_MAGIC = b"crtpart1"
SAMPLE_ROWS = 64
_NUMERICAL_BYTES = 2 * NUM_NUMERICAL
_VALUE_BYTES, _ZERO_ROW_BYTES = 4, 8


@dataclass(frozen=True)
class PartFacts:
    """What a part holds, and what was found in its lines.

    Attributes:
      split: number of the split.
      number: number of the part in the split.
      num_rows: good rows.
      num_lines: lines, good and bad.
      skipped: reason -> skipped bad rows, in the order in which the reasons occur.
      first_skipped: reason -> (line of the part, from 0; the fault in words) of the first skipped row.
      num_zeros: zeros of each column.
      lost_bytes: bytes of the last, cut row, where the file ends early; else None.
      last: no part of the split follows.
    """

    split: int
    number: int
    num_rows: int = 0
    num_lines: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    first_skipped: dict[str, tuple[int, str]] = field(default_factory=dict)
    num_zeros: tuple[int, ...] = (0,) * NUM_CATEGORICAL
    lost_bytes: int | None = None
    last: bool = False

    @property
    def name(self) -> str:
        return part_name(self.split, self.number)


def part_name(split: int, number: int) -> str:
    return f"split-{split:06d}-{number:05d}.part"


def write_part(folder: Path, facts: PartFacts, blocks: Sequence[ParsedBlock]) -> None:
    """Writes a part, by a name that no other attempt has, and a rename when it is complete and on the disk.

    Args:
      folder: the folder of the parts.
      facts: facts of the part.
      blocks: the parsed blocks, in order.
    """
    temporary = folder / f".{facts.name}.{uuid.uuid4().hex}"
    try:
        with naming(temporary), open(temporary, "xb", buffering=0) as file:
            for block in blocks:
                append(file, block.rows.label)
            for block in blocks:
                append(file, np.ascontiguousarray(block.numerical))
            sample = np.empty((NUM_CATEGORICAL, min(SAMPLE_ROWS, facts.num_rows)), np.uint32)
            for column in range(NUM_CATEGORICAL):
                values = np.concatenate([np.empty(0, np.uint32), *(block.rows.values[column] for block in blocks)])
                sample[column] = values[np.linspace(0, max(0, len(values) - 1), sample.shape[1]).astype(np.int64)]
                append(file, values)
            for column in range(NUM_CATEGORICAL):
                first_row = 0
                for block in blocks:
                    append(file, block.zero_rows[column] + first_row)
                    first_row += len(block.rows)
            append(file, sample)
            text = json.dumps(asdict(facts)).encode()
            append(file, np.frombuffer(text + len(text).to_bytes(8, "little") + _MAGIC, np.uint8))
            os.fsync(file.fileno())
        os.replace(temporary, folder / facts.name)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_facts(path: Path) -> PartFacts | None:
    """The facts of a part; None where there is no such file, or it is not a whole part."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 16))
            tail = file.read()
            if tail[8:] != _MAGIC:
                return None
            length = int.from_bytes(tail[:8], "little")
            file.seek(size - 16 - length)
            document = json.loads(file.read(length))
    except (FileNotFoundError, ValueError):
        return None
    document["num_zeros"] = tuple(document["num_zeros"])
    document["first_skipped"] = {reason: tuple(first) for reason, first in document["first_skipped"].items()}
    return PartFacts(**document)


def read_label(path: Path, num_rows: int) -> np.ndarray:
    """bool [num_rows]"""
    return _read(path, 0, num_rows).view(bool)


def read_numerical(path: Path, num_rows: int) -> np.ndarray:
    """float16 [num_rows, 13]"""
    return _read(path, num_rows, num_rows * _NUMERICAL_BYTES).view(np.float16).reshape(num_rows, NUM_NUMERICAL)


def read_values(path: Path, num_rows: int, column: int) -> np.ndarray:
    """uint32 [num_rows], the values of a column."""
    start = num_rows * (1 + _NUMERICAL_BYTES + column * _VALUE_BYTES)
    return _read(path, start, num_rows * _VALUE_BYTES).view(np.uint32)


def read_zero_rows(path: Path, num_rows: int, *, num_zeros: Sequence[int], column: int) -> np.ndarray:
    """int64 [num_zeros[column]], the rows of the part whose value in a column is 0 and not missing."""
    start = _zeros_start(num_rows) + _ZERO_ROW_BYTES * sum(num_zeros[:column])
    return _read(path, start, _ZERO_ROW_BYTES * num_zeros[column]).view(np.int64)


def read_sample(path: Path, num_rows: int, num_zeros: Sequence[int]) -> np.ndarray:
    """uint32 [26, s], values of some rows."""
    start = _zeros_start(num_rows) + _ZERO_ROW_BYTES * sum(num_zeros)
    size = min(SAMPLE_ROWS, num_rows)
    return _read(path, start, _VALUE_BYTES * NUM_CATEGORICAL * size).view(np.uint32).reshape(NUM_CATEGORICAL, size)


def _zeros_start(num_rows: int) -> int:
    return num_rows * (1 + _NUMERICAL_BYTES + NUM_CATEGORICAL * _VALUE_BYTES)


def _read(path: Path, start: int, num_bytes: int) -> np.ndarray:
    """uint8 [num_bytes]"""
    data = np.empty(num_bytes, np.uint8)
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        rest = memoryview(data)
        while rest:
            count = file.readinto(rest)
            if not count:
                raise InputError(f"{path}: ends early. Another program cut this work file; delete it and run again.")
            rest = rest[count:]
    return data
