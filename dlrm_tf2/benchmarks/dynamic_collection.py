"""The benchmark `collection` of dynamicemb: 26 features of 10 ids each, from one fused dynamic table or 26 static ones.

A step looks up the vector of every id, adds all of their numbers up, and updates the rows. The dynamic table is empty
at the start and stores each key when it first comes, as published.
"""

import dataclasses
from time import perf_counter

import numpy as np
import tensorflow as tf

from criteo_prep.machine import available_memory_bytes
from dlrm_tf2.benchmarks.dynamic import PUBLISHED_COLLECTION_MS, PUBLISHED_RANKS
from dlrm_tf2.benchmarks.dynamic_config import PRECISIONS, TABLE, CollectionConfig
from dlrm_tf2.benchmarks.dynamic_keys import collection_batch
from dlrm_tf2.benchmarks.dynamic_memory import scaled_to_fit, step_bytes
from dlrm_tf2.benchmarks.timing import StepTimes, markdown_table
from dlrm_tf2.embedding import DistributedEmbedding
from dlrm_tf2.embedding.ids import RankIds
from dlrm_tf2.embedding.train_step import loss_share
from dlrm_tf2.job.preflight import DoesNotFit
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime import activity, memory, terminal
from dlrm_tf2.runtime.agreement import on_all_ranks
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.runtime.process import Launch
from dlrm_tf2.sharding.plan import samples_of_rank
from dlrm_tf2.sharding.plan_report import plan_text

_WARMUP = 10  # steps, as published
_PUBLISHED_BATCH = 65536


def run(config: CollectionConfig, launch: Launch, *, comm: Comm) -> dict:
    """Trains, and prints the milliseconds of a step next to the published ones. All ranks call it.

    Returns:
      Everything as a record, the same on all ranks but for the memory.

    Raises:
      DoesNotFit: the tables need more memory than is available.
    """
    scales = on_all_ranks(
        comm,
        "scale",
        work=lambda: scaled_to_fit(
            config, launch.local_ranks, world_size=comm.size, available_bytes=available_memory_bytes()
        ),
        error=DoesNotFit,
        name_ranks=False,
    )
    given, config = config, dataclasses.replace(config, scale=min(scales))
    bench = CollectionBench(config, comm)
    if comm.rank == 0:
        if given.scale is None and config.scale != 1:
            terminal.say(f"--scale {config.scale:g}: the largest power of two with which the tables fit in memory")
        if config.print_sharding_plan:
            each = [float(step_bytes(config, comm.size))] * comm.size
            plan = plan_text(config.plan(comm.size), config.tables, step=config.step, activation_bytes=each)
            terminal.say(plan)
        for line in differences(config, comm.size):
            terminal.say(line)
    bench.train(_WARMUP)
    losses, seconds = bench.train(config.num_iterations)
    times = StepTimes.of(seconds, config.batch_size)
    counters = _sums(comm.allgather_object(bench.counters(), name="counters"))
    record = {
        "benchmark": "collection",
        **dataclasses.asdict(config),
        "num_embeddings_per_feature": config.num_rows,
        "ranks": comm.size,
        "ms": times.record(),
        "losses": losses,
        "counters": counters,
        "published_ms": PUBLISHED_COLLECTION_MS[config.use_index_dedup, config.use_dynamic_embedding],
    }
    if comm.rank == 0:
        terminal.say(report(config, record, times=times))
    return record


class CollectionBench:
    """The tables, and the training on them.

    Args:
      config: the run, with its scale.
      comm: the ranks.
    """

    def __init__(self, config: CollectionConfig, comm: Comm):
        self._config, self._comm, self._number = config, comm, 0
        self._rate = tf.constant(config.learning_rate)
        activity.doing("making the tables")
        self.layer = DistributedEmbedding(
            config.tables,
            config.plan(comm.size),
            comm=comm,
            seed=config.seed,
            optimizer=Optimizer(config.optimizer, beta1=config.beta1, beta2=config.beta2, epsilon=config.eps),
            hotness=config.hotness,
            data_parallel_input=True,
            deduplicated=tuple(config.hotness) if config.use_index_dedup else (),
            wire_dtype=PRECISIONS[config.fwd_a2a_precision],
        )
        samples = -(-config.batch_size // comm.size)
        memory.prepare_step_memory(3.0 * 4 * samples * self.layer.width)
        signature = [self.layer.signature, tf.TensorSpec([], tf.int64)]
        self._compiled = tf.function(self._step, input_signature=signature, autograph=False)

    def train(self, num_steps: int) -> tuple[list[float], list[float]]:
        """Makes steps. Returns the losses, and the seconds of each; the ids of a step are drawn before it begins."""
        losses, seconds = [], []
        for _ in range(num_steps):
            ids = self._ids(collection_batch(self._config, self._number))
            self._number += 1
            activity.doing(f"training step {self._number}")
            number = tf.constant(self._number, tf.int64)
            self._comm.allgather_object(None, name="begin")
            start = perf_counter()
            losses.append(float(self._compiled(ids, number)))
            seconds.append(perf_counter() - start)
        return losses, seconds

    def counters(self) -> dict[str, int]:
        """What happened to the keys of this rank's part of the dynamic table; empty without one."""
        table = self.layer.dynamic_tables.get(TABLE)
        return table.counters() if table else {}

    def _ids(self, batch: dict[str, np.ndarray]) -> RankIds:
        first, stop = samples_of_rank(self._config.batch_size, self._comm.size, self._comm.rank)
        given = {feature: batch[feature] for feature in self.layer.global_features}
        local = {feature: batch[feature][first:stop] for feature in self.layer.sample_features}
        ids = self.layer.ids(given, local, global_batch=self._config.batch_size)
        return tf.nest.map_structure(lambda one, spec: tf.cast(one, spec.dtype), ids, self.layer.signature)

    def _step(self, ids: RankIds, number: tf.Tensor) -> tf.Tensor:
        layer = self.layer
        lookup = layer.lookup(ids, step=number)
        share = loss_share(
            lambda: tf.reduce_sum(tf.cast(layer.exchange(lookup), tf.float32), axis=1),
            lookup.vectors,
            variables=(),
            global_batch=tf.constant(self._config.batch_size),
        )
        check = layer.apply_gradient(lookup, share.by_vectors, learning_rate=self._rate, step=number)
        (loss,) = self._comm.allreduce_sum([share.loss + check], name="loss")
        return loss


def differences(config: CollectionConfig, num_ranks: int) -> list[str]:
    """What this run does otherwise than the published one, as lines for the user."""
    total, published = sum(config.num_rows), sum(config.num_embeddings_per_feature)
    each, published_each = -(-config.batch_size // num_ranks), _PUBLISHED_BATCH // PUBLISHED_RANKS
    lines = [
        f"rows: {total:,}, {published:,} x {config.scale:g}",
        f"batch: {config.batch_size}, {each} a rank on {num_ranks} CPU ranks (published: {_PUBLISHED_BATCH}, "
        f"{published_each} a rank on {PUBLISHED_RANKS} H100)",
        "loss: the mean over the samples of the sums of their numbers (published: the sum)",
    ]
    if num_ranks == 1:
        lines.append("--use_index_dedup does nothing here: with one rank no ids travel")
    elif config.use_dynamic_embedding and not config.use_index_dedup:
        lines.append("--use_index_dedup false changes nothing here: a rank sends each key of a dynamic table once")
    return lines


def report(config: CollectionConfig, record: dict, *, times: StepTimes) -> str:
    """This run and the published figures, as text."""
    dedup, ids = "Open" if config.use_index_dedup else "Close", sum(config.multi_hot_sizes) * config.batch_size
    header = ["configuration", "on", "static table (ms)", "dynamic table (ms)"]
    rows = [
        [f"{name} dedup, batch {_PUBLISHED_BATCH}", "8 H100, published", *(
            f"{PUBLISHED_COLLECTION_MS[flag, dynamic]}" for dynamic in (False, True)
        )]
        for flag, name in ((True, "Open"), (False, "Close"))
    ]  # fmt: skip
    mine = [f"{times.mean_ms:.2f}" if dynamic == config.use_dynamic_embedding else "" for dynamic in (False, True)]
    rows.append([f"{dedup} dedup, batch {config.batch_size}", f"{record['ranks']} x CPU, this run", *mine])
    lines = [times.line(), f"{1e3 * ids / times.mean_ms:,.0f} ids/s; loss {record['losses'][-1]:.6g} in the last step"]
    if record["counters"]:
        lines.append("keys: " + ", ".join(f"{name} {count:,}" for name, count in record["counters"].items() if count))
    return "\n".join([*lines, markdown_table(header, rows)])


def _sums(counters: list[dict[str, int]]) -> dict[str, int]:
    """The counters of all ranks together."""
    names = dict.fromkeys(name for of_rank in counters for name in of_rank)
    return {name: sum(of_rank.get(name, 0) for of_rank in counters) for name in names}
