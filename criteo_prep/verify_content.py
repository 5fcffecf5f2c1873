"""The samples of a dataset, for `criteo-prep verify`: their number, and whether ids, labels and numericals are right.

Files of tf_raw are checked in parts, by many threads. Datasets of another layout are read by the reader of the layout,
which makes the same checks.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from criteo_prep.feature_spec import Chunk, Feature, FeatureSpec
from criteo_prep.feature_spec_files import OFFSET
from criteo_prep.schema import SPLITS
from criteo_prep.transcribe import split_tfrecords
from criteo_prep.transcribe.layouts import READERS
from criteo_prep.transcribe.reading import checked_batches
from criteo_prep.transcribe.request import Request
from criteo_prep.verify_report import Job

READ_BYTES = 8 << 20


def load_spec(path: Path) -> FeatureSpec:
    """The feature spec of a dataset. For split_tfrecords, the folders and not source_spec name the files.

    Raises:
      ValueError, OSError: the spec is missing or wrong, or a folder of split_tfrecords has no data.
    """
    spec = FeatureSpec.load(path, auto=True)
    is_tfrecords = any((path.parent / split / "length.json").is_file() for split in SPLITS)
    return split_tfrecords.spec_of_folders(spec) if is_tfrecords else spec


def layout_of(spec: FeatureSpec, split: str) -> str | None:
    """The layout of a split; None if no reader reads the types of its chunks."""
    types = {chunk.type for chunk in spec.sources[split]}
    layout = "tf_raw" if types == {"split_binary"} else next(iter(types))
    return layout if len(types) == 1 and layout in READERS and layout != "synthetic" else None


def num_samples(spec: FeatureSpec, split: str) -> int:
    """The number of samples in a split whose layout is known, from the sizes of its files or from their headers.

    Raises:
      ValueError, OSError: a file is missing, is not whole, or has another number of samples than the others.
    """
    if layout_of(spec, split) == "tf_raw":
        return spec.validate_files(split)
    with _reader(spec, split) as reader:
        return reader.num_samples


def content_jobs(spec: FeatureSpec, split: str) -> Iterator[Job]:
    """The jobs that read all samples of a split whose layout is known and whose sizes are right."""
    root = _root_of(spec)
    if layout_of(spec, split) != "tf_raw":
        files = {file for chunk in spec.sources[split] for file in chunk.files}
        size = sum((root / file).stat().st_size for file in files)
        yield Job(f"split {split}", "samples", bytes=size, run=partial(_samples_problem, spec, split))
        return
    for chunk in spec.sources[split]:
        file, feature = chunk.files[0], spec.features[chunk.features[0]]
        size = 0 if feature.key else (root / file).stat().st_size  # any int64 is a key
        for start, count in _parts(size):
            run = partial(_values_problem, root / file, spec, feature=feature, start=start, count=count)
            yield Job(file, "content", bytes=count, run=run)
        if feature.ragged:
            yield from _offset_jobs(root, chunk)


def _reader(spec: FeatureSpec, split: str):
    layout = layout_of(spec, split)
    return READERS[layout](_root_of(spec), spec, split, Request(src_dataset_type=layout))


def _root_of(spec: FeatureSpec) -> Path:
    assert spec.root is not None, "the spec of a dataset was loaded from its folder"
    return spec.root


def _samples_problem(spec: FeatureSpec, split: str) -> str | None:
    """Reads a split; its reader raises for each label, numerical or id that is wrong."""
    rows, expected = sum(batch.num_samples for batch in checked_batches(spec, split)), num_samples(spec, split)
    return None if rows == expected else f"{rows} samples were read, but the files say {expected}"


def _parts(size: int) -> Iterator[tuple[int, int]]:
    """(start, number of bytes) of the parts of a file."""
    for start in range(0, size, READ_BYTES):
        yield start, min(READ_BYTES, size - start)


def _read(path: Path, start: int, count: int) -> bytes:
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        data = file.read(count)
    if len(data) != count:
        raise ValueError(f"ends at byte {start + len(data)}; the file shrank while it was read")
    return data


def _values_problem(path: Path, spec: FeatureSpec, *, feature: Feature, start: int, count: int) -> str | None:
    values = np.frombuffer(_read(path, start, count), np.uint8 if feature is spec.label else np.dtype(feature.dtype))
    if feature is spec.label:
        wrong, rule = values > 1, "a label is 0 or 1"
    elif feature.cardinality is None:
        wrong, rule = ~np.isfinite(values), "numericals must be finite"
    else:
        wrong = (values < 0) | (values >= feature.cardinality)
        rule = f"ids must be below the cardinality {feature.cardinality}"
    if not wrong.any():
        return None
    place = int(np.argmax(wrong))
    return f"byte {start + place * values.itemsize}: {values[place]}, but {rule}"


def _offset_jobs(root: Path, chunk: Chunk) -> Iterator[Job]:
    """The row offsets of a ragged feature: each part with the first offset of the next part."""
    file = chunk.files[1]
    size = (root / file).stat().st_size
    for start, count in _parts(size):
        count = min(count + OFFSET.itemsize, size - start)
        yield Job(file, "content", bytes=count, run=partial(_offsets_problem, root / file, start, count))


def _offsets_problem(path: Path, start: int, count: int) -> str | None:
    offsets = np.frombuffer(_read(path, start, count), OFFSET)
    if start == 0 and offsets[0] != 0:
        return f"byte 0: {offsets[0]}, but the first row offset must be 0"
    falling = np.flatnonzero(offsets[1:] < offsets[:-1])
    if not len(falling):
        return None
    place = int(falling[0]) + 1
    return f"byte {start + place * OFFSET.itemsize}: {offsets[place]}, but row offsets must not fall"
