"""The categorical features: values -> codes -> counts -> vocabulary -> ids in their final files.

Features with one vocabulary are one group; several groups are in work at a time, and share the memory limit. The
journal records each finished feature, whose work files are then deleted.
"""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.feature_spec import minimal_dtype
from criteo_prep.feature_spec_files import OFFSET
from criteo_prep.intact import check_file
from criteo_prep.manifest import block_entry
from criteo_prep.messages import shown
from criteo_prep.parallel import in_order
from criteo_prep.preprocess.columns.encoder import write_ids
from criteo_prep.preprocess.columns.memory import MemoryPlan, PreflightError
from criteo_prep.sizes import shown_bytes
from criteo_prep.table.arrange import write_rows
from criteo_prep.table.cells import TEXT, ColumnKind
from criteo_prep.table.document_values import SchemaError
from criteo_prep.table.request import TableWork, is_ragged
from criteo_prep.table.schema import Categorical
from criteo_prep.table.splits import split_folder
from criteo_prep.table.value_codes import IntegerCodes, TextCodes
from criteo_prep.table.vocabulary_file import CodeIds, ids_of_codes, kind_of, make_vocabulary, read_vocabulary
from criteo_prep.table.work_files import RowNumbers, value_blocks

_BLOCK_ROWS = 1 << 17

CodeTable = TextCodes | IntegerCodes


class TableColumns:
    """Turns the values of the work files into the dataset's categorical files.

    Args:
      work: the parsed rows, and the dataset to make.
      memory: memory limit and number of threads.
      advance: called with the number of rows of a feature that are done, twice for each row.
    """

    def __init__(self, work: TableWork, memory: MemoryPlan, advance: Callable[[int], None]):
        self._work, self._memory = work, memory
        self._lock, self._advance_all = threading.Lock(), advance
        self._vocabularies = work.root / "vocabularies"
        at_a_time = min(memory.workers, len(work.schema.groups)) or 1
        self._budget = max(0, memory.limit_bytes - memory.base_bytes) // at_a_time

    def run(self) -> tuple[list[int], dict[str, dict]]:
        """Encodes the features that are not finished.

        Returns:
          The cardinality of each feature, and the manifest's entries for the files of the features.
        """
        self._vocabularies.mkdir(exist_ok=True)
        for split in self._work.splits.num_rows:
            split_folder(self._work.root, split)
        cardinalities, files = {}, {}
        groups = self._work.schema.groups
        for numbers, documents in zip(
            groups, in_order(self._do_group, groups, workers=self._memory.workers), strict=True
        ):
            for number, document in zip(numbers, documents, strict=True):
                cardinalities[number] = document["cardinality"]
                files |= document["files"]
        return [cardinalities[number] for number in sorted(cardinalities)], files

    def _do_group(self, numbers: tuple[int, ...]) -> list[dict]:
        """Makes the files of the features of one vocabulary. Returns the journal's document of each."""
        journal = self._work.journal
        features = [self._work.schema.categorical[number] for number in numbers]
        documents = [journal.feature(each.feature) for each in features]
        if not all(documents):
            kinds = [journal.kinds[number] for number in numbers]
            _check_kinds(features, kinds)
            self._check_given(features, kinds)
            ids = self._ids_of_codes(features, kinds)
            documents = []
            for each, kind in zip(features, kinds, strict=True):
                vocabulary = f"vocabularies/{each.feature}.parquet"
                files = {vocabulary: block_entry(self._work.root / vocabulary)}
                for split in self._work.splits.num_rows:
                    files |= self._write_split(each, kind, split=split, ids=ids)
                documents.append({"cardinality": ids.cardinality, "files": files})
            for each, document in zip(features, documents, strict=True):
                journal.finish_feature(each.feature, document)
        for each in features:
            for ending in ("values", "lengths", "codes"):
                (journal.folder / f"{each.feature}.{ending}").unlink(missing_ok=True)
        return documents

    def _ids_of_codes(self, features: list[Categorical], kinds: list[ColumnKind]) -> CodeIds:
        """Writes the codes and the vocabularies of a group. Returns the ids of the codes."""
        path = self._vocabularies / f"{features[0].feature}.parquet"
        if given := self._work.request.given:
            for each in features:
                copy = self._vocabularies / f"{each.feature}.parquet"
                source = given.vocabularies.folder / copy.name
                shutil.copyfile(source, copy)
                check_file(copy, given.vocabularies.entries[each.feature], stands_for=source)
            values, known = read_vocabulary(path)
            table = (TextCodes if kind_of(path) == TEXT else IntegerCodes)(values)
            self._code(features, kinds, table=table)
            cardinality = given.spec.features[features[0].feature].cardinality
            return CodeIds(ids_of_codes(table.num_values, known), cardinality)
        table = TextCodes() if kinds[0].values == TEXT else IntegerCodes()
        counts = self._code(features, kinds, table=table)
        ids = make_vocabulary(path, table.values(), counts=counts, kind=kinds[0].values, rules=features[0])
        for each in features[1:]:
            shutil.copyfile(path, self._vocabularies / f"{each.feature}.parquet")
        return ids

    def _code(self, features: list[Categorical], kinds: list[ColumnKind], *, table: CodeTable) -> np.ndarray:
        """Writes the codes of a group's features. Returns int64 [values + 1], how often each code was seen."""
        only_train = self._work.request.vocabulary_days == "train"
        counts = np.zeros(1 << 10, np.int64)
        for each, kind in zip(features, kinds, strict=True):
            with open(self._codes_of(each), "wb") as file:
                for values in value_blocks(self._work.journal.folder, each.feature, kind):
                    codes = table.codes(_converted(values, isinstance(table, TextCodes)))
                    file.write(codes.data)
                    self._check_memory(each, table)
                    if table.num_values >= len(counts):
                        counts = np.concatenate([counts, np.zeros(table.num_values + len(counts), np.int64)])
                    if not only_train:
                        _count(codes, counts)
                    self._advance(len(values) if not kind.is_list else 0)
        if only_train:
            for each, kind in zip(features, kinds, strict=True):
                for codes, _ in self._codes(each, kind, split="train"):
                    _count(codes, counts)
        return counts[: table.num_values + 1]

    def _write_split(self, each: Categorical, kind: ColumnKind, *, split: str, ids: CodeIds) -> dict[str, dict]:
        """Writes the ids of a feature in a split. Returns the manifest's entries for the files."""
        name, num_rows = f"{split}/{each.feature}.bin", self._work.splits.num_rows[split]
        path, dtype = self._work.root / name, np.dtype(minimal_dtype(ids.cardinality))
        seed = self._work.seed if split == "train" else None
        final = ids.ids.astype(dtype)
        lengths: list[np.ndarray] = []

        def blocks() -> Iterator[np.ndarray]:
            for codes, of_rows in self._codes(each, kind, split=split):
                lengths.append(np.array(of_rows) if is_ragged(each.hotness, kind) else np.empty(0, np.int32))
                block = final[codes]
                yield block if each.hotness is None else _filled(block, of_rows, each.hotness)

        files = {name: write_rows(path, blocks(), num_rows=num_rows, form=(dtype, each.hotness or 1), seed=seed)}
        if is_ragged(each.hotness, kind):
            name = f"{split}/{each.feature}_offsets.bin"
            files[name] = write_ids(
                self._work.root / name, _offsets(lengths), num_rows=num_rows + 1, dtype=OFFSET, seed=None
            )
        self._advance(num_rows)
        return files

    def _codes(self, each: Categorical, kind: ColumnKind, *, split: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (codes uint32, number of values of each row int32) of the rows of a split, block after block."""
        work, place = self._work, 0
        with RowNumbers(self._codes_of(each), np.uint32) as codes_file, self._lengths(each, kind) as lengths_file:
            for start in range(0, work.journal.num_rows, _BLOCK_ROWS):
                stop = min(start + _BLOCK_ROWS, work.journal.num_rows)
                lengths = lengths_file.read(start, stop) if kind.is_list else np.ones(stop - start, np.int32)
                begin, place = place, place + int(lengths.sum())
                if not work.splits.lie_in(split, start, stop):
                    continue
                rows = work.splits.rows(split, start, stop)
                codes = codes_file.read(begin, place)
                if kind.is_list:
                    chosen = np.zeros(stop - start, bool)
                    chosen[rows] = True
                    yield codes[np.repeat(chosen, lengths)], lengths[rows]
                else:
                    yield codes[rows], lengths[rows]

    def _lengths(self, each: Categorical, kind: ColumnKind) -> RowNumbers:
        path = self._work.journal.folder / f"{each.feature}.lengths"
        return RowNumbers(path if kind.is_list else None, np.int32)

    def _codes_of(self, each: Categorical) -> Path:
        return self._work.journal.folder / f"{each.feature}.codes"

    def _check_given(self, features: list[Categorical], kinds: list[ColumnKind]) -> None:
        """New rows have lists where the rows of the existing dataset have lists."""
        given = self._work.request.given
        for each, kind in zip(features, kinds, strict=True):
            if given and given.spec.features[each.feature].ragged != is_ragged(each.hotness, kind):
                here, there = ("lists", "single values") if kind.is_list else ("single values", "lists")
                raise SchemaError(f"column {shown(each.column)} has {here}, but the existing dataset has {there}.")

    def _check_memory(self, each: Categorical, table: CodeTable) -> None:
        if table.memory_bytes > self._budget:
            needed = self._memory.limit_bytes - self._budget + 2 * table.memory_bytes
            raise PreflightError(
                f"column {shown(each.column)}: more than {table.num_values:,} distinct values do not fit the memory "
                f"limit of {shown_bytes(self._memory.limit_bytes)}. Give a --memory_limit of at least "
                f"{shown_bytes(needed)}, or fewer --workers; what is done so far is kept."
            )

    def _advance(self, num_rows: int) -> None:
        with self._lock:
            self._advance_all(num_rows)


def _check_kinds(features: list[Categorical], kinds: list[ColumnKind]) -> None:
    for each, kind in zip(features, kinds, strict=True):
        if kind.values != kinds[0].values:
            raise SchemaError(
                f"column {shown(each.column)} has {kind.values} values and {shown(features[0].column)} "
                f"{kinds[0].values} values, but they share a vocabulary. Give both a type in the schema (type: text)."
            )


def _converted(values, is_text: bool):
    """The values in the type of a vocabulary; a value that cannot have that type is null, as it is not in it."""
    import polars

    wanted = polars.String if is_text else polars.Int64
    return values if values.dtype == wanted else values.cast(wanted, strict=False)


def _filled(ids: np.ndarray, lengths: np.ndarray, hotness: int) -> np.ndarray:
    """[rows * hotness]: the ids of each row, and id 0 in the places that a short row leaves."""
    out = np.zeros((len(lengths), hotness), ids.dtype)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    starts = np.cumsum(lengths) - lengths
    out[rows, np.arange(len(ids)) - np.repeat(starts, lengths)] = ids
    return out.reshape(-1)


def _offsets(lengths: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields int64 offsets of rows with these numbers of ids, the first and the last offset included."""
    yield np.zeros(1, OFFSET)
    total = 0
    for block in lengths:
        offsets = total + np.cumsum(block, dtype=OFFSET)
        total = int(offsets[-1]) if len(offsets) else total
        yield offsets


@compiled
def _count(codes, counts):
    """Adds 1 to the count of each code."""
    for i in range(codes.size):
        counts[codes[i]] += 1
