"""criteo_npy: three .npy files for each day, in the order of the days.

    day_N_dense.npy    float32          [rows, numericals]
    day_N_sparse.npy   int32 or int64   [rows, categorical features], ids
    day_N_labels.npy   int32            [rows, 1]

Where a feature has several ids a sample, an uncompressed day_N_sparse_multi_hot.npz replaces the sparse file. Its
members "0.npy", "1.npy", ... hold int32 [rows, hotness] of each categorical feature in order.

A split has three chunks in the feature spec: label, numericals and categorical features. Each chunk names its files of
all days.

Source: the layout of TorchRec's DLRM example.
"""

import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Chunk, Feature, FeatureSpec, FeatureSpecError
from criteo_prep.feature_spec_files import existing_file
from criteo_prep.parallel import in_order
from criteo_prep.transcribe.checks import check_finite, check_ids, checked_batch, checked_labels
from criteo_prep.transcribe.file_rows import FileArray, FileRows
from criteo_prep.transcribe.layout_spec import (
    LayoutError,
    StandardLayout,
    chunks_of_type,
    dtype_advice,
    standard_spec,
    wanted_of,
)
from criteo_prep.transcribe.npy_array import NpyWriter, npy_array, npz_arrays
from criteo_prep.transcribe.transposed import put_columns, take_columns

LAYOUT = "criteo_npy"


def criteo_npy_spec(source: FeatureSpec, splits: Iterable[str]) -> FeatureSpec:
    """A source's features with each split as one day: <split>/day_0_{dense,sparse,labels}.npy. See standard_spec."""
    layout = StandardLayout(LAYOUT, ids="int32", numerical="float32", label="int32", chunks=_standard_chunks)
    return standard_spec(layout, source, splits)


def _standard_chunks(split: str, spec: FeatureSpec) -> list[Chunk]:
    multi_hot = any(feature.hotness > 1 for feature in spec.categorical)
    endings = {
        "label": "labels.npy",
        "numerical": "dense.npy",
        "categorical": "sparse_multi_hot.npz" if multi_hot else "sparse.npy",
    }
    return [
        Chunk(spec.channels[channel], (f"{split}/day_0_{ending}",), LAYOUT)
        for channel, ending in endings.items()
        if spec.channels[channel]
    ]


def _chunk(spec: FeatureSpec, split: str, channel: str) -> Chunk | None:
    """The chunk that holds the features of a channel in their order; None for a channel without features."""
    names = spec.channels[channel]
    for chunk in chunks_of_type(spec, split, LAYOUT) if names else ():
        if chunk.features == names:
            return chunk
    if names:
        raise LayoutError(
            f"{spec.path}: source_spec: {split}: no chunk holds {names[0]!r} and the other {channel} features alone, "
            "in the order of channel_spec."
        )
    return None


class Reader:
    """Reads one split of a criteo_npy dataset.

    Args:
      root: the dataset folder.
      spec: its feature spec.
      split: "train", "test" or "validation".
      features: names of the features to read, all by default. The ids of other features are not decoded.

    Raises:
      LayoutError: a file is not an array of the right shape, or the spec is of another layout.
      FeatureSpecError: a file is missing, or `features` has an unknown name.
    """

    def __init__(self, root: str | Path, spec: FeatureSpec, *, split: str, features: Iterable[str] | None = None):
        self.root, self.spec, self.split = Path(root), spec, split
        self._wanted = wanted_of(spec, features)
        self._open_rows: list[FileRows] = []
        try:
            days = self._arrays("label")
            self._label = self._opened(days, 1)
            self.num_samples = sum(array.num_rows for array in days)
            numerical = self._arrays("numerical")
            self._check_days(numerical, days)
            self._numerical = self._opened(numerical, len(spec.numerical)) if self._wanted.numerical else None
            self._interleaved: FileRows | None = None  # one array with one id of every feature
            self._ids: dict[str, FileRows] = {}  # or an array for each feature
            self._open_ids(days)
        except BaseException:
            self.close()
            raise

    def read(self, start: int, stop: int) -> Batch:
        """Samples [start, stop).

        Returns:
          Batch with label bool [n], numerical float32 [n, numericals], and int32 ids.

        Raises:
          FeatureSpecError: the file shrank, or a label, numerical or id is not allowed; the message has its row.
        """
        assert 0 <= start <= stop <= self.num_samples
        return self._batch(lambda files: files.read(start, stop), start)

    def take(self, rows: np.ndarray) -> Batch:
        """The samples at these rows, int64 [n] in any order, as `read` returns them. Raises as `read`."""
        try:
            return self._batch(lambda files: files.take(rows), 0)
        except FeatureSpecError:
            for row in rows.tolist():
                self.read(row, row + 1)  # raises the message with the row
            raise

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """The split in order, read ahead by threads; the last batch may be smaller."""
        starts = range(0, self.num_samples, batch_size)
        return in_order(lambda start: self.read(start, min(start + batch_size, self.num_samples)), starts)

    def close(self) -> None:
        for rows in self._open_rows:
            rows.close()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self.close()

    def _batch(self, read: Callable[[FileRows], np.ndarray], first_row: int) -> Batch:
        """A batch of the rows that `read` returns of each array, checked; first_row is for messages."""
        label = numerical = None
        if self._wanted.label:
            label = checked_labels(read(self._label)[:, 0], self._label.where, first_row)
        if self._numerical:
            numerical = read(self._numerical)
            names = list(self.spec.channels["numerical"])
            check_finite(numerical, names, path=self._numerical.where, first_row=first_row)
        return Batch(label, numerical, self._categorical(read, first_row))

    def _categorical(self, read: Callable[[FileRows], np.ndarray], first_row: int) -> dict[str, Ids]:
        features, columns = self._wanted.categorical, {}
        if self._interleaved:
            ids, order = read(self._interleaved), self.spec.channels["categorical"]
            places = np.array([order.index(feature.name) for feature in features], np.int64)
            taken = np.empty((len(places), len(ids)), ids.dtype)
            take_columns(ids, places, taken)
            columns = {feature.name: column for feature, column in zip(features, taken, strict=True)}
        categorical = {}
        for feature in features:
            files = self._interleaved or self._ids[feature.name]
            values = columns[feature.name] if self._interleaved else read(files)
            lengths = np.full(len(values), feature.hotness, np.int32) if feature.hotness > 1 else None
            ids = Ids(values.reshape(-1), lengths)
            check_ids(ids, feature, path=files.where, first_row=first_row)
            categorical[feature.name] = Ids(ids.values.astype(np.int32, copy=False), lengths)
        return categorical

    def _opened(self, arrays: list[FileArray], num_columns: int) -> FileRows:
        self._open_rows.append(FileRows(arrays, num_columns))
        return self._open_rows[-1]

    def _arrays(self, channel: str) -> list[FileArray]:
        """The array of each day with the features of a channel; none for a channel without features."""
        chunk = _chunk(self.spec, self.split, channel)
        if chunk is None:
            return []
        features = [self.spec.features[name] for name in chunk.features]
        if len({feature.dtype for feature in features}) > 1:
            raise LayoutError(
                f"{self.spec.path}: {chunk.features[0]} and other features of its file have different dtypes."
            )
        arrays = [npy_array(path) for path in self._paths(chunk)]
        self._check_dtype(arrays, features[0])
        return arrays

    def _open_ids(self, days: list[FileArray]) -> None:
        """Opens one array of all features, or one array for each feature of an .npz; `days` are the labels."""
        chunk = _chunk(self.spec, self.split, "categorical")
        if chunk is None:
            return
        one_hot = not chunk.files[0].endswith(".npz")
        for feature in self.spec.categorical:
            if feature.ragged or one_hot and feature.hotness > 1:
                what = "ragged" if feature.ragged else f"hotness {feature.hotness}"
                raise LayoutError(
                    f"{self.spec.path}: {feature.name} is {what}, but {chunk.files[0]} holds "
                    f"{'one id' if one_hot else 'equally many ids'} a sample. Correct the spec."
                )
        wanted = self._wanted.categorical
        if one_hot:
            arrays = self._arrays("categorical")
            self._check_days(arrays, days)
            self._interleaved = self._opened(arrays, len(chunk.features)) if wanted else None
            return
        names = [str(i) for i in range(len(chunk.features))]
        archives = [npz_arrays(path, names) for path in self._paths(chunk)]
        for i, feature in enumerate(self.spec.categorical):
            arrays = [archive[i] for archive in archives]
            self._check_dtype(arrays, feature)
            self._check_days(arrays, days)
            if feature in wanted:
                self._ids[feature.name] = self._opened(arrays, feature.hotness)

    def _paths(self, chunk: Chunk) -> list[Path]:
        return [existing_file(self.root, file, chunk.features[0]) for file in chunk.files]

    def _check_dtype(self, arrays: list[FileArray], feature: Feature) -> None:
        for array in arrays:
            if array.dtype != feature.dtype:
                raise LayoutError(
                    f"{array.path}: is {array.dtype}, but the feature spec says {feature.dtype}. "
                    f"{dtype_advice(self.spec, feature, array.dtype)} The files of all days have one dtype."
                )

    def _check_days(self, arrays: list[FileArray], days: list[FileArray]) -> None:
        """Raises LayoutError unless the arrays have the days of the labels, and the rows of each day."""
        for array, day in zip(arrays, days, strict=False):
            if array.num_rows != day.num_rows:
                raise LayoutError(
                    f"{array.path}: has {array.num_rows} rows, but {day.path.name} has {day.num_rows}. One of them is "
                    "truncated, or the feature spec lists them in another order."
                )
        if arrays and len(arrays) != len(days):
            raise LayoutError(
                f"{arrays[0].path}: the chunk has {len(arrays)} files, the label {len(days)}. Correct the spec: a "
                "chunk names the files of all days."
            )


def _interleave(columns: list[np.ndarray]) -> np.ndarray:
    """Columns of ids [n] as int32 [n, columns]."""
    ids = np.empty((len(columns[0]), len(columns)), np.int32)
    put_columns(np.stack(columns, dtype=np.int32, casting="same_kind"), ids, 0)
    return ids


class Writer:
    """Writes one split as one day. A context manager; where it fails, the caller removes its files.

    Args:
      root: folder to write in.
      spec: spec that criteo_npy_spec made.
      split: name of the split to write.
    """

    def __init__(self, root: str | Path, spec: FeatureSpec, split: str):
        self.root, self.spec, self.split = Path(root), spec, split
        self.num_samples = self.num_rounded = 0
        self._paths = {
            channel: self._path(channel) for channel in ("label", "numerical", "categorical") if spec.channels[channel]
        }
        next(iter(self._paths.values())).parent.mkdir(parents=True, exist_ok=True)
        self._label = NpyWriter(self._paths["label"], spec.label.dtype, 1)
        self._numerical = (
            NpyWriter(self._paths["numerical"], "float32", len(spec.numerical)) if spec.numerical else None
        )
        self._archive = spec.categorical and self._paths["categorical"].suffix == ".npz"
        self._ids = []
        if self._archive:  # each feature has a file of its own until all are copied into the archive
            self._ids = [
                NpyWriter(self._paths["categorical"].parent / f".{i}.npy", "int32", feature.hotness)
                for i, feature in enumerate(spec.categorical)
            ]
        elif spec.categorical:
            self._ids = [NpyWriter(self._paths["categorical"], "int32", len(spec.categorical))]
        self._files = [self._label, *filter(None, [self._numerical]), *self._ids]

    def write(self, batch: Batch) -> None:
        """Appends samples. Raises FeatureSpecError as checked_batch does."""
        self.append(self.prepare(batch, self.num_samples))

    def prepare(self, batch: Batch, first_row: int) -> tuple[list[np.ndarray], int]:
        """The argument of `append`: an array for each file, and how many numericals were rounded. Raises as `write`."""
        path = self._paths.get("categorical")
        batch, num_rounded = checked_batch(
            batch, self.spec, split=self.split, first_row=first_row, path=lambda feature: path
        )
        ids = [batch.categorical[feature.name].values for feature in self.spec.categorical]
        if ids and not self._archive:
            ids = [_interleave(ids)]
        numerical = [batch.numerical] if self._numerical else []
        return [batch.label.astype(self.spec.label.dtype), *numerical, *ids], num_rounded

    def append(self, prepared: tuple[list[np.ndarray], int]) -> None:
        arrays, num_rounded = prepared
        for file, values in zip(self._files, arrays, strict=True):
            file.write(values)
        self.num_rounded += num_rounded
        self.num_samples += len(arrays[0])

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        for file in self._files:
            file.close(self.num_samples)
        if self._archive and exception_type is None:
            with zipfile.ZipFile(self._paths["categorical"], "w", zipfile.ZIP_STORED) as archive:
                for i, file in enumerate(self._ids):
                    # A fixed date, so that the same samples are the same bytes.
                    info = zipfile.ZipInfo(f"{i}.npy", (1980, 1, 1, 0, 0, 0))
                    with archive.open(info, "w", force_zip64=True) as member, open(file.path, "rb") as values:
                        while part := values.read(1 << 20):
                            member.write(part)
                    file.path.unlink()

    def _path(self, channel: str) -> Path:
        return self.root / _chunk(self.spec, self.split, channel).files[0]
