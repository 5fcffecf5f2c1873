"""What the modes that run a model have in common: the ranks, the plan, the model, and the checkpoint it comes from."""

import contextlib
import dataclasses
import random
import time
from dataclasses import dataclass

import tensorflow as tf

from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.machine import available_memory_bytes
from dlrm_tf2 import checkpoint
from dlrm_tf2.checkpoint import CheckpointError
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data import repeated_ids
from dlrm_tf2.data.batches import open_split
from dlrm_tf2.evaluation.evaluator import Evaluator
from dlrm_tf2.evaluation.inference import infer
from dlrm_tf2.evaluation.predictions import PredictionsFile, check_predictions_path
from dlrm_tf2.job import planning, preflight
from dlrm_tf2.job.preflight import Memory
from dlrm_tf2.logs import profiler
from dlrm_tf2.logs.run_log import RunLog
from dlrm_tf2.model import interaction
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.model.dlrm import Dlrm
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime import activity, memory, process
from dlrm_tf2.runtime.agreement import on_all_ranks, on_rank_0
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.runtime.stopping import StopRequest
from dlrm_tf2.sharding.plan import ShardingPlan
from dlrm_tf2.training.resume import Resumption
from dlrm_tf2.training.saver import Saver
from dlrm_tf2.training.trainer import Trainer


@dataclass(frozen=True)
class Job:
    """A model on all ranks, ready to run.

    Attributes:
      restored: the document of the checkpoint that the weights come from; None if they are fresh.
      resumption: how the run begins; the checkpoint may be its own, from before it was interrupted.
    """

    config: TrainConfig
    spec: FeatureSpec
    comm: Comm
    log: RunLog
    model: Dlrm
    restored: dict | None
    resumption: Resumption

    def run(self) -> None:
        """Runs the mode that the configuration names."""
        activity.doing("opening the dataset")
        try:
            {"train": self._train, "eval": self._evaluate, "inference": self._infer}[self.config.mode]()
        finally:
            self.log.close()

    def _train(self) -> None:
        config, saver, resumes = self.config, None, self.resumption.goes_on
        if config.save_checkpoint_path:
            saved_step = self.resumption.step if resumes else None
            saver = Saver(
                config, self.comm, model=self.model, log=self.log, run=self.resumption.run, saved_step=saved_step
            )
        try:
            with StopRequest() as stop:
                summary = Trainer(
                    config,
                    self.spec,
                    model=self.model,
                    comm=self.comm,
                    log=self.log,
                    saver=saver,
                    restored=self.restored,
                    resumes=resumes,
                    stop=stop,
                ).train()
        finally:
            if saver:
                saver.abandon()
        self.log.say(f"{summary['throughput']:,.0f} samples/s, {summary['mean_step_time_ms']:.1f} ms a step")

    def _evaluate(self) -> None:
        with self._predictions() as predictions:
            evaluation = self._evaluator().evaluate(self.config.max_steps, predictions=predictions)
        self.log.record(evaluation.record())
        self.log.say(evaluation.line())

    def _infer(self) -> None:
        with self._predictions() as predictions:
            infer(self.config, self._evaluator(), comm=self.comm, log=self.log, predictions=predictions)

    def _predictions(self) -> contextlib.AbstractContextManager[PredictionsFile | None]:
        path = self.config.predictions_path
        return PredictionsFile(path, self.comm) if path else contextlib.nullcontext()

    def _evaluator(self) -> Evaluator:
        data = open_split(
            self.config,
            self.spec,
            split="test",
            embedding=self.model.embedding,
            comm=self.comm,
            restored=self.restored,
        )
        return Evaluator(self.config, self.model, comm=self.comm, log=self.log, data=data)


def start_job(
    config: TrainConfig,
    spec: FeatureSpec,
    *,
    model_config: ModelConfig,
    launch: process.Launch,
    device: process.Runtime,
    comm: Comm,
) -> Job:
    """Makes the model, or restores it.

    Raises:
      ValueError: the model does not fit in memory, or the checkpoint is not one of it.
    """
    profiler.check_profiler_flags(config, comm.size)
    found = Resumption.find(config, comm)
    drawn = config.seed if config.seed is not None else random.SystemRandom().getrandbits(31)
    seed = found.seed if found.goes_on else comm.broadcast_object(drawn, name="seed")
    config = dataclasses.replace(config, seed=seed)
    plan = planning.plan_of(config, model_config, spec=spec, world_size=comm.size)
    source = found.path or config.restore_checkpoint_path
    if source:
        document = on_rank_0(comm, "document", work=lambda: checkpoint.read_document(source), error=CheckpointError)
        model_config.check_same(document["model"], source)
    _check_destinations(config, comm)
    chosen, op_note = interaction.TENSORFLOW, None
    if model_config.interaction == "dot":
        chosen, op_note = interaction.choose_op(config.requested_interaction_op, device.device)
    offloading = planning.offloading_note(config, plan, device.device)
    fits = _check_memory(config, model_config, spec=spec, plan=plan, launch=launch, device=device, comm=comm)
    deduplicated, dedup_note = repeated_ids.choose_features(config, spec, comm)
    log = _open_log(
        config, found, launch=launch, comm=comm, device=device
    )  # what was refused by now has left the log before it alone
    for line in filter(None, (*found.notes, *device.notes, op_note, offloading, *fits, dedup_note)):
        log.say(line)
    activity.doing("making the tables")
    began = time.perf_counter()
    model = Dlrm(
        model_config,
        plan,
        comm=comm,
        seed=config.seed,
        compute_dtype=device.compute_dtype,
        xla=config.xla,
        initialize_tables=source is None,
        optimizer=Optimizer(config.optimizer, config.momentum, beta1=config.beta1, beta2=config.beta2),
        training=config.mode == "train",
        data_parallel_input=config.data_parallel_input,
        deduplicated=deduplicated,
        interaction=chosen,
    )
    restored = None
    if source:
        activity.doing(f"restoring {source}")
        restored = checkpoint.load_checkpoint(source, comm, dense=model.dense_by_name, embedding=model.embedding)
        log.say(f"{'resumed' if found.goes_on else 'restored'} {source}: step {restored['step']}")
    log.say(f"tables are ready after {time.perf_counter() - began:.1f} s")
    return Job(config, spec, comm=comm, log=log, model=model, restored=restored, resumption=found)


def _open_log(
    config: TrainConfig, found: Resumption, *, launch: process.Launch, comm: Comm, device: process.Runtime
) -> RunLog:
    """The log, which has its first line: the configuration, or from where the run goes on."""
    resumed = (found.run, found.step) if found.goes_on else None
    log = RunLog(
        config.log_path,
        enabled=comm.rank == 0,
        live=not launch.by_launcher,
        resumed=resumed,
        tensorboard=config.tensorboard,
    )
    setting = {"run": found.run, "world_size": comm.size, "device": device.device}
    log.record({"resumed_step": found.step, **setting} if log.continues else dataclasses.asdict(config) | setting)
    return log


def _check_destinations(config: TrainConfig, comm: Comm) -> None:
    """Refuses now, and not after hours, what nothing can be written to."""
    path = config.save_checkpoint_path

    def check() -> None:
        checkpoint.check_destination(path)
        if config.keep_best:
            checkpoint.check_destination(checkpoint.best_path(path))

    if config.mode == "train" and path:
        on_all_ranks(comm, "destination", work=check, error=CheckpointError)
    if config.mode != "train" and config.predictions_path:
        check_predictions_path(config.predictions_path, comm)


def _check_memory(
    config: TrainConfig,
    model: ModelConfig,
    *,
    spec: FeatureSpec,
    plan: ShardingPlan,
    launch: process.Launch,
    device: process.Runtime,
    comm: Comm,
) -> list[str]:
    """The memory lines of rank 0; refuses on all ranks what does not fit on one of their machines or GPUs."""
    hotness, (mine, notes) = planning.hotness_of(spec), _memories(launch, device, comm)

    def check() -> list[str]:
        return [preflight.check_memory(config, model, plan=plan, memory=shared, hotness=hotness) for shared in mine]

    return [*notes, *on_all_ranks(comm, "memory", work=check, error=preflight.DoesNotFit)[0]]


def _memories(launch: process.Launch, device: process.Runtime, comm: Comm) -> tuple[list[Memory], list[str]]:
    """The memories that this rank is to check, as the first of those that share them; and lines for the user."""
    mine, notes, gpu = [], [], None
    if launch.local_rank == 0:
        there = available_memory_bytes()
        mine.append(Memory("this machine", launch.local_ranks, there, of_device=device.gpu is None))
    if device.gpu is not None:
        tf.config.list_logical_devices("GPU")  # TensorFlow begins to use it
        try:
            gpu = memory.gpu(device.gpu)
        except OSError as error:
            notes.append(f"memory of GPU {device.gpu}: not checked: {error}")
    gpus = comm.allgather_object(gpu, name="gpus")
    sharing = [rank for rank, other in enumerate(gpus) if gpu and other and other.uuid == gpu.uuid]
    if comm.rank in sharing[:1]:
        there = min(gpus[rank].available_bytes for rank in sharing)
        mine.append(Memory(f"GPU {device.gpu}", sharing, there, of_host=False))
    return mine, notes
