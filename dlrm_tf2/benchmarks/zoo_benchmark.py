"""The benchmark of a synthetic model: the published sequence of steps, what they took, and why."""

import dataclasses
import itertools
import math
import time
from collections.abc import Sequence

import tensorflow as tf

from dlrm_tf2.benchmarks import zoo_memory
from dlrm_tf2.benchmarks.floor import Floor, Speeds, floor_of
from dlrm_tf2.benchmarks.timing import StepTimes, markdown_table, time_steps
from dlrm_tf2.benchmarks.zoo import PUBLISHED_BATCH_SIZE, PUBLISHED_MS
from dlrm_tf2.benchmarks.zoo_config import ZooConfig
from dlrm_tf2.benchmarks.zoo_data import ZooData
from dlrm_tf2.benchmarks.zoo_model import OPTIMIZERS, SyntheticModel
from dlrm_tf2.benchmarks.zoo_phases import phase_times
from dlrm_tf2.data.batches import RankBatch, RankShare
from dlrm_tf2.embedding import native_rows
from dlrm_tf2.job.memories import memories_to_check
from dlrm_tf2.job.preflight import DoesNotFit
from dlrm_tf2.logs.run_log import RunLog
from dlrm_tf2.model.dlrm import ComputeSettings
from dlrm_tf2.runtime import activity, memory
from dlrm_tf2.runtime.agreement import on_all_ranks
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.runtime.process import Launch, Runtime
from dlrm_tf2.sharding.cost import cost_of
from dlrm_tf2.sharding.plan import ShardingPlan
from dlrm_tf2.training.loss_scaling import LossScaling
from dlrm_tf2.training.step import TrainingStep

_WARMUP = 5  # compiled steps before the timed ones, as published
_LOSS_SCALE = 65536.0  # at the start, in float16
_FEWER = 20  # steps with one repeated batch


def run(config: ZooConfig, launch: Launch, *, device: Runtime, comm: Comm) -> None:
    """Makes the model, trains it, and prints what that took. All ranks call it.

    Raises:
      ValueError: the model does not fit in memory, or the log cannot be written.
    """
    plan = config.plan(comm.size)
    op, op_note = native_rows.choose_op(config.embedding_op, device=device.device, comm=comm, dtype=config.table_dtype)
    config = dataclasses.replace(config, embedding_op=op)
    notes = [*device.notes, op_note, *_check_memory(config, plan, launch=launch, device=device, comm=comm)]
    log = _open_log(config, comm, device)
    try:
        for line in (_title(config, comm, device), *notes):
            log.say(line)
        benchmark = Benchmark(config, plan, device=device, comm=comm, log=log)
        benchmark.report(benchmark.steps())
    finally:
        log.close()


class Benchmark:
    """A synthetic model with its batches, ready to train.

    Args:
      config: the run.
      plan: where the tables are.
      device: what this rank computes on.
      comm: the ranks.
      log: takes the figures, and the lines for people.
    """

    def __init__(self, config: ZooConfig, plan: ShardingPlan, *, device: Runtime, comm: Comm, log: RunLog):
        self._config, self._plan, self._device, self._comm, self._log = config, plan, device, comm, log
        self._zoo = config.zoo_model
        optimizer, self._learning_rate = OPTIMIZERS[config.optimizer]
        settings = ComputeSettings(
            compute_dtype=device.compute_dtype,
            embedding_op=config.embedding_op,
            table_dtype=config.table_dtype,
            optimizer=optimizer,
            data_parallel_input=config.dp_input,
        )
        activity.doing("making the tables")
        began = time.perf_counter()
        self.model = SyntheticModel(self._zoo, plan, comm=comm, seed=config.seed, settings=settings)
        if device.gpu is None:
            memory.prepare_step_memory(zoo_memory.step_bytes(config, plan, comm.rank))
        log.say(f"tables are ready after {time.perf_counter() - began:.1f} s")
        began = time.perf_counter()
        embedding = self.model.embedding
        share = RankShare(
            comm.rank,
            comm.size,
            global_features=embedding.global_features,
            sample_features=embedding.sample_features,
        )
        self._data = ZooData(self._zoo, share, batch_size=config.global_batch, alpha=config.alpha, seed=config.seed)
        self.batches = [self._batch(number) for number in range(config.num_data_batches)]
        log.say(f"the batches are ready after {time.perf_counter() - began:.1f} s")
        scaling = LossScaling(_LOSS_SCALE, True) if device.compute_dtype == "float16" else None
        self._step, self._number = TrainingStep(self.model, scaling), 0
        self._losses: list[float] = []

    def _batch(self, number: int) -> RankBatch:
        """A batch as TensorFlow's tensors, so that no step copies it."""
        activity.doing(f"making batch {number}")
        batch = self._data.batch(number)
        label, numerical, ids = tf.nest.map_structure(tf.constant, (batch.label, batch.numerical, batch.ids))
        return dataclasses.replace(batch, label=label, numerical=numerical, ids=ids)

    def steps(self) -> list[float]:
        """The published sequence: a forward pass, the MLP's variables from rank 0, warm-up, timed steps.

        Returns:
          Seconds of each timed step.
        """
        activity.doing("warming up")
        began = time.perf_counter()
        self.model.logits(self.batches[0].numerical, self.model.lookup(self.batches[0].ids))
        self._comm.broadcast(self.model.dense_variables)
        self._train(self.batches, _WARMUP)
        self._log.say(
            f"warm-up: a forward pass and {_WARMUP} steps, {time.perf_counter() - began:.1f} s; "
            f"loss {self._losses[-1]:.6g}"
        )
        seconds = self._train(self.batches, self._config.num_steps)
        for step, (loss, of_step) in enumerate(
            zip(self._losses, seconds, strict=True), self._number - len(seconds) + 1
        ):
            self._log.record({"step": step, "loss": loss, "step_ms": 1e3 * of_step})
        return seconds

    def _train(self, batches: Sequence[RankBatch], num_steps: int) -> list[float]:
        """Trains on the batches in turn. Returns seconds by step, and keeps the losses."""
        pairs = self._step.with_next(itertools.islice(itertools.cycle(batches), num_steps))
        self._losses = []

        def run(step: int) -> tf.Tensor:
            batch, next_batch = next(pairs)
            self._number += 1
            activity.doing(f"training step {self._number}")
            return self._step(batch, self._learning_rate, step=self._number, next_batch=next_batch)

        self._comm.allgather_object(None, name="begin")
        return time_steps(
            run,
            lambda result: self._losses.append(self._step.outcome(result).loss),
            num_steps=num_steps,
            ahead=self._device.gpu is not None,
        )

    def report(self, seconds: Sequence[float]) -> None:
        """Measures what explains the timed steps, and prints and logs everything."""
        config, comm, log = self._config, self._comm, self._log
        times, loss = StepTimes.of(seconds, config.global_batch), self._losses[-1]
        log.say(times.line())
        log.say(f"loss {loss:.6g} in the last step" + ("" if math.isfinite(loss) else ": the model has diverged"))
        repeated_ms = self._repeated_batch_ms(times)
        phases = phase_times(self.model, self.batches[-1], self._learning_rate)
        apart = ", ".join(f"{name} {ms:.3f}" for name, ms in phases.items())
        log.say(f"phases, each on its own (ms): {apart}; {sum(phases.values()):.3f} together")
        floor = self._slowest_floor()
        log.say(floor.line(times.mean_ms))
        sent = max(cost.sent_bytes for cost in cost_of(self._plan, self._zoo.tables, config.step))
        if comm.size > 1:
            log.say(f"a rank sends up to {sent / 1e6:,.1f} MB to other ranks in an iteration")
        figures = {f"{name}_ms": ms for name, ms in phases.items()} | dataclasses.asdict(floor)
        figures |= {"floor_ms": floor.ms, "floor_share": floor.ms / times.mean_ms, "sent_bytes": sent}
        log.record(times.record() | {"one_batch_ms": repeated_ms, "last_loss": loss} | figures)
        log.say(table_with_published(config, times, comm=comm, device=self._device))

    def _repeated_batch_ms(self, times: StepTimes) -> float | None:
        """Milliseconds of a step whose batch is always the same; None if the timed steps were such steps."""
        if len(self.batches) == 1:
            self._log.say("every step had the same batch, of which caches hold more; see --num_data_batches")
            return None
        seconds = self._train(self.batches[:1], min(self._config.num_steps, _FEWER))
        repeated = StepTimes.of(seconds, self._config.global_batch)
        self._log.say(
            f"one repeated batch would show {repeated.p50_ms:.3f} ms (p50 of {len(seconds)} steps), "
            f"{100 * (repeated.p50_ms / times.p50_ms - 1):+.1f} %: caches hold more of it"
        )
        return repeated.p50_ms

    def _slowest_floor(self) -> Floor:
        """The floor of the rank that has the most to do."""
        activity.doing("measuring the floor")
        self._comm.allgather_object(None, name="speeds")
        floor = floor_of(
            self._zoo,
            self._plan,
            rank=self._comm.rank,
            step=self._config.step,
            data=self._data,
            speeds=Speeds.measured(self.model.compute_dtype),
        )
        return max(self._comm.allgather_object(floor, name="floors"), key=lambda floor: floor.ms)


def _check_memory(config: ZooConfig, plan: ShardingPlan, *, launch: Launch, device: Runtime, comm: Comm) -> list[str]:
    """The memory lines of rank 0; on all ranks, refuses a model that does not fit on one of their machines or GPUs."""
    memories, notes = memories_to_check(launch, device, comm)

    def check() -> list[str]:
        return [zoo_memory.check_memory(config, plan, shared) for shared in memories]

    return [*notes, *on_all_ranks(comm, "memory", work=check, error=DoesNotFit, name_ranks=False)[0]]


def _open_log(config: ZooConfig, comm: Comm, device: Runtime) -> RunLog:
    logs = []
    on_all_ranks(
        comm,
        "log",
        work=lambda: logs.append(RunLog(config.log_path, comm.rank == 0, live=False)),
        error=ValueError,
        name_ranks=False,
    )
    setting = {"world_size": comm.size, "device": device.device, "threads": device.threads}
    logs[0].record({"mode": "synthetic_models", "run": f"{time.time_ns():x}"} | dataclasses.asdict(config) | setting)
    return logs[0]


def _title(config: ZooConfig, comm: Comm, device: Runtime) -> str:
    model = config.zoo_model
    gib = 4 * sum(table.num_elements for table in model.tables) / 2**30
    scale = "" if config.scale == 1 else f", rows times {config.scale:g}"
    return (
        f"{config.model}{scale}: {len(model.tables)} tables, {gib:.3f} GiB in float32, {config.optimizer}, batch "
        f"{config.global_batch}, {comm.size} {'rank' if comm.size == 1 else 'ranks'} on {device.device.upper()}, "
        f"{'data' if config.dp_input else 'model'}-parallel input, alpha {config.alpha:g}"
    )


def table_with_published(config: ZooConfig, times: StepTimes, *, comm: Comm, device: Runtime) -> str:
    """This run and the published figures of the model, as a table."""
    rows = [
        ["published", f"{gpus} A100", "1", "adagrad", f"{PUBLISHED_BATCH_SIZE}", f"{ms}"]
        for gpus, ms in PUBLISHED_MS.get(config.model, {}).items()
    ]
    processors = f"{comm.size} GPU" if device.gpu is not None else f"{comm.size} x {device.threads} CPU threads"
    scale, batch = f"{config.scale:g}", f"{config.global_batch}"
    rows.append(["this run", processors, scale, config.optimizer, batch, f"{times.mean_ms:.3f}"])
    return markdown_table([config.model, "on", "rows times", "optimizer", "batch", "ms/iteration"], rows)
