"""What a table asks of the ranks that hold it: memory, rows to fetch, vectors to send. Pure Python, no TensorFlow."""

from collections.abc import Mapping

from dlrm_tf2.embedding.tables import FLOAT_BYTES, TableConfig

# Optimizer -> floats of state for each weight, and for each row of a shard.
STATE = {"sgd": (0, 0), "adagrad": (1, 0), "rowwise_adagrad": (0, 1), "adam": (2, 0)}

# Ids are ranked by how often they occur, and that is about what a power law with this exponent says. It matters only
# for tables that are cut by rows: their first rows get most of the ids.
# Source: the exponent of the published synthetic models.
_ALPHA = 1.05


def state_bytes(optimizer: str, num_rows: int, num_columns: int) -> int:
    """Bytes of an optimizer's state beside a rectangle of weights."""
    per_weight, per_row = STATE[optimizer]
    return FLOAT_BYTES * num_rows * (num_columns * per_weight + per_row)


def fetched_per_sample(table: TableConfig, hotness: Mapping[str, float]) -> float:
    """Ids that a sample looks up in the table. Times the width of a shard, that is the elements it fetches."""
    return sum(hotness.get(feature, 1) for feature in table.features)


def vectors_per_sample(table: TableConfig, hotness: Mapping[str, float]) -> float:
    """Vectors that a sample gets from the table: one for each feature, one for each id without a combiner."""
    return len(table.features) if table.combiner else fetched_per_sample(table, hotness)


def share_of_ids(table: TableConfig, rows: tuple[int, int]) -> float:
    """The part of the lookups in a table that hits rows [rows[0], rows[1])."""
    if rows == (0, table.num_rows):
        return 1.0
    below_start, below_stop = (((row + 1) ** (1 - _ALPHA) - 1) for row in rows)
    return (below_stop - below_start) / ((table.num_rows + 1) ** (1 - _ALPHA) - 1)
