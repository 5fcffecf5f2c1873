"""parquet: one column for each feature, by name; a list column where a feature has several ids a sample.

The chunk of the feature spec names the columns, in any order, and any number of files, which are read one after the
other. A column has the dtype of its feature; other columns are not read. This program writes <split>.parquet with label
int8, numericals float32, ids int32 and keys int64, in row groups of 65536 samples.
"""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from criteo_prep.batch import Batch, Ids, Rebatcher, rebatch
from criteo_prep.feature_spec import Chunk, Feature, FeatureSpec
from criteo_prep.feature_spec_files import existing_file
from criteo_prep.parallel import in_order
from criteo_prep.transcribe.checks import check_finite, check_ids, checked_batch, checked_labels
from criteo_prep.transcribe.layout_spec import (
    LayoutError,
    StandardLayout,
    all_features,
    chunks_of_type,
    dtype_advice,
    standard_spec,
)
from criteo_prep.transcribe.parquet_footer import numbers_of_lists

LAYOUT = "parquet"
_ROWS = 65536  # samples in a row group that is written, and in a batch that is read
# A few bytes of parquet can hold any number of ids, so the numbers are counted before they are decoded.
_NUMBERS = 1 << 25  # numbers that are decoded at a time, where rows are about equally long, and the same when writing
_LARGEST_GROUP = 1 << 27  # numbers of one column in a row group, which may all be in one row
# Errors of pyarrow for files that are damaged or that it does not support.
_PYARROW_ERRORS = (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)


def parquet_spec(source: FeatureSpec, splits: Iterable[str]) -> FeatureSpec:
    """A source's features as columns of <split>.parquet. See standard_spec."""
    layout = StandardLayout(LAYOUT, ids="int32", numerical="float32", label="int8", chunks=_standard_chunks)
    return standard_spec(layout, source, splits)


def _standard_chunks(split: str, spec: FeatureSpec) -> list[Chunk]:
    return [Chunk(all_features(spec), (f"{split}.parquet",), LAYOUT)]


def _chunk(spec: FeatureSpec, split: str) -> Chunk:
    chunks = chunks_of_type(spec, split, LAYOUT)
    if len(chunks) != 1:
        raise LayoutError(
            f"{spec.path}: source_spec: {split}: has {len(chunks)} chunks; exactly one, with all columns, is right."
        )
    return chunks[0]


class Reader:
    """Reads one split of a parquet dataset.

    Args:
      root: the dataset folder.
      spec: its feature spec.
      split: "train", "test" or "validation".

    Raises:
      LayoutError: a file is not parquet, or has no column with the name and dtype of a feature.
      FeatureSpecError: a file is missing.
    """

    def __init__(self, root: str | Path, spec: FeatureSpec, split: str):
        self.root, self.spec, self.split = Path(root), spec, split
        chunk = _chunk(spec, split)
        self._names = list(chunk.features)
        self._files: list[tuple[Path, pq.ParquetFile]] = []
        try:
            for path in [existing_file(self.root, file, self._names[0]) for file in chunk.files]:
                self._files.append((path, self._open(path)))
            self._rows_at_a_time = min(self._rows_to_decode(path, file.metadata) for path, file in self._files)
        except BaseException:
            self.close()
            raise
        self.num_samples = sum(file.metadata.num_rows for _, file in self._files)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """The split in order, read ahead; the last batch may be smaller, or all if samples have very many ids."""
        pieces = self._pieces()
        ahead = in_order(lambda _: next(pieces, None), itertools.count(), workers=1)  # until it is None
        return rebatch(iter(lambda: next(ahead), None), min(batch_size, self._rows_at_a_time))

    def _pieces(self) -> Iterator[Batch]:
        first_row = 0
        for path, file in self._files:
            start = first_row
            try:
                for table in file.iter_batches(self._rows_at_a_time, columns=self._names):
                    yield self._batch(table, path, first_row - start)
                    first_row += table.num_rows
            except LayoutError:
                raise
            except _PYARROW_ERRORS as error:
                if isinstance(error, ValueError) and not isinstance(error, pa.ArrowException):
                    raise  # an error of ours, which has the row
                raise _damaged(path, error) from None
            if first_row - start != file.metadata.num_rows:
                raise LayoutError(
                    f"{path}: has {first_row - start} rows, its footer says {file.metadata.num_rows}. It is damaged."
                )

    def _batch(self, table: pa.RecordBatch, path: Path, first_row: int) -> Batch:
        spec = self.spec
        label = _numbers(table.column(spec.label.name), spec.label.name, path=path, first_row=first_row)
        numerical = None
        if spec.numerical:
            names = [feature.name for feature in spec.numerical]
            columns = [_numbers(table.column(name), name, path=path, first_row=first_row) for name in names]
            numerical = np.empty((table.num_rows, len(columns)), np.result_type(*columns))
            for i, column in enumerate(columns):
                numerical[:, i] = column
            check_finite(numerical, names, path=path, first_row=first_row)
        categorical = {}
        for feature in spec.categorical:
            ids = _ids(table.column(feature.name), feature, path=path, first_row=first_row)
            check_ids(ids, feature, path=path, first_row=first_row)
            categorical[feature.name] = ids
        return Batch(checked_labels(label, path, first_row), numerical, categorical)

    def _open(self, path: Path) -> pq.ParquetFile:
        try:
            file = pq.ParquetFile(path, pre_buffer=False)  # with a buffer, the bytes of the whole file stay in memory
            schema = file.schema_arrow
        except _PYARROW_ERRORS as error:
            raise _damaged(path, error) from None
        for name in self._names:
            feature = self.spec.features[name]
            if schema.names.count(name) != 1:
                raise LayoutError(f"{path}: has {schema.names.count(name)} columns {name!r}; exactly one is right.")
            column, multi_hot = schema.field(name).type, feature.hotness > 1 or feature.ragged
            is_list = pa.types.is_list(column) or pa.types.is_large_list(column) or pa.types.is_fixed_size_list(column)
            value = column.value_type if is_list else column
            if is_list != multi_hot or value != pa.from_numpy_dtype(np.dtype(feature.dtype)):
                raise LayoutError(
                    f"{path}: column {name!r} is {column}, but the feature spec says {feature.dtype} with hotness "
                    f"{feature.hotness}{', ragged' * feature.ragged}. {self._advice(feature, value, is_list)}"
                )
        return file

    def _rows_to_decode(self, path: Path, metadata: pq.FileMetaData) -> int:
        """How many rows of a file have about _NUMBERS numbers. Raises LayoutError for a row group that is too large."""
        features = [self.spec.features[name] for name in self._names]
        lists = [feature.name for feature in features if feature.hotness > 1 or feature.ragged]
        rows = min(_ROWS, max(1, _NUMBERS // len(features)))
        try:
            groups = numbers_of_lists(path, lists, metadata)
        except ValueError as error:
            raise _damaged(path, error) from None
        for number, numbers in enumerate(groups):
            num_rows = metadata.row_group(number).num_rows
            for name, count in numbers.items():
                if count > _LARGEST_GROUP:
                    raise LayoutError(
                        f"{path}: row group {number} has {count} numbers of {name} in {num_rows} rows; at most "
                        f"{_LARGEST_GROUP} are read at once. Save the file with smaller row groups."
                    )
            num_numbers = num_rows * (len(features) - len(lists)) + sum(numbers.values())
            rows = min(rows, max(1, _NUMBERS * num_rows // max(num_numbers, 1)))
        return rows

    def _advice(self, feature: Feature, value: pa.DataType, is_list: bool) -> str:
        if is_list != (feature.hotness > 1 or feature.ragged):
            return f"Correct the hotness of the spec, or save {'one id' if is_list else 'a list of ids'} a sample."
        if not (pa.types.is_integer(value) or pa.types.is_floating(value) or pa.types.is_boolean(value)):
            return f"Save the column as {feature.dtype}."
        return dtype_advice(self.spec, feature, np.dtype(value.to_pandas_dtype()))

    def close(self) -> None:
        for _, file in self._files:
            file.close()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self.close()


class Writer:
    """Writes one split as a parquet file. A context manager; where it fails, the caller removes the file.

    Args:
      root: folder to write in.
      spec: spec that parquet_spec made.
      split: name of the split to write.
    """

    def __init__(self, root: str | Path, spec: FeatureSpec, split: str):
        self.root, self.spec, self.split = Path(root), spec, split
        self.num_samples = self.num_rounded = self._num_numbers = 0
        chunk = _chunk(spec, split)
        self._path = self.root / chunk.files[0]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._schema = pa.schema([(name, _type(spec.features[name])) for name in chunk.features])
        # Ids hardly repeat within a page: a dictionary costs time and saves nothing.
        self._file = pq.ParquetWriter(
            self._path, self._schema, compression="none", use_dictionary=False, write_statistics=False
        )
        self._rebatcher = Rebatcher(_ROWS, self._write_group)

    def write(self, batch: Batch) -> None:
        """Appends samples. Raises FeatureSpecError as checked_batch does."""
        self.append(self.prepare(batch, self.num_samples))

    def prepare(self, batch: Batch, first_row: int) -> tuple[Batch, int]:
        """The argument of `append`: checked samples, and how many numericals were rounded. Raises as `write`."""
        return checked_batch(batch, self.spec, split=self.split, first_row=first_row, path=lambda feature: self._path)

    def append(self, prepared: tuple[Batch, int]) -> None:
        batch, num_rounded = prepared
        self._rebatcher.add(batch)
        self._num_numbers += sum(len(ids.values) for ids in batch.categorical.values())
        if self._num_numbers > _NUMBERS * 4:
            self._rebatcher.finish()  # a row group of fewer samples
        self.num_rounded += num_rounded
        self.num_samples += batch.num_samples

    def _write_group(self, batch: Batch) -> None:
        spec, self._num_numbers = self.spec, 0
        columns = {spec.label.name: pa.array(batch.label.astype(spec.label.dtype))}
        for i, feature in enumerate(spec.numerical):
            columns[feature.name] = pa.array(np.ascontiguousarray(batch.numerical[:, i]))
        for feature in spec.categorical:
            ids = batch.categorical[feature.name]
            values = pa.array(ids.values.astype(feature.dtype, copy=False))
            if ids.row_lengths is not None:
                offsets = np.concatenate([[0], np.cumsum(ids.row_lengths)]).astype(np.int32)
                values = pa.ListArray.from_arrays(pa.array(offsets), values)
            columns[feature.name] = values
        batch = pa.RecordBatch.from_arrays([columns[name] for name in self._schema.names], schema=self._schema)
        self._file.write_batch(batch, row_group_size=_ROWS)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        try:
            if exception_type is None:
                self._rebatcher.finish()
        finally:
            self._file.close()


def _type(feature: Feature) -> pa.DataType:
    value = pa.from_numpy_dtype(np.dtype(feature.dtype))
    return pa.list_(value) if feature.hotness > 1 or feature.ragged else value


def _numbers(column: pa.Array, name: str, *, path: Path, first_row: int) -> np.ndarray:
    if column.null_count:
        row = first_row + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise LayoutError(f"{path}: row {row}: {name!r} is null. Write the number that stands for a missing value.")
    return column.to_numpy(zero_copy_only=False)


def _ids(column: pa.Array, feature: Feature, *, path: Path, first_row: int) -> Ids:
    if feature.hotness == 1 and not feature.ragged:
        return Ids(_numbers(column, feature.name, path=path, first_row=first_row))
    if column.null_count:
        _numbers(column, feature.name, path=path, first_row=first_row)
    values = column.flatten()
    if values.null_count:
        raise LayoutError(f"{path}: a list of {feature.name!r} after row {first_row} holds a null. Leave it out.")
    lengths = column.value_lengths().to_numpy(zero_copy_only=False).astype(np.int32)
    return Ids(values.to_numpy(zero_copy_only=False), lengths)


def _damaged(path: Path, error: BaseException) -> LayoutError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return LayoutError(f"{path}: cannot be read as parquet: {reason[:200]}. It is damaged; copy or make it again.")
