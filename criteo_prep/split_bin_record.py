"""Raw records in the files of split-bin: what a record is made of, its metadata.json, and the range of its ids."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from criteo_prep.schema import NUM_CATEGORICAL, NUM_NUMERICAL, NUMERICAL
from criteo_prep.transcribe.checks import check_finite

PARTS = ("label", "dense", "category")
WORD = 4  # bytes of every number
_ID_LIMIT = 1 << 31
_SIDE_BY_SIDE = 64
_LARGEST_RECORD = 1 << 20  # bytes; the published ones have 160 and 912
ID_TYPES = ("int32", "uint32")
NUMBER_TYPES = ("int32", "float32")


class SplitBinError(ValueError):
    """The input is not made of records, or an id is not one."""


@dataclass(frozen=True)
class RecordForm:
    """What a record is made of.

    Attributes:
      label_type, dense_type, category_type: dtypes of 4 bytes.
      hotness: ids of each table, in order.
      dense_log: whether whoever trains on it takes the logarithm of the dense numbers.

    Raises:
      SplitBinError: a record would be absurdly large.
    """

    label_type: str = "int32"
    dense_type: str = "int32"
    category_type: str = "int32"
    hotness: tuple[int, ...] = (1,) * NUM_CATEGORICAL
    dense_log: bool = True

    def __post_init__(self):
        if self.words * WORD > _LARGEST_RECORD:
            raise SplitBinError(
                f"hotness_per_table: makes records of {self.words * WORD} bytes; they have at most {_LARGEST_RECORD}. "
                "Give the number of ids that a record has of each table."
            )

    @cached_property
    def dtype(self) -> np.dtype:
        """A record as its three parts, bytes that are copied and never looked into."""
        return np.dtype([(part, f"V{WORD * words}") for part, words in zip(PARTS, self._widths, strict=True)])

    @cached_property
    def words(self) -> int:
        return sum(self._widths)

    @property
    def _widths(self) -> tuple[int, int, int]:
        return 1, NUM_NUMERICAL, sum(self.hotness)


@dataclass(frozen=True)
class Place:
    """Where ids stand in a file, for messages: words `first` to `first` + ids a record, of every `words`."""

    path: Path
    words: int
    first: int

    def of(self, record: int, id_: int) -> str:
        return f"{self.path}: record {record}, byte {(record * self.words + self.first + id_) * WORD}"


@dataclass(frozen=True)
class IdLimits:
    """How large the ids of each table may be: below its slot size, or, where those are to be found, below 2**31."""

    hotness: tuple[int, ...]
    slot_sizes: list[int] | None

    def check(self, ids: np.ndarray, first_record: int, place: Place) -> np.ndarray:
        """The largest id of each table, int64 [tables].

        Args:
          ids: uint32 of whole records, contiguous; at least one record.
          first_record: number of the first one.
          place: where they come from.

        Raises:
          SplitBinError: one is negative or beyond its slot; the first one is named.
        """
        ids = ids.reshape(-1, sum(self.hotness))
        starts = np.concatenate([[0], np.cumsum(self.hotness)[:-1]])
        largest = np.maximum.reduceat(_largest_of_columns(ids), starts).astype(np.int64)
        limits = np.array(self.slot_sizes or [_ID_LIMIT] * len(self.hotness), np.int64)
        if (largest < limits).all():  # a negative id is a large one in uint32
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


def _largest_of_columns(ids: np.ndarray) -> np.ndarray:
    """max(axis=0) of uint32 [n, columns], several rows side by side, because numpy is slow for short rows."""
    whole = len(ids) // _SIDE_BY_SIDE * _SIDE_BY_SIDE
    folded = ids[:whole].reshape(-1, _SIDE_BY_SIDE * ids.shape[1]).max(axis=0, initial=0)
    return np.concatenate([folded.reshape(_SIDE_BY_SIDE, -1), ids[whole:]]).max(axis=0)


def num_records(path: Path, form: RecordForm) -> int:
    """Records in a file, from its size. Raises SplitBinError where that is no whole number."""
    if not path.is_file():
        raise SplitBinError(f"{path}: there is no such file. Name a file of records.")
    size, each = path.stat().st_size, form.dtype.itemsize
    if size % each:
        raise SplitBinError(
            f"{path}: {size} bytes is not a multiple of {each}, the size of a record. The file is truncated, or its "
            "records are others (--hotness_per_table)."
        )
    return size // each


def rows_of_parts(folder: Path, form: RecordForm) -> int:
    """Records in label.bin, dense.bin and category.bin. Raises SplitBinError where they disagree."""
    rows = {}
    for part in PARTS:
        path, each = folder / f"{part}.bin", form.dtype[part].itemsize
        if not path.is_file():
            raise SplitBinError(f"{path}: there is no such file. Name a folder that split-bin has made.")
        if (size := path.stat().st_size) % each:
            raise SplitBinError(f"{path}: {size} bytes is not a multiple of {each}. The file is truncated.")
        rows[part] = size // each
    if len(set(rows.values())) > 1:
        raise SplitBinError(f"{folder}: the files have different numbers of records: {rows}. One of them is truncated.")
    return rows["label"]


def metadata(form: RecordForm, slot_sizes: list[int]) -> str:
    """The text of metadata.json; byte by byte what the published program writes."""
    document = {
        "vocab_sizes": slot_sizes,
        "label_raw_type": form.label_type,
        "dense_raw_type": form.dense_type,
        "category_raw_type": form.category_type,
        "dense_log": form.dense_log,
    }
    if set(form.hotness) != {1}:
        document["hotness_per_table"] = list(form.hotness)
    return json.dumps(document)


def read_metadata(path: Path) -> tuple[RecordForm, list[int]]:
    """(form, slot sizes) of a metadata.json. Raises SplitBinError where it is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SplitBinError(f"{path}: there is no such file. Name a folder that split-bin has made.") from None
    except (ValueError, RecursionError) as error:
        raise SplitBinError(f"{path}: is not JSON: {error}.") from None
    if not isinstance(document, dict):
        raise SplitBinError(f"{path}: must be a mapping, not {type(document).__name__}.")
    sizes = positive_integers(document.get("vocab_sizes"), f"{path}: vocab_sizes")
    hotness = document.get("hotness_per_table", [1] * len(sizes))
    hotness = positive_integers(hotness, f"{path}: hotness_per_table")
    types = [document.get(f"{part}_raw_type", "int32") for part in PARTS]
    for part, found, known in zip(PARTS, types, (NUMBER_TYPES, NUMBER_TYPES, ID_TYPES), strict=True):
        if found not in known:
            raise SplitBinError(f"{path}: {part}_raw_type is {found!r}; {' or '.join(known)} are right.")
    if len(hotness) != len(sizes):
        raise SplitBinError(f"{path}: {len(sizes)} vocab_sizes, but {len(hotness)} in hotness_per_table.")
    try:
        return RecordForm(*types, tuple(hotness), document.get("dense_log") is True), sizes
    except SplitBinError as error:
        raise SplitBinError(f"{path}: {error}") from None


def positive_integers(value: object, where: str) -> list[int]:
    """A list of positive integers below 2**31. Raises SplitBinError where it is none."""
    if not isinstance(value, list) or not value or not all(type(n) is int and 0 < n < 1 << 31 for n in value):
        raise SplitBinError(f"{where}: must be a list of positive integers below 2147483648, such as [3, 20, 7].")
    return value
