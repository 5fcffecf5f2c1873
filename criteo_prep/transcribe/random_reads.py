"""Samples from any rows of a tf_raw split in one call, for a shuffled pass."""

import numpy as np
from numba import types

from criteo_prep.batch import Batch, Ids
from criteo_prep.compiled import compiled
from criteo_prep.feature_spec import Feature, FeatureSpecError
from criteo_prep.transcribe.array_file import ArrayFile
from criteo_prep.transcribe.tf_raw import Reader

_LARGEST_GAP = 4096  # bytes; reading a gap of this size takes less time than another system call
_SCRATCH = 1 << 16  # bytes

_pread = types.ExternalFunction("pread", types.intp(types.intc, types.voidptr, types.uintp, types.int64))


def take_samples(reader: Reader, rows: np.ndarray) -> Batch:
    """The samples at these rows, in this order, as reader.read returns them.

    Args:
      rows: int64 [n], in [0, num_samples), in any order; a row may occur several times.

    Raises:
      FeatureSpecError: a file shrank, or an id or numerical is not allowed; the message has its row.
    """
    spec, label, numerical = reader.spec, None, None
    if reader.open_files(spec.label):
        label = take_rows(reader.open_files(spec.label)[0], rows, 1)[:, 0].view(np.int8) != 0
    if spec.numerical and reader.open_files(spec.numerical[0]):
        (file,) = reader.open_files(spec.numerical[0])
        numerical = take_rows(file, rows, len(spec.numerical))
        if not np.isfinite(numerical).all():
            row = int(rows[np.argmin(np.isfinite(numerical).all(axis=1))])
            reader.read(row, row + 1)  # raises the message
    categorical = {
        feature.name: _ids(reader, feature, rows) for feature in spec.categorical if reader.open_files(feature)
    }
    return Batch(label, numerical, categorical)


def take_rows(file: ArrayFile, rows: np.ndarray, num_columns: int) -> np.ndarray:
    """Rows of one file.

    Args:
      file: file of numbers, row after row.
      rows: int64 [n], in any order.
      num_columns: numbers in a row.

    Returns:
      array [n, num_columns], in the order of `rows`.

    Raises:
      FeatureSpecError: the file ends before one of the rows does.
    """
    order = np.argsort(rows, kind="stable")
    row_bytes = num_columns * file.dtype.itemsize
    out = np.empty((len(rows), num_columns), file.dtype)
    scratch = np.empty(max(_SCRATCH, row_bytes), np.uint8)
    num_read = _take(file.descriptor, rows[order], order, file.base, row_bytes, scratch, out.view(np.uint8).reshape(-1))
    if num_read < len(rows):
        raise FeatureSpecError(
            f"{file.path}: ends before row {rows[order[num_read]]} does. It shrank while it was read; make the dataset "
            "again."
        )
    return out


def _ids(reader: Reader, feature: Feature, rows: np.ndarray) -> Ids:
    lengths = None
    if feature.ragged:
        file, offsets = reader.open_files(feature)
        starts, ends = (take_rows(offsets, rows + shift, 1)[:, 0] for shift in (0, 1))
        lengths = (ends - starts).astype(np.int32)
        limit = file.path.stat().st_size // file.dtype.itemsize
        if ((starts < 0) | (starts > ends) | (ends > limit)).any():
            for row in rows:
                reader.read(int(row), int(row) + 1)  # one of these calls raises the message
        before = np.cumsum(lengths, dtype=np.int64) - lengths
        values = take_rows(file, np.arange(lengths.sum()) + np.repeat(starts - before, lengths), 1)
    else:
        (file,) = reader.open_files(feature)
        values = take_rows(file, rows, feature.hotness)
        lengths = np.full(len(rows), feature.hotness, np.int32) if feature.hotness > 1 else None
    ids = Ids(values.reshape(-1).astype(np.int32, copy=False), lengths)
    if len(ids.values) and (ids.values.min() < 0 or ids.values.max() >= feature.cardinality):
        bad = int(np.argmax((ids.values < 0) | (ids.values >= feature.cardinality)))
        row = int(rows[ids.sample_of(bad)])
        reader.read(row, row + 1)  # raises the message
    return ids


@compiled
def _take(descriptor, rows, places, base, row_bytes, scratch, out):
    """Reads row rows[i] (ascending) into row places[i] of `out`. One system call reads rows that are close together.

    Returns:
      How many rows it read; fewer than all where the file ends.
    """
    begin = 0
    while begin < rows.size:
        end = begin + 1
        while (
            end < rows.size
            and (rows[end] - rows[end - 1]) * row_bytes <= _LARGEST_GAP
            and (rows[end] - rows[begin] + 1) * row_bytes <= scratch.size
        ):
            end += 1
        count = (rows[end - 1] - rows[begin] + 1) * row_bytes
        num_bytes = _pread(descriptor, scratch.ctypes.data, count, base + rows[begin] * row_bytes)
        for i in range(begin, end):
            source = (rows[i] - rows[begin]) * row_bytes
            if source + row_bytes > num_bytes:
                return i
            target = places[i] * row_bytes
            for byte in range(row_bytes):
                out[target + byte] = scratch[source + byte]
        begin = end
    return rows.size
