"""Which columns of the layer's result come from where: pure Python, no TensorFlow, no communication.

The result has one line of numbers per sample, the features' vectors one after the other. A *piece* is the part of it
that one lookup in one shard makes. Shards that split a table by columns make neighbouring pieces; shards that split it
by rows make pieces of the same columns, which are added up: a row that is elsewhere counts as zeros.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dlrm_tf2.sharding.plan import Shard
from dlrm_tf2.sharding.tables import TableConfig


@dataclass(frozen=True)
class Piece:
    """Columns [start, start + width) of the result, as far as they come from `shard`.

    Attributes:
      feature: whose ids are looked up.
      position: which of a sample's ids; None when all of them are pooled.
    """

    feature: str
    position: int | None
    shard: Shard
    start: int

    @property
    def width(self) -> int:
        return self.shard.num_columns


class Layout:
    """The result's columns.

    Args:
      tables: of the layer; features lie in the result in their order, those of a table in its `features`.
      hotness: ids a sample of the features that do not have exactly one; None is any number, none included.

    Raises:
      ValueError: two tables claim a feature, `hotness` names none of them, or a table without combiner is asked for any
        number of ids.
    """

    def __init__(self, tables: Sequence[TableConfig], hotness: Mapping[str, int | None]):
        self.table_of: dict[str, TableConfig] = {}
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
            raise ValueError(f"hotness of {unknown[0]!r}: no table has this feature; there are {list(self.table_of)}.")

    def _add(self, feature: str, table: TableConfig, hotness: int | None) -> None:
        if table.combiner is None and hotness is None:
            raise ValueError(
                f"feature {feature!r}: any number of ids a sample, but the table {table.name!r} has no combiner. Give "
                "it 'sum' or 'mean', or the feature a fixed hotness."
            )
        if hotness is not None and hotness < 1:
            raise ValueError(f"feature {feature!r}: hotness {hotness}; it must be at least 1, or None for any number.")
        width = table.embedding_dim * (hotness if table.combiner is None else 1)
        self.table_of[feature], self.hotness[feature] = table, hotness
        self.columns[feature] = self.width, self.width + width
        self.width += width

    def pieces(self, shards: Iterable[Shard], features: Collection[str]) -> list[Piece]:
        """What the shards make of the features, shard after shard."""
        found = []
        for shard in shards:
            for feature, table in self.table_of.items():
                if table.name != shard.table or feature not in features:
                    continue
                positions = range(self.hotness[feature]) if table.combiner is None else [None]
                for number, position in enumerate(positions):
                    start = self.columns[feature][0] + number * table.embedding_dim + shard.columns[0]
                    found.append(Piece(feature, position, shard=shard, start=start))
        return found

    def fixed_columns(self, features: Iterable[str]) -> dict[str, slice]:
        """Where the ids of the features with a fixed hotness lie in IdBatch.fixed."""
        columns, start = {}, 0
        for feature in features:
            if (hotness := self.hotness[feature]) is not None:
                columns[feature] = slice(start, start + hotness)
                start += hotness
        return columns
