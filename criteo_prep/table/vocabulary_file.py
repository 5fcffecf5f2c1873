"""The vocabulary of a column of text or integers: counted codes -> ids, by THE id rule of columns/vocabulary.py.

vocabularies/<feature>.parquet    value (string, int64; uint32 for hexadecimal), id (int32), count (int64)
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from criteo_prep.preprocess.columns.vocabulary import (
    FILE_ROWS,
    VocabularyError,
    capped,
    capped_cardinality,
    file_schema,
    rank_by_count,
)
from criteo_prep.preprocess.parquet_file import open_parquet
from criteo_prep.table.cells import HEXADECIMAL, INTEGER, TEXT, is_integer_text
from criteo_prep.table.schema import Categorical


class CodeIds(NamedTuple):
    """The ids of the codes of a column.

    Attributes:
      ids: int32 [codes], the id of each code; 0 for code 0, and for values without an id.
      cardinality: number of ids, id 0 included.
    """

    ids: np.ndarray
    cardinality: int


def make_vocabulary(path: Path, values, *, counts: np.ndarray, kind: str, rules: Categorical) -> CodeIds:
    """Writes the vocabulary of counted codes.

    Args:
      path: the file to write.
      values: polars Series of all values, in the order of their codes.
      counts: int64 [values + 1], how often each code was seen.
      kind: INTEGER, TEXT or HEXADECIMAL.
      rules: the feature, with threshold, cap and type. Text of which every value is an integer becomes integers, except
        where the type is TEXT.
    """
    import polars

    cap = rules.cap
    if rules.type != TEXT and values.dtype == polars.String and len(values) and is_integer_text(values):
        values = values.cast(polars.Int64)
    place, values = _ordered(values)  # of each code, among the different values in ascending order
    totals = np.zeros(len(values), np.int64)
    np.add.at(totals, place, counts[1:])  # 7 and 007 are one integer
    ids = (totals & 0xFFFFFFFF).astype(np.uint32)
    wraps = {int(position): int(totals[position] >> 32) for position in np.flatnonzero(totals >> 32)}
    ranking = rank_by_count(ids, rules.threshold, wraps)
    kept = np.flatnonzero(ids)
    order = np.empty(len(kept), np.int64)
    order[ids[kept].astype(np.int64) - 1] = kept
    _write(path, values[order], counts=ranking.counts_of(1, ranking.num_kept + 1), kind=kind, cap=cap)
    of_values = np.where(ids > 0, capped(ids.astype(np.int64), cap), 0).astype(np.int32)
    return CodeIds(np.concatenate([np.zeros(1, np.int32), of_values[place]]), capped_cardinality(len(kept), cap))


def ids_of_codes(num_codes: int, known: np.ndarray) -> np.ndarray:
    """int32 [num_codes + 1], the id of each code, where the first codes are the values of a vocabulary in its order."""
    ids = np.zeros(num_codes + 1, np.int32)
    ids[1 : len(known) + 1] = known
    return ids


def read_vocabulary(path: Path) -> tuple:
    """(polars Series of the values, their ids int32 [n]) of a vocabulary file. Raises VocabularyError."""
    import polars
    import pyarrow.types

    with open_parquet(path, VocabularyError) as file:
        if file.schema_arrow.names != ["value", "id", "count"]:
            raise VocabularyError(f"{path}: is not a vocabulary. Name a dataset that criteo-prep preprocess made.")
        table = file.read(columns=["value", "id"])
    values, ids = polars.from_arrow(table.column(0)), table.column(1).to_numpy()
    if pyarrow.types.is_integer(table.schema.field(0).type):
        values = values.cast(polars.Int64)
    return values, ids


def kind_of(path: Path) -> str:
    """INTEGER, TEXT or HEXADECIMAL: the values of a vocabulary file. Only its footer is read."""
    import pyarrow

    with open_parquet(path, VocabularyError) as file:
        kind = file.schema_arrow.field("value").type
    return {pyarrow.int64(): INTEGER, pyarrow.uint32(): HEXADECIMAL}.get(kind, TEXT)


def _ordered(values) -> tuple[np.ndarray, object]:
    """(int64 [values], the place of each value among the different values; these values, ascending)."""
    import polars

    if values.dtype == polars.Int64:
        different, place = np.unique(values.to_numpy(), return_inverse=True)
        return place.astype(np.int64), polars.Series(different)
    order = values.arg_sort().to_numpy()
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return place, values[order]


def _write(path: Path, values, *, counts: np.ndarray, kind: str, cap: int | None) -> None:
    """Writes the file; its values are int64 where text became integers."""
    import polars
    import pyarrow
    import pyarrow.parquet

    is_text = values.dtype == polars.String
    wanted = pyarrow.string() if is_text else pyarrow.uint32() if kind == HEXADECIMAL else pyarrow.int64()
    schema = file_schema(wanted)
    with pyarrow.parquet.ParquetWriter(path, schema, use_dictionary=["count"]) as writer:
        for first in range(0, len(values), FILE_ROWS):
            part = values[first : first + FILE_ROWS].to_arrow().cast(wanted)
            ids = capped(np.arange(first + 1, first + 1 + len(part), dtype=np.int64), cap).astype(np.int32)
            table = pyarrow.table([part, ids, counts[first : first + len(part)]], schema=schema)
            writer.write_table(table, row_group_size=FILE_ROWS)
