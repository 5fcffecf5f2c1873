"""tf_raw, the layout that the trainer reads: one headerless little-endian file per feature and split.

    <root>/feature_spec.yaml
    <root>/<split>/label.bin       bool      1 byte a sample
    <root>/<split>/numerical.bin   float16   row-major [samples, numericals]
    <root>/<split>/cat_<i>.bin     int8, int16 or int32, one id a sample

File and feature names are the spec's. Files are read with pread into fresh arrays: a file that shrinks under a reader
is an error message here, where a mapped one would kill the process.

Source: `split_binary` of NVIDIA's DLRM for TensorFlow 2.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Feature, FeatureSpec, FeatureSpecError


class Reader:
    """Reads one split of a tf_raw dataset, any range of samples at a time.

    Args:
      root: the dataset folder.
      spec: its feature spec.
      split: "train", "test" or "validation".
      features: names of the features to read, and no file of another one is opened; all by default. Numericals share a
        file, so they are read all or none.

    Raises:
      FeatureSpecError: a file is missing, truncated, or holds another number of samples than the others; `features`
        names one that is not there.
    """

    def __init__(self, root: str | Path, spec: FeatureSpec, split: str, features: Iterable[str] | None = None):
        self.root, self.spec, self.split = Path(root), dataclasses.replace(spec, root=Path(root)), split
        self._descriptors: dict[str, int] = {}
        _check_one_hot(spec)
        self.num_samples = self.spec.validate_files(split)
        wanted = set(spec.features if features is None else features)
        if unknown := sorted(wanted - set(spec.features)):
            raise FeatureSpecError(f"{self.root}: there is no feature {unknown[0]!r}; there are {list(spec.features)}.")
        self._label = spec.label if spec.label.name in wanted else None
        self._numerical = [feature for feature in spec.numerical if feature.name in wanted]
        assert self._numerical in ([], spec.numerical), "numericals are read all or none"
        self._categorical = [feature for feature in spec.categorical if feature.name in wanted]
        try:
            for feature in [*filter(None, [self._label]), *self._numerical[:1], *self._categorical]:
                self._descriptors[feature.name] = os.open(self._path(feature), os.O_RDONLY)
        except OSError:
            self.close()
            raise

    def read(self, start: int, stop: int) -> Batch:
        """Samples [start, stop) of the split, 0 <= start <= stop <= num_samples.

        Returns:
          Batch with label bool [n], numerical float16 [n, numericals], and int32 ids [n] per categorical feature.

        Raises:
          FeatureSpecError: a file ended early, or an id is not below its feature's cardinality (with its row).
        """
        assert 0 <= start <= stop <= self.num_samples
        label = numerical = None
        if self._label:
            label = self._pread(self._label, 1, start, stop).view(np.int8) != 0
        if self._numerical:
            columns = len(self._numerical)
            numerical = self._pread(self._numerical[0], columns, start, stop).reshape(-1, columns)
        categorical = {}
        for feature in self._categorical:
            ids = self._pread(feature, 1, start, stop)
            _check_ids(ids, feature, self._path(feature), start)
            categorical[feature.name] = Ids(ids.astype(np.int32, copy=False))
        return Batch(label, numerical, categorical)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """The split in order, `batch_size` samples at a time; the last batch holds what is left."""
        for start in range(0, self.num_samples, batch_size):
            yield self.read(start, min(start + batch_size, self.num_samples))

    def close(self) -> None:
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self.close()

    def _path(self, feature: Feature) -> Path:
        return self.root / self.spec.chunk_of(self.split, feature.name).files[0]

    def _pread(self, feature: Feature, columns: int, start: int, stop: int) -> np.ndarray:
        dtype = np.dtype(feature.dtype)
        values = np.empty((stop - start) * columns, dtype)
        buffer, offset = memoryview(values).cast("B"), start * columns * dtype.itemsize
        while buffer:
            count = os.preadv(self._descriptors[feature.name], [buffer], offset)
            if count == 0:
                raise FeatureSpecError(
                    f"{self._path(feature)}: ends at byte {offset}, before sample {stop}. It shrank while it was read; "
                    "make the dataset again."
                )
            buffer, offset = buffer[count:], offset + count
        return values


class Writer:
    """Writes one split of a tf_raw dataset.

    Args:
      root: folder to write in; a dataset's caller saves the spec there last (see criteo_prep.destination).
      spec: names the files, dtypes and cardinalities.
      split: the split to write; its chunks must be in the spec.

    A clean exit of the context closes the files; an exit by exception, or a failure to close them, removes them.

    Raises:
      FeatureSpecError: the spec is not one of this layout, has no such split, or names a file twice.
    """

    def __init__(self, root: str | Path, spec: FeatureSpec, split: str):
        self.root, self.spec, self.split = Path(root), spec, split
        self.num_samples = 0
        _check_one_hot(spec)
        spec.validate()
        _check_files(spec, split)
        self._files = {}
        try:
            for chunk in spec.sources[split]:
                path = self.root / chunk.files[0]
                path.parent.mkdir(parents=True, exist_ok=True)
                self._files[chunk.features[0]] = open(path, "wb")
        except BaseException:
            self._remove()
            raise

    def write(self, batch: Batch) -> None:
        """Appends the samples of `batch`, which must hold every feature of the spec.

        Raises:
          FeatureSpecError: a part is missing or has another number of samples, an id is out of range, a label is not 0
            or 1, a numerical is too large for float16, or a sample has not exactly one id.
        """
        rows = batch.num_samples
        label = self._checked("label", batch.label, (rows,))
        if label.dtype != np.bool_:
            self._check_all((label == 0) | (label == 1), label, "a label is 0 or 1")
        self._write(self.spec.label, label)
        if self.spec.numerical:
            numerical = self._checked("numerical", batch.numerical, (rows, len(self.spec.numerical)))
            if numerical.dtype != np.float16:
                limit = np.finfo(np.float16).max
                self._check_all(~(np.abs(numerical) > limit), numerical, f"float16 numericals go to {limit}")
            self._write(self.spec.numerical[0], numerical)
        for feature in self.spec.categorical:
            ids = batch.categorical.get(feature.name)
            if ids is not None and ids.row_lengths is not None:
                self._check_all(ids.row_lengths == 1, ids.row_lengths, f"{feature.name!r}: tf_raw has one id a sample")
            values = self._checked(feature.name, None if ids is None else ids.values, (rows,))
            _check_ids(values, feature, self._path(feature), self.num_samples)
            self._write(feature, values)
        self.num_samples += rows

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        try:
            if exception_type is None:
                for file in self._files.values():
                    file.close()  # writes what is buffered, and may find the disk full
        except BaseException:
            self._remove()
            raise
        if exception_type is not None:
            self._remove()

    def _remove(self) -> None:
        for name, file in self._files.items():
            with contextlib.suppress(OSError):
                file.close()
            self._path(self.spec.features[name]).unlink(missing_ok=True)

    def _path(self, feature: Feature) -> Path:
        return self.root / self.spec.chunk_of(self.split, feature.name).files[0]

    def _checked(self, name: str, values: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
        if values is None:
            raise FeatureSpecError(
                f"{self.split}: row {self.num_samples}: the source has no {name!r}, which the spec asks for."
            )
        if values.shape != shape:
            raise FeatureSpecError(
                f"{self.split}: row {self.num_samples}: {name!r} has shape {values.shape}, expected {shape}."
            )
        return values

    def _check_all(self, good: np.ndarray, values: np.ndarray, rule: str) -> None:
        if not good.all():
            place = tuple(np.argwhere(~good)[0])
            row = self.num_samples + int(place[0])
            raise FeatureSpecError(f"{self.split}: row {row}: {values[place]}, but {rule}.")

    def _write(self, feature: Feature, values: np.ndarray) -> None:
        self._files[feature.name].write(np.ascontiguousarray(values, feature.dtype).data)


def _check_one_hot(spec: FeatureSpec) -> None:
    for feature in spec.categorical:
        if feature.hotness != 1:
            raise FeatureSpecError(
                f"{feature.name}: hotness {feature.hotness}; tf_raw holds one id a sample. Use a one-hot spec."
            )


def _check_files(spec: FeatureSpec, split: str) -> None:
    """Raises FeatureSpecError unless `split` has files in this layout, and no file of the spec is written twice."""
    if split not in spec.sources:
        raise FeatureSpecError(f"the spec names no files of the split {split!r}; it has {list(spec.splits)}.")
    seen = set()
    for chunk in (chunk for chunks in spec.sources.values() for chunk in chunks):
        file = PurePosixPath(chunk.files[0])
        if chunk.type != "split_binary":
            raise FeatureSpecError(f"{file}: is of type {chunk.type!r}, but tf_raw is made of split_binary files.")
        if file in seen:
            raise FeatureSpecError(f"{file}: two chunks name this file, and one would overwrite the other. Rename one.")
        seen.add(file)


def _check_ids(ids: np.ndarray, feature: Feature, path: Path, first_row: int) -> None:
    """Raises FeatureSpecError naming the first id that is not in [0, cardinality)."""
    if len(ids) == 0 or (ids.min() >= 0 and ids.max() < feature.cardinality):
        return
    row = int(np.argmax((ids < 0) | (ids >= feature.cardinality)))
    raise FeatureSpecError(
        f"{path}: row {first_row + row}: id {ids[row]} of {feature.name!r} is not below its cardinality "
        f"{feature.cardinality}. The file is corrupt, its dtype is wrong, or it belongs to another feature spec."
    )
