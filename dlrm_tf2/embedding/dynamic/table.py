"""DynamicTable: the part of one dynamic table on one rank."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from dlrm_tf2.embedding.dynamic.known_steps import KnownSteps
from dlrm_tf2.embedding.dynamic.step_times import StepTimes
from dlrm_tf2.embedding.native_rows import variables_of
from dlrm_tf2.embedding.rounding import table_key
from dlrm_tf2.embedding.slab import WEIGHTS, Slab
from dlrm_tf2.ops import hash_table
from dlrm_tf2.ops.hash_table import COUNTERS, IndexRules, KeyIndex, Listed
from dlrm_tf2.ops.row_cache import CACHE_COUNTERS
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.sharding.dynamic_tables import AfterCount, AfterSeconds, AfterSteps, DynamicTableConfig, WithProbability
from dlrm_tf2.sharding.plan import Shard

SAFE_CHECKS = ("error", "warn", "count")
_NANOSECONDS = 10**9
_COUNTED_BY = {"exact": "counted_keys", "sketch": "sketch_cells"}
_ROWS_AT_ONCE = 1 << 16
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
      known_steps: what is known of past steps, for dumps of changes.
    """

    def __init__(self, config: DynamicTableConfig, shard: Shard, *, slab: Slab, settings: DynamicSettings):
        self.config, self.shard, self.slab, self._settings = config, shard, slab, settings
        # Not the name alone: the rounding of the table's weights has random bits of its own.
        self._seed = table_key(f"{config.name}/keys", settings.seed)
        self._offset = slab.first_rows[shard] - shard.rows[0]  # without a cache
        self._cache = slab.caches.get(shard)
        with tf.device("/CPU:0"):
            self._asked = tf.Variable([0, 0], dtype=tf.int64, trainable=False)  # keys found and missed by ask_ahead
        rows = config.buckets.rows_per_bucket
        owned = range(shard.rows[0] // rows, shard.rows[1] // rows)
        self.index = KeyIndex(config.buckets, owned, _rules(config, self._seed, log_erased=settings.log_erased))
        self._counter = config.admission.counter if isinstance(config.admission, AfterCount) else None
        self.step_times, self.known_steps = None, KnownSteps()
        if isinstance(config.expiry, AfterSeconds):
            self.step_times = StepTimes(int(config.expiry.seconds * _NANOSECONDS))

    def rows_of(self, keys: tf.Tensor, touch: Touch | None) -> tf.Tensor:
        """The rows of the slab, int64 [n], of keys; the default row where a key is not stored.

        Args:
          keys: int64 [n], all of buckets that this rank owns, each as often as the batch has it.
          touch: in training; None stores no key and changes no score.
        """
        with tf.device(hash_table.device()):
            if touch is not None:
                return self._find_or_insert(keys, touch)
            rows, _ = self._place(hash_table.find(self.index, keys), tf.zeros([0], tf.int64), written=False)
            self.slab.fetch(rows, [WEIGHTS])
            return rows

    def ask_ahead(self, keys: tf.Tensor, slots: Sequence[str]) -> None:
        """Asks for the rows of keys [n] that are in a file, before a later call of `rows_of`, and does not wait.

        Args:
          slots: what will be read, where a row is not read as a whole.
        """
        with tf.device("/CPU:0"):
            rows = hash_table.find(self.index, keys)
            found = tf.math.count_nonzero(rows >= 0, dtype=tf.int64)
            self._asked.assign_add(tf.stack([found, tf.size(rows, tf.int64) - found]))
            if self._cache is not None:
                self._cache.ask(tf.where(rows < 0, rows, rows - self.shard.rows[0]))
            else:
                self.slab.fetch(tf.where(rows < 0, rows, rows + self._offset), slots, ahead=True)

    def counters(self) -> dict[str, int]:
        """What has happened to the keys here so far: name of ops.hash_table.COUNTERS -> number."""
        counted = dict(zip(COUNTERS, hash_table.counters(self.index).numpy().tolist(), strict=True))
        for name, asked in zip(("found", "missed"), self._asked.numpy().tolist(), strict=True):
            counted[name] -= asked  # that was no lookup
        return counted

    def cache_counters(self) -> dict[str, int]:
        """What has happened to the cache so far: name of ops.row_cache.CACHE_COUNTERS -> number; 0 without a cache."""
        return dict.fromkeys(CACHE_COUNTERS, 0) if self._cache is None else self._cache.counters()

    def size(self) -> int:
        """How many keys are stored here."""
        return int(hash_table.size(self.index))

    @property
    def num_rows(self) -> int:
        """Rows of the whole table."""
        return self.config.num_rows

    def clear(self, step: int = 0) -> None:
        """Forgets all keys, and what the counter of admission knows; `step` is the last step of what is stored next."""
        hash_table.clear(self.index)
        self.known_steps.begin_after(step)

    def stored(self) -> Listed:
        """The keys that are stored here, in the order of their rows, as arrays."""
        listed = hash_table.export_batch(self.index, self.shard.rows[0], self.shard.num_rows)
        return Listed(*(tensor.numpy() for tensor in listed))

    def owns(self, keys: np.ndarray) -> np.ndarray:
        """Whether each key, int64 [n], belongs here: bool [n]."""
        buckets = self.config.buckets.bucket_of(keys)
        return (buckets >= self.index.owned.start) & (buckets < self.index.owned.stop)

    def assign(self, keys: np.ndarray, *, scores: np.ndarray, steps: np.ndarray, in_order: bool = False) -> np.ndarray:
        """Stores keys that belong here without admission; the caller writes their rows.

        Args:
          keys, scores, steps: int64 [n]; each key once.
          in_order: whether the keys are in the order of the rows that they had in such a table: they get the same rows
            again, if none of its rows was free before them.

        Returns:
          The row of the table of each key, int64 [n]; -1 where its bucket is full of keys with higher scores.
        """
        if in_order:
            hash_table.assign(self.index, keys, scores=-np.arange(len(keys)), steps=steps)  # the first come first
        return hash_table.assign(self.index, keys, scores=scores, steps=steps).numpy()

    def counted(self) -> dict[str, np.ndarray]:
        """What the counter of admission knows here, by name, int64 [m] each: {} if keys are not counted.

        An exact counter has `counted_keys` and their `counts`, a sketch `sketch_cells` and their `counts`.
        """
        if self._counter is None:
            return {}
        counted, counts = hash_table.export_admission(self.index)
        return {_COUNTED_BY[self._counter]: counted.numpy(), "counts": counts.numpy()}

    def assign_counted(self, counted: dict[str, np.ndarray], same_size: bool) -> bool:
        """Takes what `counted` gave on all ranks together. Returns whether it could: counters must be of one kind.

        Args:
          same_size: whether the tables have the same size, without which the cells of sketches differ.
        """
        name = _COUNTED_BY.get(self._counter)
        if name not in counted or (self._counter == "sketch" and not same_size):
            return not counted
        hash_table.assign_admission(self.index, counted[name], counted["counts"])
        return True

    def read(self, rows: np.ndarray, slot: str) -> np.ndarray:
        """The weights, or a slot of the optimizer, of rows [n] of the table: [n, width of the slot]."""
        return self.slab.read_at(self.shard, slot, rows=rows)

    def write(self, rows: np.ndarray, slot: str, values: np.ndarray) -> None:
        """Overwrites the weights, or a slot of the optimizer, of rows [n] of the table, each at most once.

        Args:
          values: [n, width]; of a slot with one number a row, the first column counts.
        """
        self.slab.write_at(self.shard, slot, rows=rows, values=values)

    def erase_small(self, least_norm: float) -> int:
        """Erases the keys whose weights have an L2 norm below `least_norm`. Returns how many were erased."""
        erased, (first, stop) = 0, self.shard.rows
        for start in range(first, stop, _ROWS_AT_ONCE):
            num_rows = min(_ROWS_AT_ONCE, stop - start)
            listed = hash_table.export_batch(self.index, tf.constant(start, tf.int64), tf.constant(num_rows, tf.int64))
            norms = np.linalg.norm(self.read(listed.rows.numpy(), WEIGHTS), axis=1)
            small = listed.keys.numpy()[norms < least_norm]
            hash_table.erase(self.index, tf.constant(small, tf.int64))
            erased += len(small)
        return erased

    def expire(self, step: int, time: int) -> None:
        """Erases the keys that have expired after a step.

        Args:
          step: the last step that was made.
          time: nanoseconds.
        """
        last = None
        self.known_steps.note(time, step)
        if isinstance(self.config.expiry, AfterSteps):
            last = step - self.config.expiry.steps
        elif self.step_times is not None:
            self.step_times.note(time, step)
            last = self.step_times.last_step(time - int(self.config.expiry.seconds * _NANOSECONDS))
        if last is not None and last >= 0:
            hash_table.expire(self.index, tf.constant(last + 1, tf.int64))

    def _find_or_insert(self, keys: tf.Tensor, touch: Touch) -> tf.Tensor:
        """The rows of the slab; fresh rows have their first values."""
        checked, scores = self._settings.safe_check != "count", tf.constant(0, tf.int64)
        if self.config.score in ("timestamp", "custom"):
            scores = touch.time if self.config.score == "timestamp" else touch.scores[self.config.name]
        before = hash_table.counters(self.index)[_NOT_INSERTABLE] if checked else None
        inserted = hash_table.find_or_insert(self.index, keys, step=touch.step, scores=scores)
        rows, fresh_rows = self._place(inserted.rows, inserted.fresh_rows, written=True)
        optimizer = self._settings.optimizer
        hash_table.initialize_rows(
            variables_of(self.slab),
            fresh_rows,
            keys=inserted.fresh_keys,
            initializer=self.config.initializer,
            seed=self._seed,
            initial_state=[optimizer.initial_value(slot) for slot in optimizer.row_slots],
        )
        if checked:
            self._check(before, hash_table.counters(self.index)[_NOT_INSERTABLE])
        self.slab.fetch(rows, [WEIGHTS, *self.slab.slots])
        return rows

    def _place(self, rows: tf.Tensor, fresh_rows: tf.Tensor, *, written: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """The rows of the slab that hold rows of the table now; the default row for -1.

        Args:
          rows: [n].
          fresh_rows: those whose first values are to be written, [m].
          written: whether rows will be updated.
        """
        default = self.slab.default_rows[self.shard]
        if self._cache is None:
            return tf.where(rows < 0, tf.constant(default, tf.int64), rows + self._offset), fresh_rows + self._offset
        first = self.shard.rows[0]
        rows = tf.where(rows < 0, rows, rows - first)
        return self._cache.place(rows, fresh_rows - first, default_row=default, written=written)

    def _check(self, before: tf.Tensor, after: tf.Tensor) -> None:
        """Complains about keys that found no room; `before` and `after` count them."""
        by_others = "" if self.config.score == "no_eviction" else " by other keys of the same batch"
        message = [  # in parts, because TensorFlow shows the first 80 characters of a part
            f"table {self.config.name!r}: keys of a batch found no room,",
            f"because all rows of their buckets are taken{by_others}.",
            f"They got the default vector. Give the table a larger capacity than {self.config.capacity},",
            "or set safe_check to 'warn' or 'count'.",
        ]
        if self._settings.safe_check == "error":
            tf.debugging.Assert(after == before, message)
            return
        warning = " ".join(["warning:", *message[:2], message[2][:-1] + ". From now on they are only counted."])
        tf.cond((before == 0) & (after > 0), lambda: tf.print(warning, output_stream=sys.stderr), tf.no_op)


def _rules(config: DynamicTableConfig, seed: int, *, log_erased: bool) -> IndexRules:
    rules = IndexRules(config.score, seed=seed, log_erased=log_erased)
    if isinstance(config.admission, WithProbability):
        return rules._replace(admit_probability=config.admission.probability)
    if isinstance(config.admission, AfterCount):
        counter = config.admission.counter
        size = config.counted_keys if counter == "exact" else config.counter_bytes
        return rules._replace(admit_after=config.admission.threshold, counter=(counter, size))
    return rules
