"""A record: label, 13 dense numbers and ids, 4 bytes each. Which numbers it may hold, and how many a file has."""

import contextlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from criteo_prep.schema import NUM_CATEGORICAL, NUM_NUMERICAL, NUMERICAL
from criteo_prep.transcribe.array_file import ArrayFile
from criteo_prep.transcribe.checks import check_finite, number_type_doubt

PARTS = ("label", "dense", "category")
WORD = 4  # bytes of every number
ID_TYPES = ("int32", "uint32")
NUMBER_TYPES = ("int32", "float32")
_ID_LIMIT = 1 << 31
_ROWS_AT_A_TIME = 64
_SAMPLE = 8192  # records that are looked at to find out whether the types are right
_LARGEST_RECORD = 1 << 20  # bytes; the published records have 160 and 912


class SplitBinError(ValueError):
    """A file does not hold records, or an id is out of range."""


@dataclass(frozen=True)
class RecordForm:
    """The types and sizes of a record.

    Attributes:
      label_type, dense_type, category_type: dtypes of 4 bytes.
      hotness: ids of each table, in order.
      dense_log: whether the trainer must take the logarithm of the dense numbers.

    Raises:
      SplitBinError: a record is larger than 1 MiB.
    """

    label_type: str = "int32"
    dense_type: str = "int32"
    category_type: str = "int32"
    hotness: tuple[int, ...] = (1,) * NUM_CATEGORICAL
    dense_log: bool = True

    def __post_init__(self):
        if self.num_words * WORD > _LARGEST_RECORD:
            raise SplitBinError(
                f"hotness_per_table: makes records of {self.num_words * WORD} bytes; they have at most "
                f"{_LARGEST_RECORD}. Give the number of ids that a record has of each table."
            )

    @cached_property
    def dtype(self) -> np.dtype:
        """A record as its three parts, each a block of bytes."""
        return np.dtype([(part, f"V{WORD * words}") for part, words in zip(PARTS, self._widths, strict=True)])

    @cached_property
    def num_words(self) -> int:
        return sum(self._widths)

    @property
    def _widths(self) -> tuple[int, int, int]:
        return 1, NUM_NUMERICAL, sum(self.hotness)


@dataclass(frozen=True)
class IdPlace:
    """Where a file holds its ids, for messages.

    Attributes:
      path: path of the file.
      num_words: words of each record in the file.
      first: word of a record's first id.
    """

    path: Path
    num_words: int
    first: int

    def of(self, record: int, id_number: int) -> str:
        return f"{self.path}: record {record}, byte {(record * self.num_words + self.first + id_number) * WORD}"


@dataclass(frozen=True)
class IdLimits:
    """The limit of each table's ids: its slot size, or 2**31 where the slot sizes are not yet known.

    Attributes:
      hotness: ids of each table in a record.
      slot_sizes: number of ids of each table; None where they are not yet known.
    """

    hotness: tuple[int, ...]
    slot_sizes: list[int] | None

    def check(self, ids: np.ndarray, first_record: int, place: IdPlace) -> np.ndarray:
        """The largest id of each table, int64 [tables].

        Args:
          ids: uint32 ids of whole records, contiguous; at least one record.
          first_record: number of the first record.
          place: where the file holds these ids.

        Raises:
          SplitBinError: an id is negative or not below its limit; the message names the first such id.
        """
        ids = ids.reshape(-1, sum(self.hotness))
        starts = np.concatenate([[0], np.cumsum(self.hotness)[:-1]])
        largest = np.maximum.reduceat(_largest_of_columns(ids), starts).astype(np.int64)
        limits = np.array(self.slot_sizes or [_ID_LIMIT] * len(self.hotness), np.int64)
        if (largest < limits).all():  # a negative id is a large number in uint32
            return largest
        row, column = np.argwhere(ids >= np.repeat(limits, self.hotness))[0]
        table = int(np.searchsorted(np.cumsum(self.hotness), column, side="right"))
        raise SplitBinError(
            f"{place.of(first_record + row, column)}: id {ids.view(np.int32)[row, column]} of table {table} is not in "
            f"[0, {limits[table]}). The slot sizes are wrong, the ids are of another type, or the file is damaged."
        )


def check_dense(numbers: np.ndarray, form: RecordForm, *, path: Path, first_record: int) -> None:
    """Raises FeatureSpecError for the first dense number, uint32 bits of whole records, that is NaN or infinite."""
    if form.dense_type == "float32":
        check_finite(numbers.view(np.float32).reshape(-1, NUM_NUMERICAL), NUMERICAL, path=path, first_row=first_record)


def dense_type_doubt(path: Path, form: RecordForm) -> str | None:
    """Why the first dense numbers of a file do not look like form.dense_type; None where they do."""
    rows = min(num_records(path, form), _SAMPLE)
    with contextlib.closing(ArrayFile(path, form.dense_type)) as file:
        words = file.read(0, rows * form.num_words, rows).reshape(rows, form.num_words)
    return number_type_doubt(words[:, 1 : 1 + NUM_NUMERICAL])


def check_labels(numbers: np.ndarray, form: RecordForm, *, path: Path, first_record: int) -> None:
    """Raises SplitBinError for the first label, uint32 bits, that is neither 0 nor 1 in form.label_type."""
    labels = numbers.reshape(-1).view(form.label_type)
    good = (labels == 0) | (labels == 1)
    if not good.all():
        place = int(np.argmin(good))
        raise SplitBinError(
            f"{path}: record {first_record + place}: label {labels[place]}, read as {form.label_type}, but a label is "
            "0 or 1. The records have another --label_type or another size, or the file is damaged."
        )


def holds_records(path: Path, form: RecordForm, limits: IdLimits) -> bool:
    """Whether a file holds whole records of this form: by its size, and by its first and last labels and ids."""
    try:
        rows = num_records(path, form)
        count, width = min(rows, _SAMPLE), form.num_words
        with contextlib.closing(ArrayFile(path, np.uint32)) as file:
            for first in {0, rows - count} if rows else ():
                words = file.read(first * width, count * width, first + count).reshape(count, width)
                check_labels(words[:, 0].copy(), form, path=path, first_record=first)
                ids = words[:, 1 + NUM_NUMERICAL :].copy()
                limits.check(ids, first, IdPlace(path, width, 1 + NUM_NUMERICAL))
    except ValueError:
        return False
    return True


def num_records(path: Path, form: RecordForm) -> int:
    """The number of records in a file, from its size. Raises SplitBinError where the last record is not whole."""
    if not path.is_file():
        raise SplitBinError(f"{path}: {_fault_of(path)}. Name a file of records.")
    size, record_bytes = path.stat().st_size, form.dtype.itemsize
    if size % record_bytes:
        raise SplitBinError(
            f"{path}: {size} bytes is not a multiple of {record_bytes}, the size of a record. The file is truncated, "
            "or its records have another size (--hotness_per_table)."
        )
    return size // record_bytes


def _fault_of(path: Path) -> str:
    """Why a path is not a file."""
    if path.is_dir():
        return "is a folder"
    if path.is_symlink():
        return "is a link that leads to no file"
    return "is not a file that can be read again, but a pipe or a device" if path.exists() else "there is no such file"


def num_records_of_parts(folder: Path, form: RecordForm) -> int:
    """The number of records in label.bin, dense.bin and category.bin. Raises SplitBinError where they disagree."""
    counts = {}
    for part in PARTS:
        path, part_bytes = folder / f"{part}.bin", form.dtype[part].itemsize
        if not path.is_file():
            raise SplitBinError(f"{path}: {_fault_of(path)}. Name a folder that split-bin has made.")
        if (size := path.stat().st_size) % part_bytes:
            raise SplitBinError(f"{path}: {size} bytes is not a multiple of {part_bytes}. The file is truncated.")
        counts[part] = size // part_bytes
    if len(set(counts.values())) > 1:
        raise SplitBinError(
            f"{folder}: the files have different numbers of records: {counts}. One of them is truncated."
        )
    return counts["label"]


def _largest_of_columns(ids: np.ndarray) -> np.ndarray:
    """max(axis=0) of uint32 [n, columns], by several rows at a time: numpy is slow for short rows."""
    whole = len(ids) // _ROWS_AT_A_TIME * _ROWS_AT_A_TIME
    folded = ids[:whole].reshape(-1, _ROWS_AT_A_TIME * ids.shape[1]).max(axis=0, initial=0)
    return np.concatenate([folded.reshape(_ROWS_AT_A_TIME, -1), ids[whole:]]).max(axis=0)
