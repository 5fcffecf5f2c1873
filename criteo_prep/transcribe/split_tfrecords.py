"""split_tfrecords: TFRecords for every feature, where a record holds a whole batch of samples.

    <root>/<split>/length.json                                       the number of records
    <root>/<split>/{label,numerical,categorical_<i>}/format.json     dtype, multihot, ...
    <root>/<split>/{label,numerical,categorical_<i>}/data_<k>.tfrecords

label is int8 [batch, 1], numerical float16 [batch, numericals], one-hot ids int32 [batch, 1], several ids a ragged
tensor of int32. i counts the categorical features in the order of the channel. Records of any size are read; the last
record of a split may be smaller. (NVIDIA's own reader needs records of exactly its batch size.)

The folders say which splits and files exist. source_spec does not: published datasets have one of another layout.

Source: split_tfrecords of NVIDIA's DLRM for TensorFlow 2.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from criteo_prep.batch import Batch, Ids, Rebatcher, rebatch
from criteo_prep.feature_spec import Chunk, Feature, FeatureSpec
from criteo_prep.parallel import in_order
from criteo_prep.schema import SPLITS, natural_key
from criteo_prep.transcribe.checks import check_finite, check_ids, checked_batch, checked_labels
from criteo_prep.transcribe.layout_spec import LayoutError, StandardLayout, chunks_of_type, standard_spec
from criteo_prep.transcribe.tensor_proto import example, ragged_tensor, tensor
from criteo_prep.transcribe.tfrecord import write_record
from criteo_prep.transcribe.tfrecord_folder import TfRecordFolder, read_json, write_format

LAYOUT = "split_tfrecords"
_LARGEST_TENSOR = (1 << 31) - (1 << 10)  # bytes; the rest of 2 GiB is for the message around the tensor


def split_tfrecords_spec(source: FeatureSpec, splits: Iterable[str]) -> FeatureSpec:
    """A source's features in this layout. See standard_spec."""
    layout = StandardLayout(LAYOUT, ids="int32", numerical="float16", label="int8", chunks=_standard_chunks)
    return standard_spec(layout, source, splits)


def _standard_chunks(split: str, spec: FeatureSpec) -> list[Chunk]:
    return [Chunk(features, (f"{split}/{folder}/data_0.tfrecords",), LAYOUT) for folder, features in _folders(spec)]


def spec_of_folders(spec: FeatureSpec) -> FeatureSpec:
    """The spec with the splits and files that exist in the dataset folder in place of its source_spec."""
    sources = {}
    for split in SPLITS:
        if not (spec.root / split / "length.json").is_file():
            if (spec.root / split / "label").exists():
                raise LayoutError(f"{spec.root / split}: has records, but no file length.json. Copy or make it again.")
            continue
        chunks = []
        for folder, features in _folders(spec):
            files = sorted((spec.root / split / folder).glob("data_*.tfrecords"), key=natural_key)
            if not files:
                raise LayoutError(f"{spec.root / split / folder}: has no data_*.tfrecords, which hold {features[0]!r}.")
            chunks.append(Chunk(features, tuple(str(path.relative_to(spec.root)) for path in files), LAYOUT))
        sources[split] = tuple(chunks)
    return FeatureSpec(
        spec.features, spec.channels, sources=sources, metadata=spec.metadata, root=spec.root, path=spec.path
    )


def _folders(spec: FeatureSpec) -> list[tuple[str, tuple[str, ...]]]:
    """Folders of a split, each with the names of its features."""
    ids = [(f"categorical_{i}", (name,)) for i, name in enumerate(spec.channels["categorical"])]
    numerical = [("numerical", spec.channels["numerical"])] if spec.numerical else []
    return [("label", spec.channels["label"]), *numerical, *ids]


class Reader:
    """Reads one split of a split_tfrecords dataset.

    Args:
      root: the dataset folder.
      spec: its feature spec, as spec_of_folders returns it.
      split: "train", "test" or "validation".

    Raises:
      LayoutError: format.json or length.json contradicts the spec or the records, or a label record is damaged.
    """

    def __init__(self, root: str | Path, spec: FeatureSpec, split: str):
        self.root, self.spec, self.split = Path(root), spec, split
        chunks = chunks_of_type(spec, split, LAYOUT)
        self._streams = [TfRecordFolder(self.root, chunk, spec.features[chunk.features[0]]) for chunk in chunks]
        sizes = [len(values) for _, values, _ in self._streams[0]]
        self.num_samples, self._num_records = sum(sizes), len(sizes)
        path = self.root / split / "length.json"
        length = read_json(path)
        if length not in (len(sizes), -1):  # the published program writes -1 when it copies all records
            raise LayoutError(
                f"{path}: says {str(length)[:40]} records, but the label has {len(sizes)}. One of them is damaged."
            )

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """The split in order, read ahead; the last batch may be smaller. Records may have any sizes."""
        pieces = self._records()
        # One worker: the records of a file come one after the other.
        return rebatch(in_order(lambda _: next(pieces), range(self._num_records), workers=1), batch_size)

    def _records(self) -> Iterator[Batch]:
        """A batch for each record."""
        streams = [iter(stream) for stream in self._streams]
        first_row = 0
        for number in range(self._num_records):
            parts = []
            for source, stream in zip(self._streams, streams, strict=True):
                if (record := next(stream, None)) is None:
                    raise LayoutError(
                        f"{source.folder}: ends after {number} records, the label has {self._num_records}. It is "
                        "truncated; copy or make it again."
                    )
                parts.append(record)
                if number == self._num_records - 1 and next(stream, None) is not None:
                    raise LayoutError(f"{source.folder}: has more than the {self._num_records} records of the label.")
            yield self._batch(parts, first_row)
            first_row += len(parts[0][1])

    def _batch(self, parts: list, first_row: int) -> Batch:
        (where, label, _), *rest = parts
        num_rows, spec, numerical = len(label), self.spec, None
        label = checked_labels(_shaped(label, where, num_rows=num_rows, num_columns=1).reshape(-1), where, first_row)
        if spec.numerical:
            (where, values, _), *rest = rest
            numerical = _shaped(values, where, num_rows=num_rows, num_columns=len(spec.numerical))
            check_finite(numerical, list(spec.channels["numerical"]), path=where, first_row=first_row)
        categorical = {}
        for feature, (where, values, lengths) in zip(spec.categorical, rest, strict=True):
            if lengths is None:
                ids = Ids(_shaped(values, where, num_rows=num_rows, num_columns=1).reshape(-1))
            elif len(lengths) == num_rows:
                ids = Ids(values, lengths)
            else:
                raise LayoutError(f"{where} has {len(lengths)} samples, the label {num_rows}.")
            check_ids(ids, feature, path=where, first_row=first_row)
            categorical[feature.name] = ids
        return Batch(label, numerical, categorical)

    def close(self) -> None:
        """Files are open only while records are taken."""

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self.close()


class Writer:
    """Writes one split. A context manager; where it fails, the caller removes its files.

    Args:
      root: folder to write in.
      spec: spec that split_tfrecords_spec made.
      split: name of the split to write.
      prebatch_size: samples in a record. NVIDIA's reader needs its own batch size here, and no smaller last record.
    """

    def __init__(self, root: str | Path, spec: FeatureSpec, *, split: str, prebatch_size: int = 65536):
        self.root, self.spec, self.split = Path(root), spec, split
        self.num_samples = self.num_rounded = self._num_records = 0
        self._rebatcher = Rebatcher(prebatch_size, self._write_record)
        self._files = {}
        for chunk in chunks_of_type(spec, split, LAYOUT):
            path = self.root / chunk.files[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            self._files[chunk.features[0]] = open(path, "wb")

    def write(self, batch: Batch) -> None:
        """Appends samples. Raises FeatureSpecError as checked_batch does."""
        self.append(self.prepare(batch, self.num_samples))

    def prepare(self, batch: Batch, first_row: int) -> tuple[Batch, int]:
        """The argument of `append`: checked samples, and how many numericals were rounded. Raises as `write`."""
        path = self.root / self.split
        return checked_batch(batch, self.spec, split=self.split, first_row=first_row, path=lambda feature: path)

    def append(self, prepared: tuple[Batch, int]) -> None:
        batch, num_rounded = prepared
        self._rebatcher.add(batch)
        self.num_rounded += num_rounded
        self.num_samples += batch.num_samples

    def _write_record(self, batch: Batch) -> None:
        self._append(self.spec.label, tensor(batch.label.astype(np.int8).reshape(-1, 1)))
        if self.spec.numerical:
            self._append(self.spec.numerical[0], tensor(batch.numerical))
        for feature in self.spec.categorical:
            ids = batch.categorical[feature.name]
            values = ids.values.astype(np.int32, copy=False)
            if ids.row_lengths is None:
                self._append(feature, tensor(values.reshape(-1, 1)))
            else:
                row_splits = np.concatenate([[0], np.cumsum(ids.row_lengths)]).astype(np.int32)
                self._append(feature, ragged_tensor(values, row_splits))
        self._num_records += 1

    def _append(self, feature: Feature, data: bytes) -> None:
        if len(data) > _LARGEST_TENSOR:
            raise LayoutError(
                f"{self.split}: {feature.name}: a record of {len(data)} bytes; protocol buffers hold less than 2 GiB. "
                "Give a smaller --dst_prebatch_size."
            )
        write_record(self._files[feature.name], example("data", data))

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        try:
            if exception_type is None:
                self._rebatcher.finish()
        finally:
            for file in self._files.values():
                file.close()
        if exception_type is None:
            (self.root / self.split / "length.json").write_text(json.dumps(self._num_records))
            for chunk in self.spec.sources[self.split]:
                write_format(
                    self.root, chunk, feature=self.spec.features[chunk.features[0]], num_records=self._num_records
                )


def _shaped(values: np.ndarray, where: str, *, num_rows: int, num_columns: int) -> np.ndarray:
    if values.size != num_rows * num_columns:
        raise LayoutError(f"{where} has {values.size} values; {num_rows} samples x {num_columns} are right.")
    return values.reshape(num_rows, num_columns)
