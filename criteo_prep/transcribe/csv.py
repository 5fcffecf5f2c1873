"""csv: text without a header, one line for each sample, numbers separated by commas, one id a feature.

A chunk of the feature spec names the columns of its file in their order. The files of several chunks are read line by
line in parallel. This program writes <split>.csv: label, numericals, ids. Floats have as many digits as their type
needs to be read back the same.

Source: the csv form of NVIDIA's transcode.py, which reads it from the same spec.
"""

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from criteo_prep.batch import Batch, Ids, rebatch
from criteo_prep.feature_spec import Chunk, Feature, FeatureSpec
from criteo_prep.feature_spec_files import existing_file
from criteo_prep.parallel import in_order
from criteo_prep.transcribe.checks import check_finite, check_ids, checked_batch, checked_labels
from criteo_prep.transcribe.csv_text import count_lines, parse_block, text_blocks
from criteo_prep.transcribe.layout_spec import LayoutError, StandardLayout, all_features, chunks_of_type, standard_spec

LAYOUT = "csv"
_ROWS = 65536  # samples that are joined from the chunks at a time


def csv_spec(source: FeatureSpec, splits: Iterable[str]) -> FeatureSpec:
    """A source's features as columns of <split>.csv. See standard_spec."""
    layout = StandardLayout(LAYOUT, ids=None, numerical="float32", label="int8", chunks=_standard_chunks)
    return standard_spec(layout, source, splits)


def _standard_chunks(split: str, spec: FeatureSpec) -> list[Chunk]:
    return [Chunk(all_features(spec), (f"{split}.csv",), LAYOUT)]


def _number_type(feature: Feature, spec: FeatureSpec) -> pa.DataType:
    """The type that text is parsed as. Ids and labels are checked later, so their type is the widest."""
    if feature.name in spec.channels["categorical"]:
        return pa.int64()
    dtype = np.dtype(feature.dtype)
    if dtype.kind == "f":
        return pa.float64() if dtype.itemsize == 8 else pa.float32()
    return pa.int64() if feature.name in spec.channels["label"] else pa.int32()


class Reader:
    """Reads one split of a csv dataset.

    Args:
      root: the dataset folder.
      spec: its feature spec.
      split: "train", "test" or "validation".

    Attributes:
      num_samples: samples of the split.
      doubts: a message for each file whose last line has no line end: the file may be cut within a number.

    Raises:
      LayoutError: a feature has several ids a sample, two files have different numbers of lines, or a file does not
        hold plain text lines.
      FeatureSpecError: a file is missing.
    """

    def __init__(self, root: str | Path, spec: FeatureSpec, split: str):
        self.root, self.spec, self.split = Path(root), spec, split
        self._chunks = chunks_of_type(spec, split, LAYOUT)
        for feature in spec.categorical:
            if feature.hotness > 1 or feature.ragged:
                raise LayoutError(f"{spec.path}: {feature.name}: hotness {feature.hotness}; csv holds one id a sample.")
        num_lines, self.doubts = {}, []
        for chunk in self._chunks:
            if len(chunk.files) != 1:
                raise LayoutError(
                    f"{spec.path}: source_spec: {split}: {len(chunk.files)} files; exactly one in a chunk is right."
                )
            path = existing_file(self.root, chunk.files[0], chunk.features[0])
            num_lines[path], has_end = count_lines(path)
            if not has_end:
                self.doubts.append(
                    f"{path}: row {num_lines[path] - 1}, the last one, has no line end. It is read as it is. If the "
                    "file is cut there, its last number is wrong: compare the file with its source."
                )
        self.num_samples = next(iter(num_lines.values()))
        for path, count in num_lines.items():
            if count != self.num_samples:
                raise LayoutError(
                    f"{path}: has {count} lines, but {next(iter(num_lines)).name} has {self.num_samples}. A line is a "
                    "sample; one of the files is truncated or belongs to another dataset."
                )

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """The split in order, read ahead; the last batch may be smaller."""
        pieces = self._pieces()
        ahead = in_order(lambda _: next(pieces, None), itertools.count(), workers=1)  # until it is None
        return rebatch(iter(lambda: next(ahead), None), batch_size)

    def _pieces(self) -> Iterator[Batch]:
        first_row = 0
        for parts in zip(*(rebatch(self._columns(chunk), _ROWS) for chunk in self._chunks), strict=True):
            columns = {name: ids.values for part in parts for name, ids in part.categorical.items()}
            yield self._batch(columns, first_row)
            first_row += parts[0].num_samples

    def _columns(self, chunk: Chunk) -> Iterator[Batch]:
        """The columns of one file, of any channel, as the categorical part of batches."""
        path = self.root / chunk.files[0]
        types = {name: _number_type(self.spec.features[name], self.spec) for name in chunk.features}
        blocks = in_order(lambda block: parse_block(block, types, path), text_blocks(path))
        with contextlib.closing(blocks):
            for columns in blocks:
                yield Batch(None, None, {name: Ids(values) for name, values in columns.items()})

    def _batch(self, columns: dict[str, np.ndarray], first_row: int) -> Batch:
        spec, path_of = (
            self.spec,
            {name: self.root / chunk.files[0] for chunk in self._chunks for name in chunk.features},
        )
        label = checked_labels(columns[spec.label.name], path_of[spec.label.name], first_row)
        numerical = None
        if spec.numerical:
            names = [feature.name for feature in spec.numerical]
            numerical = np.stack([columns[name] for name in names], axis=1)
            check_finite(numerical, names, path=path_of[names[0]], first_row=first_row)
        categorical = {feature.name: Ids(columns[feature.name]) for feature in spec.categorical}
        for feature in spec.categorical:
            check_ids(categorical[feature.name], feature, path=path_of[feature.name], first_row=first_row)
        return Batch(label, numerical, categorical)

    def close(self) -> None:
        """Files are open only while batches are taken."""

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self.close()


class Writer:
    """Writes one split as text. A context manager; where it fails, the caller removes the file.

    Args:
      root: folder to write in.
      spec: spec that csv_spec made.
      split: name of the split to write.
    """

    def __init__(self, root: str | Path, spec: FeatureSpec, split: str):
        self.root, self.spec, self.split = Path(root), spec, split
        self.num_samples = self.num_rounded = 0
        (chunk,) = chunks_of_type(spec, split, LAYOUT)
        self._path = self.root / chunk.files[0]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        types = {name: spec.features[name].dtype for name in chunk.features}
        self._schema = pa.schema([(name, pa.from_numpy_dtype(np.dtype(dtype))) for name, dtype in types.items()])
        self._file = open(self._path, "wb")

    def write(self, batch: Batch) -> None:
        """Appends samples. Raises FeatureSpecError as checked_batch does."""
        self.append(self.prepare(batch, self.num_samples))

    def prepare(self, batch: Batch, first_row: int) -> tuple[pa.Buffer, int, int]:
        """The argument of `append`: text, its lines, and how many numericals were rounded. Raises as `write`."""
        spec = self.spec
        batch, num_rounded = checked_batch(
            batch, spec, split=self.split, first_row=first_row, path=lambda feature: self._path
        )
        columns = [batch.label.astype(spec.label.dtype)]
        columns += [np.ascontiguousarray(batch.numerical[:, i]) for i in range(len(spec.numerical))]
        columns += [batch.categorical[feature.name].values.astype(feature.dtype) for feature in spec.categorical]
        table = pa.RecordBatch.from_arrays([pa.array(c) for c in columns], schema=self._schema)
        return _text(table), table.num_rows, num_rounded

    def append(self, prepared: tuple[pa.Buffer, int, int]) -> None:
        text, rows, num_rounded = prepared
        self._file.write(text)
        self.num_rounded += num_rounded
        self.num_samples += rows

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self._file.close()


def _text(table: pa.RecordBatch) -> pa.Buffer:
    """The lines of a batch."""
    lines = pa.BufferOutputStream()
    pa_csv.write_csv(table, lines, pa_csv.WriteOptions(include_header=False, quoting_style="none"))
    return lines.getvalue()
