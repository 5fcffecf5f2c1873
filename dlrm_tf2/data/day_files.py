"""TorchRec's datasets in place: a dense, a sparse and a labels file for each day, or for the whole of Kaggle's logs.

    day_N_dense.npy               float32        [rows, 13]
    day_N_sparse.npy              int32, int64   [rows, 26]; days may differ in their type
    day_N_sparse_multi_hot.npz    int32          in place of it: members "0" ... "25", [rows, ids of a sample]
    day_N_labels.npy              int32          [rows, 1]

All days but the last are for training; the first half of the last day (an odd row included) is the validation split,
the second half the test split. Kaggle's logs are one piece, train_*.npy, and end with their seventh day: the last
seventh of their rows is divided in the same way. An id is taken modulo the number of rows of its table.

Source: TorchRec's DLRM example. It trains on all rows of Kaggle's logs, and evaluates on the second half of them.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import FeatureSpecError
from criteo_prep.transcribe.checks import check_finite, checked_labels
from criteo_prep.transcribe.file_rows import FileRows
from criteo_prep.transcribe.npy_array import npy_array, npz_arrays
from dlrm_tf2.data.sample_parts import bags_of

NUM_NUMERICAL, NUM_CATEGORICAL = 13, 26
NUMERICAL = tuple(f"int_{number}" for number in range(NUM_NUMERICAL))
CATEGORICAL = tuple(f"cat_{number}" for number in range(NUM_CATEGORICAL))
LABEL = "label"


@dataclass(frozen=True)
class Day:
    """The files of a day, and its rows."""

    labels: Path
    dense: Path
    sparse: Path
    num_rows: int


@dataclass(frozen=True)
class Split:
    """Rows [first, first + num_rows) of some days, counted over these days."""

    days: tuple[Day, ...]
    first: int
    num_rows: int


def find_splits(folder: Path, *, kaggle: bool, multi_hot: bool) -> dict[str, Split]:
    """train, validation and test in a folder.

    Raises:
      FeatureSpecError: a file is missing, or the files of a day have other numbers of rows.
    """
    ending = "sparse_multi_hot.npz" if multi_hot else "sparse.npy"
    if not folder.is_dir():
        raise FeatureSpecError(f"{folder}: is not a folder. Name the folder of the .npy files.")
    names = ["train"] if kaggle else [f"day_{number}" for number in range(_num_days(folder))]
    if not kaggle and len(names) < 2:
        raise FeatureSpecError(
            f"{folder}: has {len(names)} days (day_0_labels.npy, ...); Criteo's logs have 24, and 2 are the least: the "
            "last is for evaluation."
        )
    days = tuple(_day(folder, name, ending) for name in names)
    last = days[-1].num_rows // 7 if kaggle else days[-1].num_rows
    before = days[-1].num_rows - last
    half = last - last // 2
    train = Split(days, 0, before) if kaggle else Split(days[:-1], 0, sum(day.num_rows for day in days[:-1]))
    evaluated = Split(days[-1:], before, half), Split(days[-1:], before + half, last - half)
    return {"train": train, "validation": evaluated[0], "test": evaluated[1]}


def hotness_of(split: Split) -> tuple[int, ...]:
    """Ids per sample of each feature, from the headers of the files."""
    if not _is_npz(split):
        return (1,) * NUM_CATEGORICAL
    return tuple(array.num_columns for array in _sparse_arrays(split.days[0].sparse))


def _is_npz(split: Split) -> bool:
    return split.days[0].sparse.suffix == ".npz"


def _num_days(folder: Path) -> int:
    found = {path.name for path in folder.glob("day_*_labels.npy")}
    numbers = {int(name.split("_")[1]) for name in found if name.split("_")[1].isdigit()}
    for number in range(max(numbers, default=-1)):
        if number not in numbers:
            raise FeatureSpecError(f"{folder / f'day_{number}_labels.npy'}: is missing, and later days exist.")
    return len(numbers)


def _day(folder: Path, name: str, ending: str) -> Day:
    labels, dense, sparse = (folder / f"{name}_{part}" for part in ("labels.npy", "dense.npy", ending))
    for path in (labels, dense, sparse):
        if not path.is_file():
            raise FeatureSpecError(f"{path}: is missing. A day has the files labels.npy, dense.npy and {ending}.")
    arrays = [(npy_array(labels), 1), (npy_array(dense), NUM_NUMERICAL)]
    if sparse.suffix == ".npz":
        arrays += [(array, array.num_columns) for array in _sparse_arrays(sparse)]
    else:
        arrays.append((npy_array(sparse), NUM_CATEGORICAL))
    for array, columns in arrays:
        if array.num_columns != columns:
            raise FeatureSpecError(f"{array.path}: has {array.num_columns} columns, expected {columns}.")
        if array.num_rows != arrays[0][0].num_rows:
            raise FeatureSpecError(
                f"{array.path}: has {array.num_rows} rows, but {labels.name} has {arrays[0][0].num_rows}. One of them "
                "is truncated; copy or make it again."
            )
    for array, _ in arrays[2:]:
        if array.dtype.kind != "i":
            raise FeatureSpecError(f"{array.path}: is {array.dtype}; ids are int32 or int64. Save it as int32.")
    return Day(labels, dense, sparse, num_rows=arrays[0][0].num_rows)


def _sparse_arrays(path: Path) -> list:
    return npz_arrays(path, [str(number) for number in range(NUM_CATEGORICAL)])


class FoldedIds:
    """Counts the ids that this rank reads, and how many of them lie beyond their table. Several threads may count.

    Attributes:
      counts: feature -> (such ids, ids).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts: dict[str, tuple[int, int]] = {}

    def add(self, feature: str, num_folded: int, num_ids: int) -> None:
        with self._lock:
            folded, ids = self.counts.get(feature, (0, 0))
            self.counts[feature] = folded + num_folded, ids + num_ids


class DaySamples:
    """The samples of a split, read from its files. See dlrm_tf2.data.provided.Samples.

    Args:
      split: the files, and the rows.
      features: names of the features to read; numericals are read all or none.
      num_rows: feature -> rows of its table.
      folded: counts the ids that are not below num_rows.
    """

    def __init__(
        self,
        split: Split,
        features: Sequence[str],
        *,
        num_rows: Mapping[str, int],
        folded: FoldedIds,
    ):
        self.num_samples, self._first, self._num_rows, self._counter = split.num_rows, split.first, num_rows, folded
        self._label = self._dense = self._all = None
        self._ids: dict[str, FileRows] = {}
        self._wanted = [name for name in CATEGORICAL if name in features]
        if LABEL in features:
            self._label = FileRows([npy_array(day.labels) for day in split.days], 1)
        if NUMERICAL[0] in features:
            self._dense = FileRows([npy_array(day.dense) for day in split.days], NUM_NUMERICAL)
        if self._wanted and _is_npz(split):
            days = [_sparse_arrays(day.sparse) for day in split.days]
            for name in self._wanted:
                arrays = [day[CATEGORICAL.index(name)] for day in days]
                self._ids[name] = FileRows(arrays, arrays[0].num_columns)
        elif self._wanted:
            self._all = FileRows([npy_array(day.sparse) for day in split.days], NUM_CATEGORICAL)

    def read(self, start: int, stop: int) -> Batch:
        """Samples [start, stop): label bool, numerical float32, ids int32."""
        first = self._first
        return self._batch(lambda files: files.read(first + start, first + stop), first + start)

    def take(self, rows: np.ndarray) -> Batch:
        """The samples at these rows, int64 [n], in any order."""
        try:
            return self._batch(lambda files: files.take(rows + self._first), 0)
        except FeatureSpecError:
            for row in rows.tolist():
                self.read(row, row + 1)  # raises the message with the row
            raise

    def _batch(self, read: Callable[[FileRows], np.ndarray], first_row: int) -> Batch:
        label = numerical = None
        if self._label:
            label = checked_labels(read(self._label)[:, 0], self._label.where, first_row)
        if self._dense:
            numerical = read(self._dense).astype(np.float32, copy=False)
            check_finite(numerical, list(NUMERICAL), path=self._dense.where, first_row=first_row)
        return Batch(label, numerical, self._categorical(read))

    def _categorical(self, read: Callable[[FileRows], np.ndarray]) -> dict[str, Ids]:
        if self._all:
            ids = read(self._all)
            places = np.array([CATEGORICAL.index(name) for name in self._wanted], np.int64)
            columns = np.ascontiguousarray(ids[:, places].T)
            return {
                name: bags_of(self._folded(name, column, self._all.where), 1)
                for name, column in zip(self._wanted, columns, strict=True)
            }
        return {
            name: bags_of(self._folded(name, read(files).reshape(-1), files.where), files.num_columns)
            for name, files in self._ids.items()
        }

    def _folded(self, feature: str, ids: np.ndarray, where: Path | str) -> np.ndarray:
        """Ids modulo the rows of the table, int32 [n]."""
        num_rows, num_folded = self._num_rows[feature], 0
        if len(ids) and ids.min() < 0:
            raise FeatureSpecError(f"{where}: {feature}: id {ids.min()} is negative. The file is damaged.")
        if len(ids) and ids.max() >= num_rows:
            num_folded = int(np.count_nonzero(ids >= num_rows))
            ids = ids % num_rows
        self._counter.add(feature, num_folded, len(ids))
        return ids.astype(np.int32, copy=False)
