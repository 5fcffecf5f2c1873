"""The synthetic models of NVIDIA's distributed-embeddings, as data: tiny to colossal, and criteo.

Source: distributed-embeddings, examples/benchmarks/synthetic_models, configurations "v3" (commit 4cb42d4).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from dlrm_tf2.sharding.tables import TableConfig


@dataclass(frozen=True)
class TableGroup:
    """Tables of the same shape.

    Attributes:
      num_tables: number of tables.
      hotness: ids per sample of each feature that looks up in a table of this group. These features share the table.
      num_rows: rows of each table.
      embedding_dim: width of each table.
    """

    num_tables: int
    hotness: tuple[int, ...]
    num_rows: int
    embedding_dim: int


@dataclass(frozen=True)
class ZooModel:
    """One synthetic model: embeddings summed per feature, pooled, joined with the numericals, and an MLP.

    Attributes:
      name: as published.
      groups: the tables, in the order of the model's inputs.
      num_numerical: numerical columns; they follow the embeddings in the input of the MLP.
      mlp_dims: layer widths of the MLP, the last width 1 included.
      pooling: window and stride of the average pooling over the joined embeddings; None for no pooling.
    """

    name: str
    groups: tuple[TableGroup, ...]
    num_numerical: int
    mlp_dims: tuple[int, ...]
    pooling: int | None = None

    def scaled(self, scale: float) -> "ZooModel":
        """The model with `scale` times the rows: max(2, ceil(rows * scale)) in each table."""
        if scale == 1:
            return self
        groups = (replace(group, num_rows=max(2, math.ceil(group.num_rows * scale))) for group in self.groups)
        return replace(self, groups=tuple(groups))

    @cached_property
    def tables(self) -> tuple[TableConfig, ...]:
        """The tables table_0, table_1, ... with the features cat_0, cat_1, ..., both in the order of the inputs."""
        tables, feature = [], 0
        for group in self._each_table():
            names = tuple(f"cat_{feature + i}" for i in range(len(group.hotness)))
            feature += len(names)
            tables.append(
                TableConfig(
                    f"table_{len(tables)}",
                    group.num_rows,
                    embedding_dim=group.embedding_dim,
                    combiner="sum",
                    features=names,
                )
            )
        return tuple(tables)

    @cached_property
    def hotness(self) -> dict[str, int]:
        """Feature -> ids per sample, in the order of the inputs."""
        each_feature = (hotness for group in self._each_table() for hotness in group.hotness)
        return {f"cat_{i}": hotness for i, hotness in enumerate(each_feature)}

    @property
    def output_width(self) -> int:
        """Width of a sample's joined embeddings."""
        return sum(group.num_tables * len(group.hotness) * group.embedding_dim for group in self.groups)

    @property
    def mlp_input_width(self) -> int:
        """Width of the MLP's input: the pooled embeddings and the numericals."""
        return -(-self.output_width // (self.pooling or 1)) + self.num_numerical

    @property
    def num_dense_weights(self) -> int:
        """Weights of the MLP, biases included."""
        return sum((a + 1) * b for a, b in self._layers())

    @property
    def forward_operations(self) -> int:
        """Multiplications and additions of the MLP's matrix products for one sample, forward."""
        return sum(2 * a * b for a, b in self._layers())

    def _layers(self) -> Iterator[tuple[int, int]]:
        """Rows and columns of each kernel."""
        return zip((self.mlp_input_width, *self.mlp_dims), self.mlp_dims, strict=False)

    def _each_table(self) -> Iterator[TableGroup]:
        for group in self.groups:
            for _ in range(group.num_tables):
                yield group


_TINY = ZooModel(
    "tiny",
    (
        TableGroup(1, (1, 10), num_rows=10_000, embedding_dim=8),
        TableGroup(1, (1, 10), num_rows=1_000_000, embedding_dim=16),
        TableGroup(1, (1, 10), num_rows=25_000_000, embedding_dim=16),
        TableGroup(1, (1,), num_rows=25_000_000, embedding_dim=16),
        TableGroup(16, (1,), num_rows=10, embedding_dim=8),
        TableGroup(10, (1,), num_rows=1_000, embedding_dim=8),
        TableGroup(4, (1,), num_rows=10_000, embedding_dim=8),
        TableGroup(2, (1,), num_rows=100_000, embedding_dim=16),
        TableGroup(19, (1,), num_rows=1_000_000, embedding_dim=16),
    ),
    num_numerical=10,
    mlp_dims=(256, 128, 1),
)

_SMALL = ZooModel(
    "small",
    (
        TableGroup(5, (1, 30), num_rows=10_000, embedding_dim=16),
        TableGroup(3, (1, 30), num_rows=4_000_000, embedding_dim=32),
        TableGroup(1, (1, 30), num_rows=50_000_000, embedding_dim=32),
        TableGroup(1, (1,), num_rows=50_000_000, embedding_dim=32),
        TableGroup(30, (1,), num_rows=10, embedding_dim=16),
        TableGroup(30, (1,), num_rows=1_000, embedding_dim=16),
        TableGroup(5, (1,), num_rows=10_000, embedding_dim=16),
        TableGroup(5, (1,), num_rows=100_000, embedding_dim=32),
        TableGroup(27, (1,), num_rows=4_000_000, embedding_dim=32),
    ),
    num_numerical=10,
    mlp_dims=(512, 256, 128, 1),
)

_MEDIUM = ZooModel(
    "medium",
    (
        TableGroup(20, (1, 50), num_rows=100_000, embedding_dim=64),
        TableGroup(5, (1, 50), num_rows=10_000_000, embedding_dim=64),
        TableGroup(1, (1, 50), num_rows=100_000_000, embedding_dim=128),
        TableGroup(1, (1,), num_rows=100_000_000, embedding_dim=128),
        TableGroup(80, (1,), num_rows=10, embedding_dim=32),
        TableGroup(60, (1,), num_rows=1_000, embedding_dim=32),
        TableGroup(80, (1,), num_rows=100_000, embedding_dim=64),
        TableGroup(24, (1,), num_rows=200_000, embedding_dim=64),
        TableGroup(40, (1,), num_rows=10_000_000, embedding_dim=64),
    ),
    num_numerical=25,
    mlp_dims=(1024, 512, 256, 128, 1),
    pooling=7,
)

_LARGE = ZooModel(
    "large",
    (
        TableGroup(40, (1, 100), num_rows=100_000, embedding_dim=64),
        TableGroup(16, (1, 100), num_rows=15_000_000, embedding_dim=64),
        TableGroup(1, (1, 100), num_rows=200_000_000, embedding_dim=128),
        TableGroup(1, (1,), num_rows=200_000_000, embedding_dim=128),
        TableGroup(100, (1,), num_rows=10, embedding_dim=32),
        TableGroup(100, (1,), num_rows=10_000, embedding_dim=32),
        TableGroup(160, (1,), num_rows=100_000, embedding_dim=64),
        TableGroup(50, (1,), num_rows=500_000, embedding_dim=64),
        TableGroup(144, (1,), num_rows=15_000_000, embedding_dim=64),
    ),
    num_numerical=100,
    mlp_dims=(2048, 1024, 512, 256, 1),
    pooling=8,
)

_JUMBO = ZooModel(
    "jumbo",
    (
        TableGroup(50, (1, 200), num_rows=100_000, embedding_dim=128),
        TableGroup(24, (1, 200), num_rows=20_000_000, embedding_dim=128),
        TableGroup(1, (1, 200), num_rows=400_000_000, embedding_dim=256),
        TableGroup(1, (1,), num_rows=400_000_000, embedding_dim=256),
        TableGroup(100, (1,), num_rows=10, embedding_dim=32),
        TableGroup(200, (1,), num_rows=10_000, embedding_dim=64),
        TableGroup(350, (1,), num_rows=100_000, embedding_dim=128),
        TableGroup(80, (1,), num_rows=1_000_000, embedding_dim=128),
        TableGroup(216, (1,), num_rows=20_000_000, embedding_dim=128),
    ),
    num_numerical=200,
    mlp_dims=(2048, 1024, 512, 256, 1),
    pooling=20,
)

_COLOSSAL = ZooModel(
    "colossal",
    (
        TableGroup(100, (1, 300), num_rows=100_000, embedding_dim=128),
        TableGroup(50, (1, 300), num_rows=40_000_000, embedding_dim=256),
        TableGroup(1, (1, 300), num_rows=2_000_000_000, embedding_dim=256),
        TableGroup(1, (1,), num_rows=1_000_000_000, embedding_dim=256),
        TableGroup(100, (1,), num_rows=10, embedding_dim=32),
        TableGroup(400, (1,), num_rows=10_000, embedding_dim=128),
        TableGroup(100, (1,), num_rows=100_000, embedding_dim=128),
        TableGroup(800, (1,), num_rows=1_000_000, embedding_dim=128),
        TableGroup(450, (1,), num_rows=40_000_000, embedding_dim=256),
    ),
    num_numerical=500,
    mlp_dims=(4096, 2048, 1024, 512, 256, 1),
    pooling=30,
)

_CRITEO = ZooModel(
    "criteo",
    (TableGroup(26, (1,), num_rows=100_000, embedding_dim=128),),
    num_numerical=13,
    mlp_dims=(512, 256, 128, 1),
)

MODELS = {model.name: model for model in (_TINY, _SMALL, _MEDIUM, _LARGE, _JUMBO, _COLOSSAL, _CRITEO)}

# Milliseconds per iteration of each model by number of GPUs: DGX-A100, global batch 65536, Adagrad.
# Source: README of distributed-embeddings' synthetic models.
PUBLISHED_MS = {
    "tiny": {1: 24.433, 8: 5.537, 16: 4.867},
    "small": {1: 67.355, 8: 17.203, 16: 12.461, 32: 11.839},
    "medium": {8: 63.393, 16: 46.636, 32: 37.732, 128: 27.329},
    "large": {32: 67.57, 128: 37.934},
    "jumbo": {128: 124.3},
}
PUBLISHED_BATCH_SIZE = 65536
