"""csv: text without a header, a line a sample, numbers with commas between them, one id a feature.

A chunk of the feature spec names the columns of its file, in their order; several chunks stand side by side, line by
line. Ours are <split>.csv: label, numericals, ids. Floats are written with as many digits as their type needs to be
read back the same.

Source: the csv form of NVIDIA's transcode.py, which reads it from the same spec.
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from criteo_prep.batch import Batch, Ids, in_batches_of
from criteo_prep.feature_spec import Chunk, Feature, FeatureSpec
from criteo_prep.feature_spec_files import existing_file
from criteo_prep.parallel import in_order
from criteo_prep.transcribe.checks import check_finite, check_ids, checked_batch, checked_labels
from criteo_prep.transcribe.layout_spec import LayoutError, chunks_of_type, standard_spec

LAYOUT = "csv"
_BLOCK_BYTES = 4 << 20  # of text that is parsed at a time
_ROWS = 65536  # that the chunks are put side by side in
_DAMAGED = (pa.ArrowException, OverflowError, MemoryError)


def csv_spec(source: FeatureSpec, splits: Iterable[str]) -> FeatureSpec:
    """A source's features as columns of <split>.csv. Raises as standard_spec does."""

    def chunks(split: str, spec: FeatureSpec) -> list[Chunk]:
        order = (*spec.channels["label"], *spec.channels["numerical"], *spec.channels["categorical"])
        return [Chunk(order, (f"{split}.csv",), LAYOUT)]

    return standard_spec(LAYOUT, source, splits=splits, ids=None, numerical="float32", label="int8", chunks=chunks)


def _number_type(feature: Feature, spec: FeatureSpec) -> pa.DataType:
    """What text is parsed as: as wide as can be where a check follows."""
    if feature.cardinality is not None and feature.name in spec.channels["categorical"]:
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
      num_samples: of the split.
      doubts: a message for each file whose last line does not end, so that it may have been cut within a number.

    Raises:
      LayoutError: a feature has several ids a sample, or two files have different numbers of lines.
      FeatureSpecError: a file is missing.
    """

    def __init__(self, root: str | Path, spec: FeatureSpec, split: str):
        self.root, self.spec, self.split = Path(root), spec, split
        self._chunks = chunks_of_type(spec, split, LAYOUT)
        for feature in spec.categorical:
            if feature.hotness > 1 or feature.ragged:
                raise LayoutError(f"{spec.path}: {feature.name}: hotness {feature.hotness}; csv holds one id a sample.")
        lines, self.doubts = {}, []
        for chunk in self._chunks:
            if len(chunk.files) != 1:
                raise LayoutError(f"{spec.path}: source_spec: {split}: {len(chunk.files)} files; one a chunk is right.")
            path = existing_file(self.root, chunk.files[0], chunk.features[0])
            lines[path], ended = _num_lines(path)
            if not ended:
                self.doubts.append(
                    f"{path}: row {lines[path] - 1}, the last one, has no line end. It is read as it is; if the file "
                    "was cut there, its last number is wrong. Compare it with where it comes from."
                )
        self.num_samples = next(iter(lines.values()))
        for path, count in lines.items():
            if count != self.num_samples:
                raise LayoutError(
                    f"{path}: has {count} lines, but {next(iter(lines)).name} has {self.num_samples}. A line is a "
                    "sample; one of the files is truncated or belongs to another dataset."
                )

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """The split in order, read ahead; the last batch holds what is left."""
        pieces = self._pieces()
        ahead = in_order(lambda _: next(pieces, None), itertools.count(), workers=1)  # until it is None
        return in_batches_of(batch_size, iter(lambda: next(ahead), None))

    def _pieces(self) -> Iterator[Batch]:
        first_row = 0
        for parts in zip(*(in_batches_of(_ROWS, self._columns(chunk)) for chunk in self._chunks), strict=True):
            columns = {name: ids.values for part in parts for name, ids in part.categorical.items()}
            yield self._batch(columns, first_row)
            first_row += parts[0].num_samples

    def _columns(self, chunk: Chunk) -> Iterator[Batch]:
        """The columns of one file, whatever they are, as the categorical part of batches."""
        path = self.root / chunk.files[0]
        if path.stat().st_size == 0:
            return
        types = {name: _number_type(self.spec.features[name], self.spec) for name in chunk.features}
        try:
            for table in pa_csv.open_csv(path, *_options(types)):
                columns = {name: table.column(name) for name in chunk.features}
                yield Batch(None, None, {name: Ids(column.to_numpy()) for name, column in columns.items()})
        except _DAMAGED as error:
            raise _explained(path, types, error) from None

    def _batch(self, columns: dict[str, np.ndarray], first_row: int) -> Batch:
        spec, where = self.spec, {name: self.root / chunk.files[0] for chunk in self._chunks for name in chunk.features}
        label = checked_labels(columns[spec.label.name], where[spec.label.name], first_row)
        numerical = None
        if spec.numerical:
            names = [feature.name for feature in spec.numerical]
            numerical = np.stack([columns[name] for name in names], axis=1)
            check_finite(numerical, names, path=where[names[0]], first_row=first_row)
        categorical = {feature.name: Ids(columns[feature.name]) for feature in spec.categorical}
        for feature in spec.categorical:
            check_ids(categorical[feature.name], feature, path=where[feature.name], first_row=first_row)
        return Batch(label, numerical, categorical)

    def close(self) -> None:
        """Files are open only while batches are taken."""

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self.close()


class Writer:
    """Writes one split as text. A context manager; its caller removes what failed.

    Args:
      root: folder to write in.
      spec: as csv_spec makes it.
      split: the split to write.
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
        """Appends samples. Raises FeatureSpecError, see checked_batch."""
        self.append(self.prepared(batch, self.num_samples))

    def prepared(self, batch: Batch, first_row: int) -> tuple[pa.Buffer, int, int]:
        """What `append` takes: text, its lines, and how many numericals were rounded. Raises as `write` does."""
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


def _num_lines(path: Path) -> tuple[int, bool]:
    """(lines in a file, whether the last one has a line feed)."""
    count, last = 0, b"\n"
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n"), last == b"\n"


def _options(types: dict[str, pa.DataType]) -> tuple:
    """How text is read, for pyarrow."""
    return (
        pa_csv.ReadOptions(block_size=_BLOCK_BYTES, column_names=list(types)),
        pa_csv.ParseOptions(quote_char=False, ignore_empty_lines=False),
        pa_csv.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False),
    )


def _explained(path: Path, types: dict[str, pa.DataType], error: BaseException) -> LayoutError:
    """The error with the first line that is not what it must be; reads the file again."""
    row = 0
    with open(path, "rb") as file:
        while lines := file.readlines(_BLOCK_BYTES):
            if not _is_good(lines, types):
                place = _first_bad(lines, types)
                return LayoutError(f"{path}: row {row + place}: {_what_is_wrong(lines[place], types)}")
            row += len(lines)
    return LayoutError(f"{path}: cannot be read as csv: {str(error).splitlines()[0][:200]}")


def _is_good(lines: list[bytes], types: dict[str, pa.DataType]) -> bool:
    try:
        pa_csv.read_csv(pa.BufferReader(b"".join(lines)), *_options(types))
    except _DAMAGED:
        return False
    return True


def _first_bad(lines: list[bytes], types: dict[str, pa.DataType]) -> int:
    """Which of the lines, that are not all good, is the first bad one: by halves."""
    good, bad = 0, len(lines)
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if _is_good(lines[good:middle], types) else (good, middle)
    return good


def _what_is_wrong(line: bytes, types: dict[str, pa.DataType]) -> str:
    cells = line.rstrip(b"\r\n").split(b",")
    if len(cells) != len(types):
        return (
            f"has {len(cells)} columns, the feature spec names {len(types)}. Correct the row or the spec; columns are "
            "parted by commas."
        )
    for (name, kind), cell in zip(types.items(), cells, strict=True):
        try:
            pa.array([cell.decode("ascii")]).cast(kind)
        except (pa.ArrowException, UnicodeDecodeError):
            return f"{name!r} is {cell[:40].decode('utf-8', 'replace')!r}, which is no {kind}. Correct the row."
    return "cannot be read as numbers parted by commas. Correct the row."
