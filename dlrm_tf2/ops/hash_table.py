"""The native hash table of a dynamic table: which row of the table each key has. The arguments of its ops.

Every function works eagerly and in a tf.function, on the CPU and, with CUDA kernels, on a GPU. `keys` is int64 [n] of
any values, and a key may occur several times. Rows are rows of the table (sharding/buckets.py), int64, -1 where a key
is not stored. A key of a bucket that the index does not own, or a step that is not from 0 to 2**32 - 1, is a
tf.errors.InvalidArgumentError. On the CPU nothing has changed then. A GPU has taken all other keys, and a `find`, which
does not wait for the GPU, names the key in a later call of the index.
"""

import struct
from collections.abc import Sequence
from typing import Literal, NamedTuple

import tensorflow as tf

from dlrm_tf2 import ops
from dlrm_tf2.ops.embedding_rows import SlabVariables
from dlrm_tf2.sharding.buckets import Buckets
from dlrm_tf2.sharding.dynamic_tables import INITIALIZERS, SCORES, Initializer

COUNTERS = (
    "inserted", "admitted", "refused", "evicted", "expired", "erased", "not_insertable", "found", "missed",
)  # fmt: skip
_COUNT_WITH = ("exact", "sketch")


class IndexRules(NamedTuple):
    """What an index does with keys.

    Attributes:
      score: one of SCORES.
      admit_after: a key is stored in the call in which it has occurred so often; before, it is only counted.
      admit_probability: a key is stored with this probability in each call, which depends on seed, key and step.
      counter: ("exact", keys): counts so many keys, and forgets the lowest counts first; ("sketch", bytes): a count-min
        sketch, whose counts may be too high. Sizes are of the whole table.
      seed: of the admission by probability.
      log_erased: whether to note the keys that are evicted, expired or erased.
    """

    score: str = "timestamp"
    admit_after: int = 1
    admit_probability: float = 1.0
    counter: tuple[Literal["exact", "sketch"], int] = ("exact", 1 << 20)
    seed: int = 0
    log_erased: bool = False


class KeyIndex:
    """The keys of some buckets of a table. The memory is given up with the object and the graphs that hold the handle.

    Args:
      buckets: of the table.
      owned: the buckets of this index; may be empty.

    Attributes:
      handle: the resource.

    Raises:
      RuntimeError: there are no native ops.
      ValueError: a rule is out of range.
      tf.errors.ResourceExhaustedError: there is no memory.
    """

    def __init__(self, buckets: Buckets, owned: range, rules: IndexRules):
        assert owned.step == 1 and 0 <= owned.start <= owned.stop <= buckets.num_buckets, owned
        _check(rules)
        self.buckets, self.owned, self.rules = buckets, owned, rules
        with tf.init_scope(), tf.device(device()):
            self.handle = make_index(buckets, owned, rules)


def device() -> str:
    """Where indexes are made and called: the GPU of this process where the native ops serve it, else the CPU."""
    on_gpu = tf.config.get_visible_devices("GPU") and ops.why_no_cuda() is None
    return "/GPU:0" if on_gpu else "/CPU:0"


def make_index(buckets: Buckets, owned: range, rules: IndexRules) -> tf.Tensor:
    """The resource of a new index on the current device; KeyIndex holds one."""
    counter, counter_size = rules.counter
    return ops.library().dlrm_key_index(
        buckets=[*buckets, owned.start, owned.stop],
        score=SCORES.index(rules.score),
        admit_after=rules.admit_after,
        admit_probability=list(struct.unpack("<q", struct.pack("<d", rules.admit_probability))),
        counter=_COUNT_WITH.index(counter),
        counter_size=counter_size,
        seed=_signed(rules.seed),
        log_erased=rules.log_erased,
    )


class Inserted(NamedTuple):
    """What `find_or_insert` did.

    Attributes:
      rows: the row of each key, [n].
      fresh_rows, fresh_keys: the keys that were stored now, [m], in the order of their hashes.
      evicted_keys, evicted_rows, evicted_scores: the keys that were evicted, [e]. Their rows may be among fresh_rows.
    """

    rows: tf.Tensor
    fresh_rows: tf.Tensor
    fresh_keys: tf.Tensor
    evicted_keys: tf.Tensor
    evicted_rows: tf.Tensor
    evicted_scores: tf.Tensor


class Listed(NamedTuple):
    """Stored keys, [m] each, in the order of their rows."""

    keys: tf.Tensor
    rows: tf.Tensor
    scores: tf.Tensor
    steps: tf.Tensor


def bucket_of(keys: tf.Tensor, num_buckets: int) -> tf.Tensor:
    """The bucket of each key, int32 [n]."""
    return ops.library().dlrm_bucket_of(keys=keys, num_buckets=num_buckets)


def find(index: KeyIndex, keys: tf.Tensor) -> tf.Tensor:
    """The row of each key, int64 [n]. Changes nothing but the counters `found` and `missed`."""
    return ops.library().dlrm_key_index_find(index=index.handle, keys=keys)


def find_or_insert(index: KeyIndex, keys: tf.Tensor, *, step: tf.Tensor, scores: tf.Tensor) -> Inserted:
    """The row of each key, which is stored if it is not and the rules allow it. Who calls writes the fresh rows.

    All keys of a call that are stored are touched: they get the step and a score, and are not evicted in this call. New
    keys are taken in the order of their hashes. A key that no row is left for, or that is not admitted, has row -1.

    Args:
      step: int64 scalar, from 0 to 2**32 - 1.
      scores: int64, a scalar or [n]; read for `timestamp` and `custom`. Of equal keys the highest counts.
    """
    return Inserted(
        *ops.library().dlrm_key_index_find_or_insert(index=index.handle, keys=keys, step=step, scores=scores)
    )


def assign(index: KeyIndex, keys: tf.Tensor, *, scores: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
    """Stores keys without admission, with these scores and steps, int64 [n] each; of equal keys the last counts.

    A full bucket keeps the keys with the highest (score, hash), for any order of the calls.

    Returns:
      The row of each key, int64 [n].
    """
    return ops.library().dlrm_key_index_assign(index=index.handle, keys=keys, scores=scores, steps=steps)


def erase(index: KeyIndex, keys: tf.Tensor) -> tf.Tensor:
    """Erases keys. Returns bool [n]: whether the key was stored; of equal keys True for the first only."""
    return ops.library().dlrm_key_index_erase(index=index.handle, keys=keys)


def expire(index: KeyIndex, before_step: tf.Tensor) -> tf.Tensor:
    """Erases every key that was touched last before a step. Returns the rows that they had, int64 [m]."""
    return ops.library().dlrm_key_index_expire(index=index.handle, before_step=before_step)


def clear(index: KeyIndex) -> None:
    """Forgets all keys, the counts of admission and the log. The counters stay."""
    ops.library().dlrm_key_index_clear(index=index.handle)


def size(index: KeyIndex) -> tf.Tensor:
    """How many keys are stored, an int64 scalar."""
    return ops.library().dlrm_key_index_size(index=index.handle)


def counters(index: KeyIndex) -> tf.Tensor:
    """int64 [len(COUNTERS)], of all calls so far: occurrences for found and missed, keys for the others."""
    return ops.library().dlrm_key_index_counters(index=index.handle)


def export_batch(index: KeyIndex, first_row: tf.Tensor, num_rows: tf.Tensor) -> Listed:
    """What is stored in the table's rows [first_row, first_row + num_rows); nothing in rows of other indexes."""
    listed = ops.library().dlrm_key_index_export(index=index.handle, first_row=first_row, num_rows=num_rows)
    return Listed(*listed)


def export_admission(index: KeyIndex) -> tuple[tf.Tensor, tf.Tensor]:
    """(keys, counts), int64 [m] each: how often keys that are not stored have occurred.

    With a sketch, `keys` are the numbers of its cells that are not 0, in the sketch of the whole table.
    """
    keys, counts = ops.library().dlrm_key_index_export_counts(index=index.handle)
    return keys, counts


def assign_admission(index: KeyIndex, keys: tf.Tensor, counts: tf.Tensor) -> None:
    """Takes what `export_admission` gave, of all indexes of a table with the same rules; each takes its own part."""
    ops.library().dlrm_key_index_assign_counts(index=index.handle, keys=keys, counts=counts)


def erased(index: KeyIndex, since_step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(keys, steps), int64 [m] each: the log from a step on. A key may have been stored again since then.

    A key that was erased or has expired has the highest step that any find_or_insert was given before.
    """
    keys, steps = ops.library().dlrm_key_index_erased(index=index.handle, since_step=since_step)
    return keys, steps


def trim_erased(index: KeyIndex, before_step: tf.Tensor) -> None:
    """Forgets the log before a step."""
    ops.library().dlrm_key_index_trim_erased(index=index.handle, before_step=before_step)


def initialize_rows(
    slab: SlabVariables,
    rows: tf.Tensor,
    *,
    keys: tf.Tensor,
    initializer: Initializer,
    seed: int,
    initial_state: Sequence[float],
) -> None:
    """Writes the first values of rows and their optimizer state, in place: a function of seed, key and column alone.

    Args:
      rows: of the slab, int64 [m], each at most once.
      keys: the key of each row, int64 [m].
      seed: of the table.
      initial_state: the value that fills each of the slab's slots.
    """
    if initializer.kind not in INITIALIZERS:
        raise ValueError(f"initializer: found {initializer.kind}, expected one of {', '.join(INITIALIZERS)}.")
    ops.library().dlrm_initialize_rows(
        slabs=[slab.weights.handle],
        slots=[slot.handle for slot in slab.slots],
        rows=rows,
        keys=keys,
        kind=INITIALIZERS.index(initializer.kind),
        low_or_mean=initializer.low_or_mean,
        high_or_std=initializer.high_or_std,
        seed=_signed(seed),
        initial_state=list(initial_state),
    )


def _check(rules: IndexRules) -> None:
    if rules.score not in SCORES:
        raise ValueError(f"score: found {rules.score}, expected one of {', '.join(SCORES)}.")
    if rules.counter[0] not in _COUNT_WITH or rules.counter[1] < 1:
        raise ValueError(f"counter: found {rules.counter}, expected ('exact', keys) or ('sketch', bytes).")
    most = 65535 if rules.counter[0] == "sketch" else (1 << 63) - 1
    if not 1 <= rules.admit_after <= most:
        raise ValueError(f"admit_after: found {rules.admit_after}, expected 1 to {most}.")
    if not 0 <= rules.admit_probability <= 1:
        raise ValueError(f"admit_probability: found {rules.admit_probability}, expected 0 to 1.")


def _signed(seed: int) -> int:
    """The 64 bits of a seed, as an attribute of an op can have them."""
    bits = seed % (1 << 64)
    return bits - (1 << 64) if bits >> 63 else bits
