"""tf_raw, the layout that the trainer reads: one headerless little-endian file per feature and split.

    <root>/feature_spec.yaml
    <root>/<split>/label.bin       bool      1 byte a sample
    <root>/<split>/numerical.bin   float16   row-major [samples, numericals]
    <root>/<split>/cat_<i>.bin     int8, int16 or int32, `hotness` ids a sample; int64 for keys (`key: true`)

Where samples have different numbers of ids (`ragged: true`), there is also cat_<i>_offsets.bin, int64 [samples + 1]:
sample k has the ids from offset k up to, not including, offset k + 1. The spec gives the names of files and features.

Source: `split_binary` of NVIDIA's DLRM for TensorFlow 2, which has one id a sample. Several ids a sample, fixed or
ragged, and keys are extensions of this project.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Feature, FeatureSpec, FeatureSpecError
from criteo_prep.feature_spec_files import OFFSET
from criteo_prep.parallel import in_order
from criteo_prep.transcribe.array_file import ArrayFile
from criteo_prep.transcribe.checks import check_finite, check_ids, checked_batch
from criteo_prep.transcribe.layout_spec import wanted_of
from criteo_prep.transcribe.random_reads import take_samples

_BUFFER_BYTES = 1 << 18  # bytes of one write; smaller writes take twice the time


class Reader:
    """Reads any range of samples of one split of a tf_raw dataset.

    Args:
      root: the dataset folder.
      spec: its feature spec.
      split: "train", "test" or "validation".
      features: names of the features to read, all by default. Files of other features are not opened. Numericals share
        a file: either all of them are read or none.

    Raises:
      FeatureSpecError: a file is missing or truncated, the files differ in their number of samples, or `features` has
        an unknown name.
    """

    def __init__(self, root: str | Path, spec: FeatureSpec, *, split: str, features: Iterable[str] | None = None):
        self.root, self.spec, self.split = Path(root), dataclasses.replace(spec, root=Path(root)), split
        self._files: dict[str, list[ArrayFile]] = {}
        self.num_samples = self.spec.validate_files(split)
        wanted = wanted_of(spec, features)
        self._label = spec.label if wanted.label else None
        self._numerical = spec.numerical if wanted.numerical else []
        self._categorical = wanted.categorical
        try:
            for feature in [*filter(None, [self._label]), *self._numerical[:1], *self._categorical]:
                self._open(feature)
        except OSError:
            self.close()
            raise

    def read(self, start: int, stop: int) -> Batch:
        """Samples [start, stop) of the split, 0 <= start <= stop <= num_samples.

        Returns:
          Batch with label bool [n], numerical float16 [n, numericals], and of each categorical feature int32 ids, or
          int64 keys: values [n] where the hotness is 1, else values [n * hotness] and row_lengths [n].

        Raises:
          FeatureSpecError: a file shrank, an id is not in [0, cardinality), a numerical is not finite, or row offsets
            decrease; the message has the row.
        """
        assert 0 <= start <= stop <= self.num_samples
        label = numerical = None
        if self._label:
            label = self._read(self._label, start, stop).view(np.int8) != 0
        if self._numerical:
            names = [feature.name for feature in self._numerical]
            (file,) = self._files[names[0]]
            numerical = file.read(start * len(names), (stop - start) * len(names), stop).reshape(-1, len(names))
            check_finite(numerical, names, path=file.path, first_row=start)
        categorical = {}
        for feature in self._categorical:
            if feature.ragged:
                ids = self._read_ragged(feature, start, stop)
            else:
                lengths = np.full(stop - start, feature.hotness, np.int32) if feature.hotness > 1 else None
                ids = Ids(self._read(feature, start, stop), lengths)
            check_ids(ids, feature, path=self._files[feature.name][0].path, first_row=start)
            categorical[feature.name] = Ids(ids.values.astype(feature.id_dtype, copy=False), ids.row_lengths)
        return Batch(label, numerical, categorical)

    def take(self, rows: np.ndarray) -> Batch:
        """The samples at these rows, int64 [n] in any order, as `read` returns them. Raises as `read`."""
        return take_samples(self, rows)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """The split in order, read ahead by threads; the last batch may be smaller."""
        starts = range(0, self.num_samples, batch_size)
        return in_order(lambda start: self.read(start, min(start + batch_size, self.num_samples)), starts)

    def open_files(self, feature: Feature) -> Sequence[ArrayFile]:
        """The open files of a feature, ids before offsets; empty if it is not read. For numericals, name the first."""
        return self._files.get(feature.name, ())

    def close(self) -> None:
        for file in (file for files in self._files.values() for file in files):
            file.close()
        self._files.clear()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self.close()

    def _open(self, feature: Feature) -> None:
        files = self.spec.chunk_of(self.split, feature.name).files
        self._files[feature.name] = open_files = []
        for file, dtype in zip(files, (feature.dtype, OFFSET), strict=False):
            open_files.append(ArrayFile(self.root / file, dtype))

    def _read(self, feature: Feature, start: int, stop: int) -> np.ndarray:
        (file,) = self._files[feature.name]
        return file.read(start * feature.hotness, (stop - start) * feature.hotness, stop)

    def _read_ragged(self, feature: Feature, start: int, stop: int) -> Ids:
        values, offsets_file = self._files[feature.name]
        offsets = offsets_file.read(start, stop - start + 1, stop)
        limit = values.path.stat().st_size // values.dtype.itemsize
        # Checked before an array of this size is made. The range is checked first, so that no difference overflows.
        good = (offsets >= 0) & (offsets <= limit)
        good[0] &= start > 0 or offsets[0] == 0
        if good.all():
            good[1:] = offsets[1:] >= offsets[:-1]
        if not good.all():
            place = int(np.argmin(good))
            raise FeatureSpecError(
                f"{offsets_file.path}: row {start + place}: offset {offsets[place]}; offsets start at 0, never "
                f"decrease, and end at the number of ids, {limit}. The file is corrupt; make the dataset again."
            )
        lengths = np.diff(offsets).astype(np.int32)
        return Ids(values.read(int(offsets[0]), int(offsets[-1] - offsets[0]), stop), lengths)


class Writer:
    """Writes one split of a tf_raw dataset.

    Args:
      root: folder to write in; the caller saves the spec there last (see criteo_prep.destination).
      spec: spec with files, dtypes and cardinalities.
      split: name of the split to write; the spec has its chunks.

    A clean exit of the context closes the files. An exception, or a failure to close a file, removes all of them.

    Raises:
      FeatureSpecError: the spec is of another layout, has no such split, or names a file twice.
    """

    def __init__(self, root: str | Path, spec: FeatureSpec, split: str):
        self.root, self.spec, self.split = Path(root), spec, split
        self.num_samples = self.num_rounded = 0
        spec.validate()
        _check_files(spec, split)
        self._num_ids: dict[str, int] = {}  # ids written so far, of ragged features
        self._files = {}  # by path within the dataset
        try:
            for file in (file for chunk in spec.sources[split] for file in chunk.files):
                path = self.root / file
                path.parent.mkdir(parents=True, exist_ok=True)
                self._files[file] = open(path, "wb", buffering=_BUFFER_BYTES)
            for feature in spec.categorical:
                if feature.ragged:
                    self._offsets(feature).write(bytes(OFFSET.itemsize))
        except BaseException:
            self._remove()
            raise

    def write(self, batch: Batch) -> None:
        """Appends the samples of `batch`, which must hold every feature of the spec.

        Raises:
          FeatureSpecError: a part is missing or has another number of samples, an id is out of range, a label is not 0
            or 1, a numerical is not finite or too large for float16, or a sample has a wrong number of ids.
        """
        self.append(self.prepare(batch, self.num_samples))

    def prepare(self, batch: Batch, first_row: int) -> tuple[Batch, int]:
        """The argument of `append`: the samples in the dtypes of their files, and how many numericals were rounded.

        Args:
          batch: samples to write.
          first_row: row of the first sample.

        Raises:
          FeatureSpecError: as `write`.
        """
        batch, num_rounded = checked_batch(batch, self.spec, split=self.split, first_row=first_row, path=self._path)
        categorical = {}
        for feature in self.spec.categorical:
            ids = batch.categorical[feature.name]
            categorical[feature.name] = Ids(np.ascontiguousarray(ids.values, feature.dtype), ids.row_lengths)
        numerical = np.ascontiguousarray(batch.numerical) if self.spec.numerical else None
        label = np.ascontiguousarray(batch.label, self.spec.label.dtype)
        return Batch(label, numerical, categorical), num_rounded

    def append(self, prepared: tuple[Batch, int]) -> None:
        batch, num_rounded = prepared
        self.num_rounded += num_rounded
        self._file_of(self.spec.label).write(batch.label.data)
        if self.spec.numerical:
            self._file_of(self.spec.numerical[0]).write(batch.numerical.data)
        for feature in self.spec.categorical:
            ids = batch.categorical[feature.name]
            self._file_of(feature).write(ids.values.data)
            if feature.ragged:
                offsets = self._num_ids.get(feature.name, 0) + np.cumsum(ids.row_lengths, dtype=OFFSET)
                self._offsets(feature).write(offsets.data)
                self._num_ids[feature.name] = self._num_ids.get(feature.name, 0) + len(ids.values)
        self.num_samples += batch.num_samples

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        try:
            if exception_type is None:
                for file in self._files.values():
                    file.close()  # writes the buffer, and may find the disk full
        except BaseException:
            self._remove()
            raise
        if exception_type is not None:
            self._remove()

    def _remove(self) -> None:
        for name, file in self._files.items():
            with contextlib.suppress(OSError):
                file.close()
            (self.root / name).unlink(missing_ok=True)

    def _path(self, feature: Feature) -> Path:
        return self.root / self.spec.chunk_of(self.split, feature.name).files[0]

    def _file_of(self, feature: Feature):
        return self._files[self.spec.chunk_of(self.split, feature.name).files[0]]

    def _offsets(self, feature: Feature):
        return self._files[self.spec.chunk_of(self.split, feature.name).files[1]]


def _check_files(spec: FeatureSpec, split: str) -> None:
    """Raises FeatureSpecError unless `split` has files in this layout and no two chunks of the spec name one file."""
    if split not in spec.sources:
        raise FeatureSpecError(f"the spec names no files of the split {split!r}; it has {list(spec.splits)}.")
    seen = set()
    for chunk in (chunk for chunks in spec.sources.values() for chunk in chunks):
        if chunk.type != "split_binary":
            raise FeatureSpecError(f"{chunk.files[0]}: is of type {chunk.type!r}, but tf_raw has split_binary files.")
        for file in map(PurePosixPath, chunk.files):
            if file in seen:
                raise FeatureSpecError(
                    f"{file}: two chunks name this file, and one would overwrite the other. Rename one."
                )
            seen.add(file)
