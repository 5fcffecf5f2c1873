"""The benchmark `tables` of dynamicemb: a static table and a dynamic table of the same rows, on one rank.

The dynamic table first stores all of its keys. Then, for each of the two tables, on the same batches:

    train      forward, and the update of the rows with a gradient that is there already
    forward    the lookup in training; the dynamic table notes when each key was used
    backward   the update alone, timed on its own; the published column is train - forward
    eval       the lookup that changes nothing
"""

import dataclasses
import gc
from collections.abc import Callable
from time import perf_counter

import numpy as np
import tensorflow as tf

from criteo_prep.machine import available_memory_bytes
from dlrm_tf2.benchmarks import dynamic_memory
from dlrm_tf2.benchmarks.dynamic import PUBLISHED_TABLES, PublishedTables
from dlrm_tf2.benchmarks.dynamic_config import PRECISIONS, TABLE, TablesConfig
from dlrm_tf2.benchmarks.dynamic_keys import tables_batch
from dlrm_tf2.benchmarks.timing import StepTimes, markdown_table
from dlrm_tf2.embedding import DistributedEmbedding
from dlrm_tf2.embedding.ids import RankIds
from dlrm_tf2.embedding.lookup import Lookup
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime import activity, memory, terminal
from dlrm_tf2.runtime.comm import SingleProcess

PHASES = ("eval", "forward", "backward", "train")
_FILLED_AT_ONCE = 1 << 18
_WARMUP = 3
_BASELINE = {
    "static": "the row of an id is its number; all rows in this machine's memory",
    "dynamic": "a hash table finds the row of a key; all rows, keys and scores in this machine's memory",
}
_SETTING = (
    "caching", "table_version", "batch_size", "num_embeddings_per_feature", "optimizer_type",
    "feature_distribution-alpha", "embedding_dim", "num_iterations", "cache_algorithm",
)  # fmt: skip


def run(config: TablesConfig) -> dict:
    """Measures both tables, prints the published table and ours. Returns everything as a record.

    Raises:
      DoesNotFit: a table needs more memory than is available.
    """
    terminal.say(dynamic_memory.check_tables(config, available_memory_bytes()))
    batches = [tables_batch(config, number) for number in range(config.num_iterations)]
    unique = float(np.mean([len(np.unique(batch)) for batch in batches[:10]]))
    terminal.say(f"keys: {unique:,.0f} of the {config.batch_size:,} of a batch differ")
    # The dynamic table first, as published: it is the larger one, so the static table fits into the memory that
    # TensorFlow keeps of it.
    dynamic = measure(config, batches, dynamic=True)
    columns = {"static": measure(config, batches, dynamic=False), "dynamic": dynamic}
    times = {name: {phase: of.record() for phase, of in column["times"].items()} for name, column in columns.items()}
    record = {
        "benchmark": "tables",
        **dataclasses.asdict(config),
        "rows": config.num_rows,
        "unique_keys": unique,
        "hit_rate": columns["dynamic"]["hit_rate"],
        "placement": _BASELINE,
        "ms": times,
        "published": [row._asdict() for row in _published(config)],
    }
    terminal.say(report(config, record))
    return record


def measure(config: TablesConfig, batches: list[np.ndarray], *, dynamic: bool) -> dict:
    """Makes a table and measures it; its memory is free again afterwards.

    Args:
      batches: the keys of each, int64 [batch_size].

    Returns:
      times: phase -> StepTimes; hit_rate: the part of the keys that were found, in the timed steps.
    """
    name = "dynamic" if dynamic else "static"
    activity.doing(f"making the {name} table")
    began = perf_counter()
    bench = TableBench(config, dynamic=dynamic)
    bench.fill()
    terminal.say(f"{name} table: {_BASELINE[name]}; ready after {perf_counter() - began:.1f} s")
    ids = [bench.ids(batch) for batch in batches]
    times = {}
    for phase in PHASES:  # the first call compiles
        bench.time(phase, (ids * _WARMUP)[:_WARMUP])
    before = bench.counters()
    for phase in ("train", "forward", "backward", "eval"):
        activity.doing(f"measuring {phase} of the {name} table")
        times[phase] = StepTimes.of(bench.time(phase, ids), config.batch_size)
        terminal.say(f"{name} {phase}: {times[phase].line()}")
    found, missed = (after - start for after, start in zip(bench.counters(), before, strict=True))
    del bench, ids
    gc.collect()  # compiled functions hold the table in cycles
    return {"times": times, "hit_rate": found / max(1, found + missed)}


class TableBench:
    """One table, and the compiled steps on it.

    Args:
      config: the run.
      dynamic: which of the two tables.
    """

    def __init__(self, config: TablesConfig, *, dynamic: bool):
        self._config, self._dynamic, self._number = config, dynamic, 0
        self._rate = tf.constant(config.learning_rate)
        optimizer = Optimizer(config.optimizer, beta1=config.beta1, beta2=config.beta2, epsilon=config.eps)
        self.layer = DistributedEmbedding(
            [config.table(dynamic=dynamic)],
            config.plan(dynamic=dynamic),
            comm=SingleProcess(),
            seed=config.seed,
            optimizer=optimizer,
            dtype=PRECISIONS[config.emb_precision],
            wire_dtype=PRECISIONS[config.output_dtype],
        )
        memory.prepare_step_memory(3.0 * 4 * config.batch_size * config.embedding_dim)
        shape = [config.batch_size, config.embedding_dim]
        self._gradient = tf.cast(
            tf.random.stateless_normal(shape, [config.seed, 0], stddev=1e-3), PRECISIONS[config.output_dtype]
        )
        signature = [self.layer.signature, tf.TensorSpec([], tf.int64)]
        self._phases: dict[str, Callable] = {
            phase: tf.function(step, input_signature=signature, autograph=False)
            for phase, step in (("eval", self._eval), ("forward", self._forward), ("train", self._train))
        }

    def ids(self, keys: np.ndarray) -> RankIds:
        """A batch as the layer takes it; keys int64 [batch_size]."""
        ids = self.layer.ids({TABLE: keys})
        return tf.nest.map_structure(lambda one, spec: tf.cast(one, spec.dtype), ids, self.layer.signature)

    def fill(self) -> None:
        """Stores all keys of the dynamic table. The rows of a static table are there from the start."""
        if self._dynamic:
            for first in range(0, self._config.num_rows, _FILLED_AT_ONCE):
                keys = np.arange(first, min(first + _FILLED_AT_ONCE, self._config.num_rows))
                self._phases["forward"](self.ids(keys), tf.constant(1, tf.int64))

    def counters(self) -> tuple[int, int]:
        """(keys found, keys missed) so far."""
        if not self._dynamic:
            return 0, 0
        counters = self.layer.dynamic_tables[TABLE].counters()
        return counters["found"], counters["missed"]

    def time(self, phase: str, batches: list[RankIds]) -> list[float]:
        """Seconds of the phase for each batch."""
        seconds = []
        for ids in batches:
            self._number += 1
            number = tf.constant(self._number, tf.int64)
            if phase == "backward":
                lookup = self.layer.lookup(ids, step=number)
                start = perf_counter()
                self._update(lookup, number)
            else:
                start = perf_counter()
                self._phases[phase](ids, number)
            seconds.append(perf_counter() - start)
        return seconds

    def _eval(self, ids: RankIds, number: tf.Tensor) -> tf.Tensor:
        return self.layer.exchange(self.layer.lookup(ids, training=False))

    def _forward(self, ids: RankIds, number: tf.Tensor) -> tf.Tensor:
        return self.layer.exchange(self.layer.lookup(ids, step=number))

    def _train(self, ids: RankIds, number: tf.Tensor) -> tf.Tensor:
        return self._update(self.layer.lookup(ids, step=number), number)

    def _update(self, lookup: Lookup, number: tf.Tensor) -> tf.Tensor:
        (vectors,) = lookup.vectors
        gradient = tf.reshape(self._gradient, tf.shape(vectors))
        return self.layer.apply_gradient(lookup, [gradient], learning_rate=self._rate, step=number)


def report(config: TablesConfig, record: dict) -> str:
    """The published rows of the same batch, rows and optimizer, and below them this run, as text."""
    header = [*_SETTING, *(f"{phase}({table})" for table in ("torchrec", "dynamicemb") for phase in PHASES)]
    published = [
        [row.caching, str(row.table_version), *_setting(config), *row.torchrec, *row.dynamicemb]
        for row in _published(config)
    ]
    ours = record["ms"]
    ms = [f"{ours[table][phase]['mean_ms']:.3f}" for table in ours for phase in PHASES]
    header_of_ours = [*_SETTING, *(f"{phase}({table})" for table in ours for phase in PHASES)]
    lines = ["published, on an H100, ms:", markdown_table(header, published)] if published else []
    lines += ["this run, ms:", markdown_table(header_of_ours, [["no", "-", *_setting(config), *ms]])]
    more = [
        [table, phase, f"{of['p50_ms']:.3f}", f"{of['p95_ms']:.3f}", f"{of['samples_per_s'] / 1e6:.2f}"]
        for table in ours
        for phase, of in ours[table].items()
    ]
    lines.append(markdown_table(["table", "phase", "p50", "p95", "million keys/s"], more))
    ratios = ", ".join(
        f"{phase} {ours['static'][phase]['mean_ms'] / ours['dynamic'][phase]['mean_ms']:.2f}" for phase in PHASES
    )
    lines.append(f"keys a second of the dynamic table, of the static table's: {ratios}")
    lines.append(f"hit rate {record['hit_rate']:.4f}; {record['unique_keys']:,.0f} unique keys a batch")
    lines += [f"{table}: {_BASELINE[table]}" for table in ours]
    return "\n".join(lines)


def _published(config: TablesConfig) -> list[PublishedTables]:
    """The published rows of this setting."""
    key = (config.batch_size, config.num_rows, config.optimizer, config.distribution)
    return [row for row in PUBLISHED_TABLES if key == (row.batch_size, row.rows, row.optimizer, "pow-law-1.05")]


def _setting(config: TablesConfig) -> list[str]:
    """The cells of _SETTING from batch_size on."""
    values = (config.batch_size, config.num_rows, config.optimizer_type, config.distribution, config.embedding_dim)
    return [*map(str, values), str(config.num_iterations), config.cache_algorithm]
