"""DynamicTable: the part of one dynamic table on one rank."""

import sys
from typing import NamedTuple

import tensorflow as tf

from dlrm_tf2.embedding.dynamic.step_times import StepTimes
from dlrm_tf2.embedding.native_rows import variables_of
from dlrm_tf2.embedding.rounding import table_key
from dlrm_tf2.embedding.slab import Slab
from dlrm_tf2.ops import hash_table
from dlrm_tf2.ops.hash_table import COUNTERS, IndexRules, KeyIndex
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.sharding.dynamic_tables import AfterCount, AfterSeconds, AfterSteps, DynamicTableConfig, WithProbability
from dlrm_tf2.sharding.plan import Shard

SAFE_CHECKS = ("error", "warn", "count")
_NANOSECONDS = 10**9
_NOT_INSERTABLE = COUNTERS.index("not_insertable")


class DynamicSettings(NamedTuple):
    """What the dynamic tables of a layer have in common.

    Attributes:
      seed: of the layer, the same on every rank.
      optimizer: decides the state of fresh rows; None where nothing is trained.
      safe_check: what happens when a key finds no room: "error", "warn" (once a table), or "count" only.
      log_erased: whether the indexes note the keys that leave.
    """

    seed: int
    optimizer: Optimizer | None
    safe_check: str = "error"
    log_erased: bool = False


class Touch(NamedTuple):
    """What a training step knows of the keys that it looks up.

    Attributes:
      step: int64 scalar, the number of the step from 1 on.
      time: int64 scalar, nanoseconds.
      scores: table with custom scores -> int64 scalar.
    """

    step: tf.Tensor
    time: tf.Tensor
    scores: dict[str, tf.Tensor]


class DynamicTable:
    """The keys of the buckets that a rank owns, and the rows of a slab that they have.

    Args:
      config: the table.
      shard: the rows of these buckets.
      slab: where the rows are.
      settings: what all dynamic tables have in common.

    Attributes:
      config, shard, slab: as given.
      index: the native index, key -> row of the table.
      step_times: the times of steps, where keys expire after seconds; else None.
    """

    def __init__(self, config: DynamicTableConfig, shard: Shard, *, slab: Slab, settings: DynamicSettings):
        self.config, self.shard, self.slab, self._settings = config, shard, slab, settings
        # Not the name alone: the rounding of the table's weights has random bits of its own.
        self._seed = table_key(f"{config.name}/keys", settings.seed)
        self._offset = slab.first_rows[shard] - shard.rows[0]
        rows = config.buckets.rows_per_bucket
        owned = range(shard.rows[0] // rows, shard.rows[1] // rows)
        self.index = KeyIndex(config.buckets, owned, _rules(config, self._seed, log_erased=settings.log_erased))
        self.step_times = None
        if isinstance(config.expiry, AfterSeconds):
            self.step_times = StepTimes(int(config.expiry.seconds * _NANOSECONDS))

    def rows_of(self, keys: tf.Tensor, touch: Touch | None) -> tf.Tensor:
        """The rows of the slab, int64 [n], of keys; the default row where a key is not stored.

        Args:
          keys: int64 [n], all of buckets that this rank owns, each as often as the batch has it.
          touch: in training; None stores no key and changes no score.
        """
        with tf.device("/CPU:0"):
            rows = hash_table.find(self.index, keys) if touch is None else self._find_or_insert(keys, touch)
            default = tf.constant(self.slab.default_rows[self.shard], tf.int64)
            return tf.where(rows < 0, default, rows + self._offset)

    def counters(self) -> dict[str, int]:
        """What has happened to the keys here so far: name of ops.hash_table.COUNTERS -> number."""
        return dict(zip(COUNTERS, hash_table.counters(self.index).numpy().tolist(), strict=True))

    def size(self) -> int:
        """How many keys are stored here."""
        return int(hash_table.size(self.index))

    def expire(self, step: int, time: int) -> None:
        """Erases the keys that have expired after a step.

        Args:
          step: the last step that was made.
          time: nanoseconds.
        """
        last = None
        if isinstance(self.config.expiry, AfterSteps):
            last = step - self.config.expiry.steps
        elif self.step_times is not None:
            self.step_times.note(time, step)
            last = self.step_times.last_step(time - int(self.config.expiry.seconds * _NANOSECONDS))
        if last is not None and last >= 0:
            hash_table.expire(self.index, tf.constant(last + 1, tf.int64))

    def _find_or_insert(self, keys: tf.Tensor, touch: Touch) -> tf.Tensor:
        """The rows of the table; fresh rows have their first values."""
        checked, scores = self._settings.safe_check != "count", tf.constant(0, tf.int64)
        if self.config.score in ("timestamp", "custom"):
            scores = touch.time if self.config.score == "timestamp" else touch.scores[self.config.name]
        before = hash_table.counters(self.index)[_NOT_INSERTABLE] if checked else None
        inserted = hash_table.find_or_insert(self.index, keys, step=touch.step, scores=scores)
        optimizer = self._settings.optimizer
        hash_table.initialize_rows(
            variables_of(self.slab),
            inserted.fresh_rows + self._offset,
            keys=inserted.fresh_keys,
            initializer=self.config.initializer,
            seed=self._seed,
            initial_state=[optimizer.initial_value(slot) for slot in optimizer.row_slots],
        )
        if checked:
            self._check(before, hash_table.counters(self.index)[_NOT_INSERTABLE])
        return inserted.rows

    def _check(self, before: tf.Tensor, after: tf.Tensor) -> None:
        """Complains about keys that found no room; `before` and `after` count them."""
        why = "all rows of their buckets are taken" + (
            "" if self.config.score == "no_eviction" else " by other keys of the same batch"
        )
        message = (
            f"table {self.config.name!r}: keys of a batch found no room, because {why}. They got the default vector. "
            f"Give the table a larger capacity than {self.config.capacity}"
        )
        if self._settings.safe_check == "error":
            tf.debugging.assert_equal(after, before, f"{message}, or the layer safe_check='warn' or 'count'.")
            return
        tf.cond(
            (before == 0) & (after > 0),
            lambda: tf.print("warning: " + message + ". From now on they are only counted.", output_stream=sys.stderr),
            tf.no_op,
        )


def _rules(config: DynamicTableConfig, seed: int, *, log_erased: bool) -> IndexRules:
    rules = IndexRules(config.score, seed=seed, log_erased=log_erased)
    if isinstance(config.admission, WithProbability):
        return rules._replace(admit_probability=config.admission.probability)
    if isinstance(config.admission, AfterCount):
        counter = config.admission.counter
        size = config.counted_keys if counter == "exact" else config.counter_bytes
        return rules._replace(admit_after=config.admission.threshold, counter=(counter, size))
    return rules
