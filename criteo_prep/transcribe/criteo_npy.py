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
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Chunk, Feature, FeatureSpec
from criteo_prep.feature_spec_files import existing_file
from criteo_prep.parallel import in_order
from criteo_prep.transcribe.checks import check_finite, check_ids, checked_batch, checked_labels
from criteo_prep.transcribe.layout_spec import LayoutError, StandardLayout, chunks_of_type, dtype_advice, standard_spec
from criteo_prep.transcribe.npy_array import Columns, NpyArray, NpyWriter, npy_array, npz_arrays
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

    Raises:
      LayoutError: a file is not an array of the right shape, or the spec is of another layout.
      FeatureSpecError: a file is missing.
    """

    def __init__(self, root: str | Path, spec: FeatureSpec, split: str):
        self.root, self.spec, self.split = Path(root), spec, split
        self._parts: list[Columns] = []
        self._interleaved = False  # whether one array holds one id of every feature
        try:
            self._label = self._open("label")
            self._numerical = self._open("numerical")
            self._ids = self._open_ids()
        except BaseException:
            self.close()
            raise
        self.num_samples = sum(self._label.num_rows)
        for part in self._parts:
            for array, day in zip(part.arrays, self._label.arrays, strict=False):
                if array.num_rows != day.num_rows:
                    raise self._failed(
                        f"{array.path}: has {array.num_rows} rows, but {day.path.name} has {day.num_rows}. One of "
                        "them is truncated, or the feature spec lists them in another order."
                    )
            if len(part.arrays) != len(self._label.arrays):
                raise self._failed(
                    f"{part.where}: has {len(part.arrays)} files, the label {len(self._label.arrays)}. "
                    "Correct the spec: a chunk names the files of all days."
                )

    def read(self, start: int, stop: int) -> Batch:
        """Samples [start, stop).

        Returns:
          Batch with label bool [n], numerical float32 [n, numericals], and int32 or int64 ids.

        Raises:
          FeatureSpecError: the file shrank, or a label, numerical or id is not allowed; the message has its row.
        """
        assert 0 <= start <= stop <= self.num_samples
        label = checked_labels(self._label.read(start, stop)[:, 0], self._label.where, start)
        numerical = None
        if self._numerical:
            numerical = self._numerical.read(start, stop)
            check_finite(numerical, list(self.spec.channels["numerical"]), path=self._numerical.where, first_row=start)
        if self._interleaved:
            ids = self._ids[0].read(start, stop)
            columns = np.empty(ids.shape[::-1], ids.dtype)
            take_columns(ids, 0, columns)
        else:
            columns = [part.read(start, stop).reshape(-1) for part in self._ids]
        categorical = {}
        for i, (feature, values) in enumerate(zip(self.spec.categorical, columns, strict=True)):
            lengths = np.full(stop - start, feature.hotness, np.int32) if feature.hotness > 1 else None
            categorical[feature.name] = Ids(values, lengths)
            check_ids(categorical[feature.name], feature, path=self._ids[i % len(self._ids)].where, first_row=start)
        return Batch(label, numerical, categorical)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """The split in order, read ahead by threads; the last batch may be smaller."""
        starts = range(0, self.num_samples, batch_size)
        return in_order(lambda start: self.read(start, min(start + batch_size, self.num_samples)), starts)

    def close(self) -> None:
        for file in (file for part in self._parts for file in part.files):
            file.close()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self.close()

    def _failed(self, message: str) -> LayoutError:
        self.close()
        return LayoutError(message)

    def _paths(self, chunk: Chunk) -> list[Path]:
        return [existing_file(self.root, file, chunk.features[0]) for file in chunk.files]

    def _open(self, channel: str) -> Columns | None:
        chunk = _chunk(self.spec, self.split, channel)
        if chunk is None:
            return None
        features = [self.spec.features[name] for name in chunk.features]
        if len({feature.dtype for feature in features}) > 1:
            raise LayoutError(
                f"{self.spec.path}: {chunk.features[0]} and other features of its file have different dtypes."
            )
        arrays = [npy_array(path) for path in self._paths(chunk)]
        self._check_dtype(arrays, features[0])
        self._parts.append(Columns(arrays, len(features)))
        return self._parts[-1]

    def _check_dtype(self, arrays: list[NpyArray], feature: Feature) -> None:
        for array in arrays:
            if array.dtype != feature.dtype:
                raise LayoutError(
                    f"{array.path}: is {array.dtype}, but the feature spec says {feature.dtype}. "
                    f"{dtype_advice(self.spec, feature, array.dtype)} The files of all days have one dtype."
                )

    def _open_ids(self) -> list[Columns]:
        """One array of all features, or one array for each feature of an .npz."""
        chunk = _chunk(self.spec, self.split, "categorical")
        if chunk is None:
            return []
        one_hot = not chunk.files[0].endswith(".npz")
        for feature in self.spec.categorical:
            if feature.ragged or one_hot and feature.hotness > 1:
                what = "ragged" if feature.ragged else f"hotness {feature.hotness}"
                raise LayoutError(
                    f"{self.spec.path}: {feature.name} is {what}, but {chunk.files[0]} holds "
                    f"{'one id' if one_hot else 'equally many ids'} a sample. Correct the spec."
                )
        if one_hot:
            self._interleaved = True
            return [self._open("categorical")]
        names = [str(i) for i in range(len(chunk.features))]
        days = [npz_arrays(path, names) for path in self._paths(chunk)]
        for i, feature in enumerate(self.spec.categorical):
            arrays = [day[i] for day in days]
            self._check_dtype(arrays, feature)
            self._parts.append(Columns(arrays, feature.hotness))
        return self._parts[-len(names) :]


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
