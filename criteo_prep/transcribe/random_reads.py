"""Samples from all over a tf_raw split, in one call: what a shuffled pass reads."""

import numpy as np
from numba import types

from criteo_prep.batch import Batch, Ids
from criteo_prep.compiled import compiled
from criteo_prep.feature_spec import Feature, FeatureSpecError
from criteo_prep.transcribe.array_file import ArrayFile
from criteo_prep.transcribe.tf_raw import Reader

_NEAR = 4096  # bytes; reading on across a gap of this size takes less time than another system call
_SCRATCH = 1 << 16  # bytes

_pread = types.ExternalFunction("pread", types.intp(types.intc, types.voidptr, types.uintp, types.int64))


def take_samples(reader: Reader, rows: np.ndarray) -> Batch:
    """What reader.read would return of these samples one by one, put together.

    Args:
      rows: int64 [n], in [0, num_samples), in any order, and more than once if need be.

    Raises:
      FeatureSpecError: a file ended early, or an id is not below its feature's cardinality, with its row.
    """
    spec, label, numerical = reader.spec, None, None
    if reader.opened(spec.label):
        label = take_rows(reader.opened(spec.label)[0], rows, 1)[:, 0].view(np.int8) != 0
    if spec.numerical and reader.opened(spec.numerical[0]):
        (file,) = reader.opened(spec.numerical[0])
        numerical = take_rows(file, rows, len(spec.numerical))
        if not np.isfinite(numerical).all():
            reader.read(row := int(rows[np.argmin(np.isfinite(numerical).all(axis=1))]), row + 1)  # raises its message
    categorical = {feature.name: _ids(reader, feature, rows) for feature in spec.categorical if reader.opened(feature)}
    return Batch(label, numerical, categorical)


def take_rows(file: ArrayFile, rows: np.ndarray, columns: int) -> np.ndarray:
    """Rows of `columns` numbers each, from one file.

    Args:
      rows: int64 [n], in any order.

    Returns:
      array [n, columns], in the order of `rows`.

    Raises:
      FeatureSpecError: the file ends before one of the rows does.
    """
    order = np.argsort(rows, kind="stable")
    size = columns * file.dtype.itemsize
    out = np.empty((len(rows), columns), file.dtype)
    scratch = np.empty(max(_SCRATCH, size), np.uint8)
    done = _take(file.descriptor, rows[order], order, file.base, size, scratch, out.view(np.uint8).reshape(-1))
    if done < len(rows):
        raise FeatureSpecError(
            f"{file.path}: ends before row {rows[order[done]]} does. It shrank while it was read; make the dataset "
            "again."
        )
    return out


def _ids(reader: Reader, feature: Feature, rows: np.ndarray) -> Ids:
    lengths = None
    if feature.ragged:
        file, offsets = reader.opened(feature)
        starts, ends = (take_rows(offsets, rows + shift, 1)[:, 0] for shift in (0, 1))
        lengths = (ends - starts).astype(np.int32)
        limit = file.path.stat().st_size // file.dtype.itemsize
        if ((starts < 0) | (starts > ends) | (ends > limit)).any():
            for row in rows:
                reader.read(int(row), int(row) + 1)  # one of them raises its message
        before = np.cumsum(lengths, dtype=np.int64) - lengths
        values = take_rows(file, np.arange(lengths.sum()) + np.repeat(starts - before, lengths), 1)
    else:
        (file,) = reader.opened(feature)
        values = take_rows(file, rows, feature.hotness)
        lengths = np.full(len(rows), feature.hotness, np.int32) if feature.hotness > 1 else None
    ids = Ids(values.reshape(-1).astype(np.int32, copy=False), lengths)
    if len(ids.values) and (ids.values.min() < 0 or ids.values.max() >= feature.cardinality):
        bad = int(np.argmax((ids.values < 0) | (ids.values >= feature.cardinality)))
        row = int(rows[ids.sample_of(bad)])
        reader.read(row, row + 1)  # raises its message
    return ids


@compiled
def _take(descriptor, rows, places, base, size, scratch, out):
    """Reads row rows[i] (ascending) of `size` bytes to place places[i] of out. Returns how many it read.

    Rows that are near each other are read at once into scratch.
    """
    begin = 0
    while begin < rows.size:
        end = begin + 1
        while (
            end < rows.size
            and (rows[end] - rows[end - 1]) * size <= _NEAR
            and (rows[end] - rows[begin] + 1) * size <= scratch.size
        ):
            end += 1
        count = (rows[end - 1] - rows[begin] + 1) * size
        got = _pread(descriptor, scratch.ctypes.data, count, base + rows[begin] * size)
        for i in range(begin, end):
            at = (rows[i] - rows[begin]) * size
            if at + size > got:
                return i
            to = places[i] * size
            for byte in range(size):
                out[to + byte] = scratch[at + byte]
        begin = end
    return rows.size
