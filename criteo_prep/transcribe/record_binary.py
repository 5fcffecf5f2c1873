"""record_binary: one headerless little-endian file, sample after sample, every number in 4 bytes.

    label int32 | 13 numericals float32 or int32 | 26 x hotness ids int32 or uint32

With one id a feature, a sample has 160 bytes; with the 214 ids of the multi-hot variant, 912. The chunk of the feature
spec lists the features in the order of the record, in any order, and any number of files, which are read one after the
other. A split may have several chunks, whose records lie side by side: the files label.bin, dense.bin and category.bin
of split-bin are three chunks.

Source: the raw format of HugeCTR and of the MLPerf DLRM benchmarks; ids are local to their feature.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Chunk, Feature, FeatureSpec, FeatureSpecError
from criteo_prep.feature_spec_files import existing_file
from criteo_prep.parallel import in_order
from criteo_prep.transcribe.checks import check_finite, check_ids, checked_batch, checked_labels, number_type_doubt
from criteo_prep.transcribe.file_rows import FileArray, FileRows
from criteo_prep.transcribe.layout_spec import (
    LayoutError,
    StandardLayout,
    all_features,
    chunks_of_type,
    standard_spec,
    wanted_of,
)
from criteo_prep.transcribe.transposed import put_columns, take_columns

LAYOUT = "record_binary"
_DTYPES = ("int32", "uint32", "float32")
_BLOCK = 8192  # samples that are read and split into columns at a time: their records stay in the cache


def record_binary_spec(source: FeatureSpec, splits: Iterable[str]) -> FeatureSpec:
    """The published record of a source's features, in files <split>.bin. See standard_spec."""
    layout = StandardLayout(LAYOUT, ids="int32", numerical="float32", label="int32", chunks=_standard_chunks)
    return standard_spec(layout, source, splits)


def _standard_chunks(split: str, spec: FeatureSpec) -> list[Chunk]:
    return [Chunk(all_features(spec), (f"{split}.bin",), LAYOUT)]


class Record:
    """The place of each feature in the records of a chunk, in words of 4 bytes.

    Attributes:
      files: files of the records.
      num_words: words in a record.
      one_hot, multi_hot: the categorical features with one id and with several ids, in the order of channel_spec.

    Raises:
      LayoutError: a feature does not have 4 bytes, or numericals differ in dtype or are in several chunks.
    """

    def __init__(self, spec: FeatureSpec, chunk: Chunk):
        if len(dtypes := sorted({feature.dtype for feature in spec.numerical})) > 1:
            raise LayoutError(f"{spec.path}: the numericals are {' and '.join(dtypes)}; all must have one dtype.")
        self.files = chunk.files
        self.num_words = 0
        self._place: dict[str, slice] = {}
        for name in chunk.features:
            feature = spec.features[name]
            if feature.dtype not in _DTYPES or feature.ragged:
                what = "ragged" if feature.ragged else feature.dtype
                raise LayoutError(f"{spec.path}: {name} is {what}; a record holds {', '.join(_DTYPES)}.")
            self._place[name] = slice(self.num_words, self.num_words + feature.hotness)
            self.num_words += feature.hotness
        held = [feature for feature in spec.categorical if feature.name in self._place]
        self.one_hot = [feature for feature in held if feature.hotness == 1]
        self.multi_hot = [feature for feature in held if feature.hotness > 1]
        self.has_label = spec.label.name in self._place
        numerical = self._place.keys() & set(spec.channels["numerical"])
        self.has_numerical = bool(numerical)
        if len(numerical) not in (0, len(spec.numerical)):
            raise LayoutError(f"{spec.path}: {chunk.files[0]} holds some of the numericals; a chunk holds all or none.")

    def place(self, feature: Feature) -> slice:
        """The words of a feature."""
        return self._place[feature.name]

    def runs(self, features: Sequence[Feature]) -> list[tuple[slice, slice]]:
        """Runs of adjacent features, one number each, as (slice of `features`, slice of words)."""
        places = [self.place(feature) for feature in features]
        starts = [i for i, place in enumerate(places) if i == 0 or place.start != places[i - 1].stop]
        ends = [*starts, len(places)][1:]
        return [
            (slice(start, end), slice(places[start].start, places[end - 1].stop))
            for start, end in zip(starts, ends, strict=True)
        ]


class Reader:
    """Reads one split of a record_binary dataset.

    Args:
      root: the dataset folder.
      spec: its feature spec.
      split: "train", "test" or "validation".
      features: names of the features to read, all by default. The ids of other features are not decoded.

    Attributes:
      num_samples: samples of the split.
      doubts: messages about numericals that look like numbers of another dtype.

    Raises:
      LayoutError: a file does not hold whole records, or the spec is of another layout.
      FeatureSpecError: a file is missing, or `features` has an unknown name.
    """

    def __init__(self, root: str | Path, spec: FeatureSpec, *, split: str, features: Iterable[str] | None = None):
        self.root, self.spec, self.split = Path(root), spec, split
        self._wanted = wanted_of(spec, features)
        self._parts: list[tuple[Record, FileRows]] = []
        counts: dict[str, int] = {}
        try:
            for chunk in chunks_of_type(spec, split, LAYOUT):
                record = Record(spec, chunk)
                arrays = [self._array(file, record) for file in record.files]
                counts[chunk.files[0]] = sum(array.num_rows for array in arrays)
                if self._reads(record):
                    self._parts.append((record, FileRows(arrays, record.num_words)))
            self.num_samples = next(iter(counts.values()))
            self._check_counts(counts)
            self.doubts = self._doubts() if self._wanted.numerical else []
        except BaseException:
            self.close()
            raise

    def read(self, start: int, stop: int) -> Batch:
        """Samples [start, stop).

        Returns:
          Batch with label bool [n], numerical [n, numericals] in the spec's dtype, and ids int32.

        Raises:
          FeatureSpecError: the file shrank, or a label, numerical or id is not allowed; the message has its row.
        """
        assert 0 <= start <= stop <= self.num_samples
        return self._batch(stop - start, lambda rows, first, last: rows.read(start + first, start + last), start)

    def take(self, rows: np.ndarray) -> Batch:
        """The samples at these rows, int64 [n] in any order, as `read` returns them. Raises as `read`."""
        try:
            return self._batch(len(rows), lambda files, first, last: files.take(rows[first:last]), 0)
        except FeatureSpecError:
            for row in rows.tolist():
                self.read(row, row + 1)  # raises the message with the row
            raise

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """The split in order, read ahead by threads; the last batch may be smaller."""
        starts = range(0, self.num_samples, batch_size)
        return in_order(lambda start: self.read(start, min(start + batch_size, self.num_samples)), starts)

    def close(self) -> None:
        for _, rows in self._parts:
            rows.close()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self.close()

    def _array(self, file: str, record: Record) -> FileArray:
        path = existing_file(self.root, file, self.spec.label.name)
        size, record_bytes = path.stat().st_size, 4 * record.num_words
        if size % record_bytes:
            raise LayoutError(
                f"{path}: {size} bytes is not a multiple of {record_bytes}, the size of a record. The file is "
                "truncated, or its records have other features than the feature spec lists."
            )
        return FileArray(path, 0, dtype=np.dtype(np.int32), num_rows=size // record_bytes, num_columns=record.num_words)

    def _check_counts(self, counts: dict[str, int]) -> None:
        first = next(iter(counts))
        for file, count in counts.items():
            if count != self.num_samples:
                raise LayoutError(
                    f"{self.root / file}: holds {count} samples, but {first} holds {self.num_samples}. One of them is "
                    "truncated."
                )

    def _reads(self, record: Record) -> bool:
        """Whether a feature that is asked for is in these records."""
        wanted, held = self._wanted, (*record.one_hot, *record.multi_hot)
        return (
            wanted.label and record.has_label
            or wanted.numerical and record.has_numerical
            or any(feature in wanted.categorical for feature in held)
        )  # fmt: skip

    def _doubts(self) -> list[str]:
        (where,) = [rows.where for record, rows in self._parts if record.has_numerical]
        rows = min(self.num_samples, _BLOCK)
        numerical = self._columns(rows, lambda files, first, last: files.read(first, last))[1]
        doubt = number_type_doubt(numerical)
        return [f"{where}: {doubt}. Is the dtype in {self.spec.path} right?"] if doubt else []

    def _batch(self, num_rows: int, words_of: Callable[[FileRows, int, int], np.ndarray], first_row: int) -> Batch:
        """A batch of the records that `words_of` returns, checked.

        Args:
          num_rows: samples in the batch.
          words_of: function of (files, first, last) that returns the records [first, last) of the batch.
          first_row: row of the first sample, for messages.
        """
        spec, wanted = self.spec, self._wanted
        label, numerical, columns = self._columns(num_rows, words_of)
        categorical = {}
        for record, rows in self._parts:
            if label is not None and record.has_label:
                label = checked_labels(label.view(spec.label.dtype), rows.where, first_row)
            if numerical is not None and record.has_numerical:
                check_finite(numerical, list(spec.channels["numerical"]), path=rows.where, first_row=first_row)
            for feature in (*record.one_hot, *record.multi_hot):
                if feature.name in columns:
                    lengths = np.full(num_rows, feature.hotness, np.int32) if feature.hotness > 1 else None
                    ids = Ids(columns[feature.name].reshape(-1).view(feature.dtype), lengths)
                    check_ids(ids, feature, path=rows.where, first_row=first_row)
                    categorical[feature.name] = Ids(ids.values.view(np.int32), lengths)
        return Batch(label, numerical, {feature.name: categorical[feature.name] for feature in wanted.categorical})

    def _columns(
        self, num_rows: int, words_of: Callable[[FileRows, int, int], np.ndarray]
    ) -> tuple[np.ndarray | None, np.ndarray | None, dict[str, np.ndarray]]:
        """Records as (label [n], numericals [n, numericals], name -> ids [n, hotness]); see _batch."""
        spec, wanted = self.spec, self._wanted
        label = np.empty(num_rows, np.int32) if wanted.label else None
        numerical = np.empty((num_rows, len(spec.numerical)), np.int32) if wanted.numerical else None
        columns: dict[str, np.ndarray] = {}
        for record, rows in self._parts:
            one_hot = [feature for feature in record.one_hot if feature in wanted.categorical]
            multi_hot = [feature for feature in record.multi_hot if feature in wanted.categorical]
            places = np.array([record.place(feature).start for feature in one_hot], np.int64)
            one_hot_ids = np.empty((len(one_hot), num_rows), np.int32)
            columns |= {feature.name: ids for feature, ids in zip(one_hot, one_hot_ids, strict=True)}
            columns |= {feature.name: np.empty((num_rows, feature.hotness), np.int32) for feature in multi_hot}
            for first in range(0, num_rows, _BLOCK):
                last = min(first + _BLOCK, num_rows)
                words, block = words_of(rows, first, last), slice(first, last)
                if label is not None and record.has_label:
                    label[block] = words[:, record.place(spec.label).start]
                if numerical is not None and record.has_numerical:
                    for which, place in record.runs(spec.numerical):
                        numerical[block, which] = words[:, place]
                take_columns(words, places, one_hot_ids[:, block])
                for feature in multi_hot:
                    columns[feature.name][block] = words[:, record.place(feature)]
        return label, None if numerical is None else numerical.view(spec.numerical[0].dtype), columns


class Writer:
    """Writes one split into the chunk's first file. A context manager; where it fails, the caller removes its file.

    Args:
      root: folder to write in.
      spec: spec that record_binary_spec made.
      split: name of the split to write.
    """

    def __init__(self, root: str | Path, spec: FeatureSpec, split: str):
        self.root, self.spec, self.split = Path(root), spec, split
        self.num_samples = self.num_rounded = 0
        (chunk,) = chunks_of_type(spec, split, LAYOUT)
        self._record = Record(spec, chunk)
        self._path = self.root / self._record.files[0]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self._path, "wb")

    def write(self, batch: Batch) -> None:
        """Appends samples. Raises FeatureSpecError as checked_batch does."""
        self.append(self.prepare(batch, self.num_samples))

    def prepare(self, batch: Batch, first_row: int) -> tuple[np.ndarray, int]:
        """The argument of `append`: records int32 [n, words], and how many numericals were rounded. Raises as write."""
        batch, num_rounded = checked_batch(
            batch, self.spec, split=self.split, first_row=first_row, path=lambda feature: self._path
        )
        return self._words(batch), num_rounded

    def append(self, prepared: tuple[np.ndarray, int]) -> None:
        words, num_rounded = prepared
        self._file.write(words.data)
        self.num_rounded += num_rounded
        self.num_samples += len(words)

    def _words(self, batch: Batch) -> np.ndarray:
        """The records of a checked batch, int32 [n, words]."""
        num_rows, record, spec = batch.num_samples, self._record, self.spec
        words = np.empty((num_rows, record.num_words), np.int32)
        words[:, record.place(spec.label)] = batch.label.astype(spec.label.dtype).view(np.int32).reshape(-1, 1)
        for which, place in record.runs(spec.numerical):
            words[:, place] = batch.numerical.view(np.int32)[:, which]
        for feature in record.multi_hot:
            words[:, record.place(feature)] = batch.categorical[feature.name].values.reshape(num_rows, feature.hotness)
        for which, place in record.runs(record.one_hot):
            columns = [batch.categorical[feature.name].values for feature in record.one_hot[which]]
            put_columns(np.stack(columns, dtype=np.int32, casting="same_kind"), words, place.start)
        return words

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self._file.close()
