"""ResultLayout: which columns of the layer's result each feature has, and the pieces that they are made of.

The result has one row of numbers per sample, the vectors of the features one after the other. A *piece* is the part of
the result that one lookup in one shard makes. Shards that split a table by columns make pieces next to each other.
Shards that split a table by rows make pieces of the same columns, which are added up: each counts rows of other shards
as zeros. No TensorFlow.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dlrm_tf2.sharding.plan import Shard
from dlrm_tf2.sharding.tables import Table


@dataclass(frozen=True)
class Piece:
    """Columns [start, start + width) of the result, as far as they come from `shard`.

    Attributes:
      feature: the feature whose ids are looked up.
      position: which of a sample's ids is looked up; None when all of them are pooled.
      shard: where the ids are looked up.
      start: first column of the result.
    """

    feature: str
    position: int | None
    shard: Shard
    start: int

    @property
    def width(self) -> int:
        return self.shard.num_columns


class ResultLayout:
    """The columns of the result.

    Args:
      tables: the tables of the layer. The features lie in the result in the order of the tables, and the features of a
        table in the order of its `features`.
      hotness: ids per sample of the features that do not have exactly one; None for any number, 0 included.

    Attributes:
      table_of: feature -> its table.
      hotness: feature -> its ids per sample, for all features.
      columns: feature -> (start, stop), its columns.
      width: number of columns.

    Raises:
      ValueError: two tables claim a feature, `hotness` names an unknown feature, or a feature with any number of ids
        has a table without combiner.
    """

    def __init__(self, tables: Sequence[Table], hotness: Mapping[str, int | None]):
        self.table_of: dict[str, Table] = {}
        self.hotness: dict[str, int | None] = {}
        self.columns: dict[str, tuple[int, int]] = {}
        self.width = 0
        for table in tables:
            for feature in table.features:
                if feature in self.table_of:
                    raise ValueError(
                        f"feature {feature!r}: the tables {self.table_of[feature].name!r} and {table.name!r} both have "
                        "it. A feature looks up in one table."
                    )
                self._add(feature, table, hotness.get(feature, 1))
        if unknown := sorted(set(hotness) - set(self.table_of)):
            raise ValueError(
                f"hotness of {unknown[0]!r}: no table has this feature; the features are {list(self.table_of)}."
            )

    def _add(self, feature: str, table: Table, hotness: int | None) -> None:
        if table.combiner is None and hotness is None:
            raise ValueError(
                f"feature {feature!r}: any number of ids a sample, but the table {table.name!r} has no combiner. Give "
                "the table the combiner 'sum' or 'mean', or the feature a fixed hotness."
            )
        if hotness is not None and hotness < 1:
            raise ValueError(f"feature {feature!r}: hotness {hotness}; it must be at least 1, or None for any number.")
        width = table.embedding_dim * ((hotness or 1) if table.combiner is None else 1)
        self.table_of[feature], self.hotness[feature] = table, hotness
        self.columns[feature] = self.width, self.width + width
        self.width += width

    def pieces(self, shards: Iterable[Shard], features: Collection[str]) -> list[Piece]:
        """The pieces that the shards make for the features, shard after shard."""
        pieces = []
        for shard in shards:
            for feature, table in self.table_of.items():
                if table.name != shard.table or feature not in features:
                    continue
                positions = range(self.hotness[feature] or 1) if table.combiner is None else [None]
                for number, position in enumerate(positions):
                    start = self.columns[feature][0] + number * table.embedding_dim + shard.columns[0]
                    pieces.append(Piece(feature, position, shard=shard, start=start))
        return pieces

    def fixed_columns(self, features: Iterable[str]) -> dict[str, slice]:
        """For the features with a fixed hotness, the columns that their ids have in IdBatch.fixed."""
        columns, start = {}, 0
        for feature in features:
            if (hotness := self.hotness[feature]) is not None:
                columns[feature] = slice(start, start + hotness)
                start += hotness
        return columns
