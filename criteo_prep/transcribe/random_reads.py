"""Samples from any rows of a tf_raw split in one call, for a shuffled pass."""

from typing import TYPE_CHECKING

import numpy as np

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Feature
from criteo_prep.transcribe.file_rows import take_rows

if TYPE_CHECKING:
    from criteo_prep.transcribe.tf_raw import Reader


def take_samples(reader: "Reader", rows: np.ndarray) -> Batch:
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


def _ids(reader: "Reader", feature: Feature, rows: np.ndarray) -> Ids:
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
    ids = Ids(values.reshape(-1).astype(feature.id_dtype, copy=False), lengths)
    if len(ids.values) and not feature.key and (ids.values.min() < 0 or ids.values.max() >= feature.cardinality):
        bad = int(np.argmax((ids.values < 0) | (ids.values >= feature.cardinality)))
        row = int(rows[ids.sample_of(bad)])
        reader.read(row, row + 1)  # raises the message
    return ids
