"""The modes that run a model: the plan, the memory check, the model, and the checkpoint that the model comes from."""

import contextlib
import dataclasses
import functools
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from criteo_prep.feature_spec import FeatureSpec, FeatureSpecError
from dlrm_tf2 import checkpoint
from dlrm_tf2.checkpoint import CheckpointError
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data import repeated_ids
from dlrm_tf2.data.batches import check_splits, open_split
from dlrm_tf2.embedding import native_rows
from dlrm_tf2.embedding.dynamic.tiers import Tiers
from dlrm_tf2.evaluation.evaluator import Evaluator
from dlrm_tf2.evaluation.inference import infer
from dlrm_tf2.evaluation.predictions import PredictionsFile
from dlrm_tf2.job import destinations, gathering, memories, planning, preflight, same_on_ranks
from dlrm_tf2.logs import profiler
from dlrm_tf2.logs.mlperf_log import MlperfLog
from dlrm_tf2.logs.run_log import RunLog
from dlrm_tf2.logs.run_observer import RunObserver
from dlrm_tf2.model import interaction
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.model.dlrm import ComputeSettings, Dlrm
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime import activity, memory, process
from dlrm_tf2.runtime.agreement import on_all_ranks, on_rank_0
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.runtime.elastic import NOT_ELASTIC, NotElastic
from dlrm_tf2.runtime.stopping import StopRequest
from dlrm_tf2.sharding.plan import ShardingPlan
from dlrm_tf2.training.key_counters import KeyCounters
from dlrm_tf2.training.resume import RESUMED_KEYS, Resumption
from dlrm_tf2.training.saver import Saver
from dlrm_tf2.training.trainer import StartingPoint, Trainer
from dlrm_tf2.unused_flags import unused_flags


@dataclass(frozen=True)
class RunContext:
    """What a run is made of before it has a model: what it does, on which data, on which device, with which ranks.

    `observers` follow a training on rank 0. `link` is the rank's link to the supervisor of an elastic job.
    """

    config: TrainConfig
    spec: FeatureSpec
    launch: process.Launch
    device: process.Runtime
    comm: Comm
    observers: tuple[RunObserver, ...] = ()
    link: NotElastic = NOT_ELASTIC


@dataclass(frozen=True)
class Job:
    """A model on all ranks, ready to run.

    Attributes:
      restored: document of the checkpoint that the weights come from; None if the weights are fresh.
      resumption: whether this is a new run, or an interrupted run that is resumed.
      link: the link to the supervisor of an elastic job.
      far: the ranks that do not see where the checkpoints are saved.
    """

    config: TrainConfig
    spec: FeatureSpec
    comm: Comm
    log: RunLog
    model: Dlrm
    restored: dict | None
    resumption: Resumption
    link: NotElastic = NOT_ELASTIC
    far: gathering.Far = gathering.Far()

    def run(self) -> dict | None:
        """Runs the mode that the configuration names. Returns the summary of a training."""
        activity.doing("opening the dataset")
        try:
            return {"train": self._train, "eval": self._evaluate, "inference": self._infer}[self.config.mode]()
        finally:
            self.log.close()

    def _train(self) -> dict:
        config, resumes = self.config, self.resumption.resumes
        with contextlib.ExitStack() as at_end:
            saver = at_end.enter_context(self._saver()) if config.save_checkpoint_path else None
            stop = at_end.enter_context(StopRequest())
            start = StartingPoint(self.restored, resumes, self.resumption.fingerprint)
            trainer = Trainer(config, self.spec, model=self.model, log=self.log, saver=saver, start=start)
            summary = trainer.train(stop, self.link)
        self.log.say(f"{summary['throughput']:,.0f} samples/s, {summary['mean_step_time_ms']:.1f} ms a step")
        if config.final_split:
            self._score_final_split(trainer.step)
        return summary

    @contextlib.contextmanager
    def _saver(self) -> Iterator[Saver]:
        path, resumption = self.config.save_checkpoint_path, self.resumption
        staged = [checkpoint.staging_folder(place) for place in (path, checkpoint.best_path(path))]
        with checkpoint.gathered(self.comm, self.far.ranks, writes=staged) as disk:
            saved_step = resumption.step if resumption.resumes else None
            saver = Saver(self.config, self.model, log=self.log, run=resumption.run, saved_step=saved_step, disk=disk)
            try:
                yield saver
            finally:
                saver.abandon()

    def _score_final_split(self, step: int) -> None:
        split = self.config.final_split
        evaluation = self._evaluator(split).evaluate()
        values = {f"final_{name}": value for name, value in evaluation.record().items()}
        self.log.record({"step": step, "final_split": split, **values})
        self.log.say(f"{split} split: {evaluation.line()}")
        for observer in self.log.observers:
            observer.scored_final_split(split, evaluation.auc, evaluation.num_samples)

    def _evaluate(self) -> None:
        keys = KeyCounters(self.model.embedding, self.comm)
        with self._predictions() as predictions, keys.evaluating():
            evaluation = self._evaluator(self.config.eval_split).evaluate(
                self.config.max_steps, predictions=predictions
            )
        self.log.record({**evaluation.record(), **keys.of_evaluation})
        self.log.say(evaluation.line())

    def _infer(self) -> None:
        with self._predictions() as predictions:
            infer(self.config, self._evaluator(self.config.eval_split), log=self.log, predictions=predictions)

    def _predictions(self) -> contextlib.AbstractContextManager[PredictionsFile | None]:
        path = self.config.predictions_path
        return PredictionsFile(path, self.comm) if path else contextlib.nullcontext()

    def _evaluator(self, split: str) -> Evaluator:
        data = open_split(
            self.config,
            self.spec,
            split=split,
            embedding=self.model.embedding,
            comm=self.comm,
            restored=self.restored,
        )
        return Evaluator(self.config, self.model, log=self.log, data=data)


def start_job(context: RunContext, model_config: ModelConfig) -> Job:
    """Makes the model, or restores it.

    Raises:
      ValueError: the model does not fit in memory, or the checkpoint holds another model.
    """
    comm, device = context.comm, context.device
    same_on_ranks.check_run(context.config, context.spec, comm=comm, launch=context.launch)
    profiler.check_profiler_flags(context.config, comm.size)
    resumption = Resumption.find(context.config, comm, spec=context.spec, job=context.link.run)
    if comm.rank == 0:
        context.link.report(name_of_run=resumption.run)
    context = dataclasses.replace(
        context, config=_with_seed(context.config, resumption, comm=comm, job=context.link.run)
    )
    config = context.config
    plan = planning.plan_of(config, model_config, spec=context.spec, world_size=comm.size)
    optimizer = Optimizer(
        config.optimizer, config.momentum, beta1=config.beta1, beta2=config.beta2, epsilon=config.epsilon
    )
    source, type_note, restoring = resumption.path or config.restore_checkpoint_path, None, None
    if source:
        open_it = functools.partial(checkpoint.open_checkpoint, source)
        folder, manifest = on_rank_0(comm, "document", work=open_it, error=CheckpointError)
        document, type_note = manifest.document, _type_note(source, manifest.table_dtype, config.table_dtype)
        checkpoint.check_document(source, document, ("model", *(RESUMED_KEYS if resumption.resumes else ())))
        model_config.check_same(document["model"], source)
        if _restores_state(config, resumption):
            slots = {"row_slots": optimizer.row_slots, "dense_slots": optimizer.dense_slots}
            check = functools.partial(checkpoint.check_optimizer, source, **slots)
            on_rank_0(comm, "optimizer", work=check, error=CheckpointError)
        restoring = _Source(source, folder, gathering.far_from_source(config, folder, manifest=manifest, comm=comm))
    far = destinations.check(config, context.spec, comm=comm, resumes=_continues(context, resumption))
    gathering.check_left_behind(config, resumption, far=far, comm=comm)
    interaction_op, op_note = interaction.TENSORFLOW, None
    if model_config.interaction == "dot":
        interaction_op, op_note = interaction.choose_op(config.requested_interaction_op, device.device)
    embedding_op, embedding_note = native_rows.choose_op(
        config.embedding_op, device=device.device, comm=comm, dtype=config.table_dtype, on_host=bool(plan.on_host)
    )
    offloading = planning.offloading_note(config, plan, device.device)
    chosen = dataclasses.replace(context, config=dataclasses.replace(config, embedding_op=embedding_op))
    memory_lines = _check_memory(chosen, model_config, plan)
    on_rank_0(comm, "splits", work=lambda: check_splits(config, context.spec), error=FeatureSpecError)
    deduplicated, dedup_note = repeated_ids.choose_features(
        config, context.spec, tables=model_config.tables, comm=comm, on_gpu=device.gpu is not None
    )
    lines = (*unused_flags(config), *resumption.notes, *device.notes, op_note, embedding_note)
    lines = (*lines, offloading, *memory_lines, dedup_note, type_note)
    lines = (*lines, gathering.note(far, config.save_checkpoint_path, comm))
    settings = ComputeSettings(
        compute_dtype=device.compute_dtype,
        xla=config.xla,
        interaction=interaction_op,
        embedding_op=embedding_op,
        table_dtype=config.table_dtype,
        optimizer=optimizer,
        training=config.mode == "train",
        mlp_init=config.mlp_init,
        initialize_tables=source is None,
        data_parallel_input=config.data_parallel_input,
        deduplicated=deduplicated,
        safe_check=config.safe_check,
        tiers=_tiers(config),
    )
    log = _open_log(context, resumption)  # after the checks: a run that they refuse leaves an older log as it is
    with contextlib.ExitStack() as on_error:
        on_error.callback(log.close)
        for line in filter(None, lines):
            log.say(line)
        activity.doing("making the tables")
        began = time.perf_counter()
        model = Dlrm(model_config, plan, comm=comm, seed=config.seed, settings=settings)
        restored = _restore(context, model, source=restoring, resumption=resumption, log=log) if restoring else None
        if device.gpu is None:
            data = planning.data_shape_of(config, context.spec)
            memory.prepare_step_memory(preflight.step_bytes(config, model_config, plan=plan, rank=comm.rank, data=data))
        log.say(f"tables are ready after {time.perf_counter() - began:.1f} s")
        if restart := context.link.restart:
            log.record(restart.record(comm.size))
        on_error.pop_all()
    return Job(
        config,
        context.spec,
        comm=comm,
        log=log,
        model=model,
        restored=restored,
        resumption=resumption,
        link=context.link,
        far=far,
    )


@dataclass(frozen=True)
class _Source:
    """The checkpoint that a model is restored from: its path, its folder on rank 0, and who does not see it."""

    path: str
    folder: Path
    far: gathering.Far


def _type_note(source: str, stored: str, table_dtype: str) -> str | None:
    """A line for the log if the weights of a checkpoint's tables have another type than this run's."""
    if stored == table_dtype:
        return None
    if table_dtype == "bfloat16":
        return f"{source}: its tables are {stored}; their weights are rounded to the nearest {table_dtype}"
    return f"{source}: its tables are {stored}; this run has the same weights in {table_dtype}"


def _restore(context: RunContext, model: Dlrm, *, source: _Source, resumption: Resumption, log: RunLog) -> dict:
    """Restores the model from the checkpoint `source`; returns its document."""
    activity.doing(f"restoring {source.path}")
    with checkpoint.gathered(context.comm, source.far.ranks, reads=[source.folder]) as disk:
        document = checkpoint.load_checkpoint(
            disk.folder(source.folder) if disk else source.path,
            context.comm,
            dense=model.dense_by_name,
            embedding=model.embedding,
            with_state=_restores_state(context.config, resumption),
            say=log.say if context.config.mode == "train" else None,
        )
    log.say(f"{'resumed' if resumption.resumes else 'restored'} {source.path}: step {document['step']}")
    return document


def _tiers(config: TrainConfig) -> Tiers | None:
    if config.hbm_for_embeddings is None or config.embeddings_folder is None:
        return None
    return Tiers(int(config.hbm_for_embeddings * (1 << 30)), config.embeddings_folder, caching=config.caching)


def _restores_state(config: TrainConfig, resumption: Resumption) -> bool:
    """Whether a run begins with the optimizer state of its checkpoint."""
    return config.mode == "train" and (resumption.resumes or not config.fresh_optimizer)


def _with_seed(config: TrainConfig, resumption: Resumption, *, comm: Comm, job: str | None) -> TrainConfig:
    """The configuration with the seed of the resumed run, the given seed, or a drawn one: the same on all ranks."""
    if resumption.resumes:
        return dataclasses.replace(config, seed=resumption.seed)
    seed = config.seed
    if seed is None:  # of an elastic job: the same whenever its ranks are started again
        seed = random.SystemRandom().getrandbits(31) if job is None else int(job[:7], 16)
    return dataclasses.replace(config, seed=comm.broadcast_object(seed, name="seed"))


def _open_log(context: RunContext, resumption: Resumption) -> RunLog:
    """The log with its first line: the configuration, or the step after which the run is resumed."""
    config, comm, logs = context.config, context.comm, []

    def open_log() -> None:
        resumed = (resumption.run, resumption.step) if _continues(context, resumption) else None
        is_live = not context.launch.by_launcher
        logs.append(
            RunLog(config.log_file, comm.rank == 0, live=is_live, resumed=resumed, tensorboard=config.tensorboard)
        )
        if comm.rank == 0:
            logs[0].observers += context.observers
        if comm.rank == 0 and config.mllog and config.mode == "train":
            platform = f"{comm.size} x {context.device.device}"
            logs[0].observers.append(MlperfLog(config.mllog, config, platform=platform, resumes=resumed is not None))

    on_all_ranks(comm, "log", work=open_log, error=ValueError, name_ranks=False)
    log = logs[0]
    setting = {"run": resumption.run, "world_size": comm.size, "device": context.device.device}
    log.record({"resumed_step": resumption.step, **setting} if log.continues else dataclasses.asdict(config) | setting)
    return log


def _continues(context: RunContext, resumption: Resumption) -> bool:
    """Whether this run's files exist: it is resumed, or its ranks were started again, even before a checkpoint."""
    return resumption.resumes or context.link.restart is not None


def _check_memory(context: RunContext, model: ModelConfig, plan: ShardingPlan) -> list[str]:
    """The memory lines of rank 0; on all ranks, refuses a run that does not fit on one of their machines or GPUs."""
    config, comm, data = context.config, context.comm, planning.data_shape_of(context.config, context.spec)
    to_check, notes = memories.memories_to_check(context.launch, context.device, comm)

    def check() -> list[str]:
        return [preflight.check_memory(config, model, plan=plan, memory=shared, data=data) for shared in to_check]

    return [*notes, *on_all_ranks(comm, "memory", work=check, error=preflight.DoesNotFit)[0]]
