"""DynamicTables: the dynamic tables of one rank."""

import time as clock
from collections.abc import Mapping, Sequence

import tensorflow as tf

from dlrm_tf2.embedding.dynamic.table import SAFE_CHECKS, DynamicSettings, DynamicTable, Touch
from dlrm_tf2.embedding.slab import Slab
from dlrm_tf2.ops import hash_table
from dlrm_tf2.sharding.dynamic_tables import DynamicTableConfig
from dlrm_tf2.sharding.plan import Shard
from dlrm_tf2.sharding.slabs import SlabKind
from dlrm_tf2.sharding.tables import Table


class DynamicTables:
    """The parts of the dynamic tables that a rank holds.

    Args:
      tables: all tables of the layer.
      slabs: the slabs of the rank.
      settings: what the dynamic tables have in common.

    Attributes:
      by_name: name -> the part of the table on this rank, where the rank owns buckets of the table.

    Raises:
      ValueError: safe_check is unknown.
    """

    def __init__(self, tables: Sequence[Table], slabs: Mapping[SlabKind, Slab], settings: DynamicSettings):
        if settings.safe_check not in SAFE_CHECKS:
            raise ValueError(f"safe_check {settings.safe_check!r}; it must be one of {', '.join(SAFE_CHECKS)}.")
        self._configs = {table.name: table for table in tables if isinstance(table, DynamicTableConfig)}
        places: dict[str, tuple[Shard, Slab]] = {
            shard.table: (shard, slab) for slab in slabs.values() for shard in slab.default_rows
        }
        self.by_name = {
            name: DynamicTable(config, places[name][0], slab=places[name][1], settings=settings)
            for name, config in self._configs.items()
            if name in places
        }

    def touch(
        self, step: tf.Tensor | int | None, time: tf.Tensor | int | None, *, scores: Mapping[str, object]
    ) -> Touch | None:
        """What a training step knows of its keys; None without a dynamic table.

        Args:
          step: the number of the step, from 1 on.
          time: nanoseconds; None asks the clock.
          scores: table -> the score of its keys in this step, for the tables with custom scores.

        Raises:
          ValueError: the step is missing, or a score is missing or unexpected.
        """
        custom = {name for name, config in self._configs.items() if config.score == "custom"}
        if unexpected := sorted(set(scores) - custom):
            raise ValueError(f"scores of {unexpected[0]!r}: no dynamic table with score 'custom' has this name.")
        if not self._configs:
            return None
        if step is None:
            raise ValueError(
                f"step is missing: the dynamic table {next(iter(self._configs))!r} needs the number of the step, 1, 2, "
                "..., in training. Evaluation gives training=False."
            )
        if missing := sorted(custom - set(scores)):
            raise ValueError(
                f"table {missing[0]!r}: its score is 'custom'; give lookup scores={{{missing[0]!r}: ...}}."
            )
        if time is None:
            time = tf.timestamp() * 1e9
        of_tables = {name: tf.cast(score, tf.int64) for name, score in scores.items()}
        return Touch(tf.cast(step, tf.int64), tf.cast(time, tf.int64), of_tables)

    def expire(self, step: int, time: int | None) -> None:
        """Erases the keys of all tables that have expired; `time` in nanoseconds, None asks the clock."""
        for table in self.by_name.values():
            table.expire(int(step), clock.time_ns() if time is None else int(time))

    def note_step(self, step: int, time: int | None) -> None:
        """Notes the last step; `time` in nanoseconds, None asks the clock."""
        for table in self.by_name.values():
            table.known_steps.note(clock.time_ns() if time is None else int(time), int(step))

    def trim_erased(self, before_step: int) -> None:
        """Forgets which keys left before a step."""
        for table in self.by_name.values():
            hash_table.trim_erased(table.index, tf.constant(before_step, tf.int64))
            table.known_steps.forget_departures(before_step)
