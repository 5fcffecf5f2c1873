"""record_binary: one headerless little-endian file, sample after sample, every number in 4 bytes.

    label int32 | 13 numericals float32 or int32 | 26 x hotness ids int32 or uint32

With one id a feature, a sample has 160 bytes; with the 214 ids of the multi-hot variant, 912. The chunk of the feature
spec lists the features in the order of the record, in any order, and any number of files, which are read one after the
other.

Source: the raw format of HugeCTR and of the MLPerf DLRM benchmarks; ids are local to their feature.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import Chunk, Feature, FeatureSpec
from criteo_prep.feature_spec_files import existing_file
from criteo_prep.parallel import in_order
from criteo_prep.transcribe.array_file import ArrayFile, read_rows
from criteo_prep.transcribe.checks import check_finite, check_ids, checked_batch, checked_labels, number_type_doubt
from criteo_prep.transcribe.layout_spec import LayoutError, StandardLayout, all_features, chunks_of_type, standard_spec
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
    """The place of each feature in a record, in words of 4 bytes.

    Attributes:
      files: files of the records.
      num_words: words in a record.
      one_hot, multi_hot: the categorical features with one id and with several ids, in the order of channel_spec.

    Raises:
      LayoutError: the split has several chunks, a feature does not have 4 bytes, or numericals differ in dtype.
    """

    def __init__(self, spec: FeatureSpec, split: str):
        chunks = chunks_of_type(spec, split, LAYOUT)
        if len(chunks) != 1:
            raise LayoutError(f"{spec.path}: source_spec: {split}: has {len(chunks)} chunks; exactly one is right.")
        if len(dtypes := sorted({feature.dtype for feature in spec.numerical})) > 1:
            raise LayoutError(f"{spec.path}: the numericals are {' and '.join(dtypes)}; all must have one dtype.")
        self.files = chunks[0].files
        self.num_words = 0
        self._place: dict[str, slice] = {}
        for name in chunks[0].features:
            feature = spec.features[name]
            if feature.dtype not in _DTYPES or feature.ragged:
                what = "ragged" if feature.ragged else feature.dtype
                raise LayoutError(f"{spec.path}: {name} is {what}; a record holds {', '.join(_DTYPES)}.")
            self._place[name] = slice(self.num_words, self.num_words + feature.hotness)
            self.num_words += feature.hotness
        self.one_hot = [feature for feature in spec.categorical if feature.hotness == 1]
        self.multi_hot = [feature for feature in spec.categorical if feature.hotness > 1]

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

    Attributes:
      num_samples: samples of the split.
      doubts: messages about numericals that look like numbers of another dtype.

    Raises:
      LayoutError: a file does not hold whole records, or the spec is of another layout.
      FeatureSpecError: a file is missing.
    """

    def __init__(self, root: str | Path, spec: FeatureSpec, split: str):
        self.root, self.spec, self.split = Path(root), spec, split
        self._record = Record(spec, split)
        self._files: list[ArrayFile] = []
        self._num_rows: list[int] = []
        paths = [existing_file(self.root, file, spec.label.name) for file in self._record.files]
        for path in paths:
            size, record_bytes = path.stat().st_size, 4 * self._record.num_words
            if size % record_bytes:
                raise LayoutError(
                    f"{path}: {size} bytes is not a multiple of {record_bytes}, the size of a record. The file is "
                    "truncated, or its records have other features than the feature spec lists."
                )
            self._num_rows.append(size // record_bytes)
        self.num_samples = sum(self._num_rows)
        try:
            for path in paths:
                self._files.append(ArrayFile(path, np.int32))
            self.doubts = self._doubts()
        except BaseException:
            self.close()
            raise

    def read(self, start: int, stop: int) -> Batch:
        """Samples [start, stop).

        Returns:
          Batch with label bool [n], and numerical [n, numericals] and ids in the spec's dtypes.

        Raises:
          FeatureSpecError: the file shrank, or a label, numerical or id is not allowed; the message has its row.
        """
        assert 0 <= start <= stop <= self.num_samples
        spec = self.spec
        path = self._files[0].path if len(self._files) == 1 else f"{self.root}: {self.split}"
        label, numerical, ids = self._read_columns(start, stop)
        check_finite(numerical, list(spec.channels["numerical"]), path=path, first_row=start)
        categorical = {}
        for feature in spec.categorical:
            lengths = np.full(stop - start, feature.hotness, np.int32) if feature.hotness > 1 else None
            categorical[feature.name] = Ids(ids[feature.name].reshape(-1).view(feature.dtype), lengths)
            check_ids(categorical[feature.name], feature, path=path, first_row=start)
        label = checked_labels(label.view(spec.label.dtype), path, start)
        return Batch(label, numerical if spec.numerical else None, categorical)

    def _doubts(self) -> list[str]:
        _, numerical, _ = self._read_columns(0, min(self.num_samples, _BLOCK))
        doubt = number_type_doubt(numerical)
        return [f"{self._files[0].path}: {doubt}. Is the dtype in {self.spec.path} right?"] if doubt else []

    def _read_columns(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Samples [start, stop) as (label [n], numericals [n, numericals], name -> ids [n, hotness])."""
        num_rows, record, spec = stop - start, self._record, self.spec
        label = np.empty((num_rows, 1), np.int32)
        numerical = np.empty((num_rows, len(spec.numerical)), np.int32)
        one_hot = np.empty((len(record.one_hot), num_rows), np.int32)
        multi_hot = {feature.name: np.empty((num_rows, feature.hotness), np.int32) for feature in record.multi_hot}
        numerical_runs, one_hot_runs = record.runs(spec.numerical), record.runs(record.one_hot)
        for first in range(start, stop, _BLOCK):
            last = min(first + _BLOCK, stop)
            words = read_rows(self._files, self._num_rows, num_columns=record.num_words, start=first, stop=last)
            block = slice(first - start, last - start)
            label[block] = words[:, record.place(spec.label)]
            for which, place in numerical_runs:
                numerical[block, which] = words[:, place]
            for which, place in one_hot_runs:
                take_columns(words, place.start, one_hot[which, block])
            for feature in record.multi_hot:
                multi_hot[feature.name][block] = words[:, record.place(feature)]
        ids = {feature.name: column for feature, column in zip(record.one_hot, one_hot, strict=True)} | multi_hot
        return label[:, 0], numerical.view(spec.numerical[0].dtype if spec.numerical else np.float32), ids

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """The split in order, read ahead by threads; the last batch may be smaller."""
        starts = range(0, self.num_samples, batch_size)
        return in_order(lambda start: self.read(start, min(start + batch_size, self.num_samples)), starts)

    def close(self) -> None:
        for file in self._files:
            file.close()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self.close()


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
        self._record = Record(spec, split)
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
