"""A split of a dataset on disk in any layout, read and checked; how many samples are read at a time."""

import contextlib
from collections.abc import Iterator

import numpy as np

from criteo_prep.batch import Batch
from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.transcribe.layout_spec import LayoutError, check_sizes, files_of_split
from criteo_prep.transcribe.layouts import READERS

_MAX_BATCH = 65536  # samples read at a time; with fewer, threads wait more
_MAX_BATCH_BYTES = 256 << 20  # bytes read at a time, where samples have so many ids that _MAX_BATCH of them are more


def checked_batches(spec: FeatureSpec, split: str) -> Iterator[Batch]:
    """Every sample of a split, in order, in the layout that the spec names.

    Memory does not grow with the number of samples.

    Args:
      spec: spec of the dataset, as FeatureSpec.load returns it.
      split: "train", "test" or "validation".

    Raises:
      FeatureSpecError, LayoutError: the files are missing, damaged or disagree, an id is not in [0, cardinality), a
        label is not 0 or 1, or a numerical is not finite; the message has file and row.
    """
    chunk = spec.sources[split][0]
    layout = "tf_raw" if chunk.type == "split_binary" else chunk.type
    if layout not in READERS or layout == "synthetic":
        raise LayoutError(f"{spec.path}: source_spec: {split}: {chunk.files[0]} is of the unknown type {chunk.type!r}.")
    with READERS[layout](spec.root, spec, split, None) as reader:
        check_sizes(spec, split)
        # The threads that read ahead end before their files are closed.
        with contextlib.closing(reader.batches(largest_batch(reader))) as batches:
            yield from batches


def largest_batch(reader) -> int:
    """How many samples of a reader are read at a time, by the mean size of a sample; at least 1."""
    spec = reader.spec
    paths = [spec.root / file for file in files_of_split(spec, reader.split)]
    num_bytes = sum(path.stat().st_size for path in paths if path.is_file())  # synthetic samples are in no file
    nominal = sum(np.dtype(feature.dtype).itemsize * feature.hotness for feature in spec.features.values())
    sample_bytes = max(nominal, num_bytes // max(reader.num_samples, 1))
    return min(_MAX_BATCH, max(1, _MAX_BATCH_BYTES // sample_bytes))
