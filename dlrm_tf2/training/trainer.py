"""Mode train: the loop over the steps of a run, and what happens between two steps."""

import dataclasses
import itertools
import math
from dataclasses import dataclass

from criteo_prep.feature_spec import FeatureSpec
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data.batches import Position, open_split
from dlrm_tf2.evaluation.evaluator import Evaluation, Evaluator
from dlrm_tf2.logs.run_log import RunLog
from dlrm_tf2.model.dlrm import Dlrm
from dlrm_tf2.runtime import activity
from dlrm_tf2.runtime.elastic import NOT_ELASTIC, HostsJoin, NotElastic
from dlrm_tf2.runtime.stopping import NEVER, Stopped, StopRequest
from dlrm_tf2.training.departures import Departures
from dlrm_tf2.training.divergence import first_broken_table
from dlrm_tf2.training.key_counters import KeyCounters
from dlrm_tf2.training.loss_scaling import LossScaling
from dlrm_tf2.training.progress import TrainingProgress
from dlrm_tf2.training.run_length import length_of
from dlrm_tf2.training.saver import Saver
from dlrm_tf2.training.schedule import schedule_of
from dlrm_tf2.training.step import TrainingStep

_MOST_SKIPPED = 100  # steps skipped in a row, after which training ends: more steps will not help


class TrainingError(ValueError):
    """Training cannot continue, for example because the loss is no longer a number."""


@dataclass(frozen=True)
class StartingPoint:
    """Where a training begins.

    Attributes:
      document: document of the checkpoint that the weights come from; None for first weights. Training continues
        after the samples that this checkpoint's model has seen.
      resumes: the run that wrote the checkpoint is resumed; otherwise a new run begins.
      fingerprint: fingerprint of the dataset, for the run's checkpoints; None if it is not known.
    """

    document: dict | None = None
    resumes: bool = False
    fingerprint: str | None = None


class Trainer:
    """Trains a model on a dataset. All ranks must make the same calls.

    Args:
      config: the run.
      spec: feature spec of the dataset.
      model: this rank's part of the model.
      log: takes the lines about the run.
      saver: saves the checkpoints; None for none.
      start: where the training begins.

    Attributes:
      step: number of the last step.
    """

    def __init__(
        self,
        config: TrainConfig,
        spec: FeatureSpec,
        *,
        model: Dlrm,
        log: RunLog,
        saver: Saver | None = None,
        start: StartingPoint = StartingPoint(),  # noqa: B008 - frozen
    ):
        self._config, self._model, self._comm, self._log, self._saver = config, model, model.comm, log, saver
        self._fingerprint = start.fingerprint
        restored = start.document or {"step": 0}
        saved_run = restored.get("run", {})  # the state of the run that saved the checkpoint
        own_run = saved_run if start.resumes else {}
        # Both splits are opened now: a dataset that cannot be evaluated is refused before hours of training.
        comm, embedding = model.comm, model.embedding
        self._data = open_split(config, spec, split="train", embedding=embedding, comm=comm, restored=restored)
        self._evaluator = None
        if config.evals_per_epoch or config.eval_every:
            split = config.eval_split
            test = open_split(config, spec, split=split, embedding=embedding, comm=comm, restored=restored)
            self._evaluator = Evaluator(config, model, log=log, data=test)
        self.step, self._position = restored["step"], self._position_in(restored.get("data"), start.resumes)
        self._run_start = self.step, self._position
        self._state_began = restored.get("optimizer_state_began", 0)  # the step after which the optimizer's state was 0
        if config.fresh_optimizer and not start.resumes:
            self._state_began = self.step
        if own_run:
            self._run_start = own_run["first_step"] - 1, Position(*own_run["first_position"])
        self._length = length_of(config, self._data, step=self._run_start[0], position=self._run_start[1])
        self._best_auc = own_run.get("best_auc")
        self._evaluation: Evaluation | None = None
        self._evaluated = own_run.get("evaluated", True)  # False: the evaluation after the last step is still due
        self._keys = KeyCounters(embedding, comm, own_run.get("key_counters"))
        self._scaling = None
        if model.compute_dtype == "float16":
            self._scaling = LossScaling(config.loss_scale, config.loss_scaling == "dynamic")
            if saved_run.get("loss_scaling"):
                self._scaling.restore(saved_run["loss_scaling"])
        factor = model.comm.size if config.sok_gradients else 1
        self._training_step = TrainingStep(
            model,
            self._scaling,
            table_factor=factor,
            ahead=config.pipeline == "on",
            state_began=self._state_began,
        )
        self._schedule = schedule_of(config)
        self._departures = Departures(config, embedding, self._length.last)
        self._unread, self._loss = None, math.nan
        self._stop_requested = self._own_tables_broken = self._reached = False
        self._skipped, self._skipped_in_a_row = own_run.get("skipped_steps", 0), 0

    def train(self, stop: StopRequest = NEVER, link: NotElastic = NOT_ELASTIC) -> dict:
        """Trains to the last step of the run. Returns the flat summary.

        Args:
          stop: whether this process was asked to stop.
          link: the link to the supervisor of an elastic job.

        Raises:
          TrainingError: the model has diverged: the loss or an updated weight is not finite.
          Stopped: a rank was asked to stop; the trained model is saved.
          HostsJoin: an elastic job has saved a checkpoint, from which it resumes on more or other hosts.
        """
        self._say_length()
        self._comm.broadcast(self._model.dense_variables)  # of the same seed, but processors may round differently
        progress = TrainingProgress(
            self._config, self._comm, log=self._log, length=self._length, step=self.step, keys=self._keys
        )
        for observer in self._log.observers:
            num_eval = self._evaluator.num_samples if self._evaluator else 0
            observer.training_begins(
                self._data.num_samples, num_eval, epoch=self._epoch(), epochs=self._epochs_to_evaluation()
            )
        success = False
        try:
            with progress:
                summary = self._take_steps(progress, stop, link)
            success = self._config.auc_threshold is None or self._reached
        finally:
            for observer in self._log.observers:
                observer.training_ends(self._epoch(), success)
        return summary

    def _take_steps(self, progress: TrainingProgress, stop: StopRequest, link: NotElastic) -> dict:
        config, last, first = self._config, self._length.last, self.step + 1
        if not self._evaluated and self._evaluate(progress):  # the run was stopped between a step and its evaluation
            last = self.step
        batches = itertools.islice(self._data.passes(config.batch_size, self._position), max(last - self.step, 0))
        pairs = progress.batches(self._training_step.with_next(batches))
        for step, (batch, next_batch) in zip(range(first, last + 1), pairs, strict=False):
            activity.doing(f"training step {step}")
            learning_rate = self._schedule.at(step)
            unread = self._training_step(batch, learning_rate, step=step, stop=stop.asked, next_batch=next_batch)
            self._read_outcome()  # of the step before; on a GPU, this step runs meanwhile
            self._unread, self.step, self._position = unread, step, batch.after
            self._departures.after(step)
            self._evaluated = step not in self._length.evaluate_after
            progress.step_done(step, batch.global_batch, self._loss)
            if regained := link.step_done(step, self._saver and self._saver.saved_step):
                self._log.record(regained)
            if step % config.print_freq == 0 or step == last:
                self._read_outcome()
                progress.log_steps(self._loss, learning_rate, self._skipped)
                if self._saver:
                    self._saver.poll()
            if self._stop_requested:
                break
            if not self._evaluated:
                if self._evaluate(progress):
                    last = step
                    break
                for observer in self._log.observers if step != last else ():
                    observer.training_continues(self._epoch(), self._epochs_to_evaluation())
            if config.checkpoint_every and step % config.checkpoint_every == 0 and step != last:
                with progress.paused():
                    self._save(wait=False)
                    self._make_room(link)
            activity.doing(f"waiting for the data of step {step + (1 if next_batch is None else 2)}")
        self._check_tables()
        if self._stop_requested and (self.step < last or not self._evaluated):
            self._save()
            signals = self._comm.allgather_object(stop.signal, name="stopped_by")
            saved_step = self._saver and self._saver.saved_step
            raise Stopped(self.step, saved_step, signals=signals, checkpoint=config.save_checkpoint_path)
        summary = progress.summary(self._evaluation, self._skipped)
        self._log.record(summary)
        self._save(finished=True)
        link.report(finished=True)
        return summary

    def _make_room(self, link: NotElastic) -> None:
        """Ends the training of an elastic job, on all ranks, if hosts wait that shall train from this checkpoint on."""
        if self._config.elastic and (hosts := self._comm.broadcast_object(link.hosts, name="hosts")):
            self._saver.complete()
            raise HostsJoin(f"step {self.step} is saved; the next start has {hosts}")

    def _read_outcome(self) -> None:
        """Reads the outcome of the last step, and ends a training that cannot continue."""
        if self._unread is None:
            return
        outcome, self._unread = self._training_step.outcome(self._unread), None
        self._loss = outcome.loss
        self._stop_requested |= outcome.stops > 0
        self._skipped += outcome.skipped
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if outcome.skipped else 0
        if not math.isfinite(outcome.loss):
            raise TrainingError(
                f"step {self.step}: the loss is {outcome.loss}. {self._kept()} Lower --learning_rate or lengthen "
                "--warmup_steps."
            )
        if outcome.broken_variable:
            self._stop_diverged(self.step, outcome.broken_variable)
        if outcome.tables_broken_before:
            self._stop_diverged(self.step - 1, self._broken_table())
        self._own_tables_broken = outcome.own_tables_broken
        if self._own_tables_broken and self._comm.size == 1:
            self._stop_diverged(self.step, self._broken_table())
        if self._skipped_in_a_row == _MOST_SKIPPED:
            raise TrainingError(
                f"step {self.step}: the gradients of the last {_MOST_SKIPPED} steps overflowed in float16. "
                f"{self._kept()} Use --loss_scaling dynamic, a lower --loss_scale, or --amp_dtype bfloat16."
            )

    def _check_tables(self) -> None:
        """Ends training, on all ranks, if the last step left a table of any rank with a number that is not finite."""
        self._read_outcome()
        if any(self._comm.allgather_object(self._own_tables_broken, name="tables_broken")):
            self._stop_diverged(self.step, self._broken_table())

    def _broken_table(self) -> str:
        """Name of the first such table on the ranks where the tables broke. All ranks must call it."""
        activity.doing("looking for the table that is not finite")
        own = first_broken_table(self._model.embedding) if self._own_tables_broken else None
        tables = self._comm.allgather_object(own, name="broken_table")
        order = [table.name for table in self._model.embedding.tables]
        return min(filter(None, tables), key=order.index, default="an embedding table")

    def _stop_diverged(self, step: int, name: str) -> None:
        raise TrainingError(
            f"step {step}: {name} is not finite after the update: the model has diverged. {self._kept()} Lower "
            "--learning_rate or lengthen --warmup_steps."
        )

    def _evaluate(self, progress: TrainingProgress) -> bool:
        """Scores the test split. Returns whether the AUC has reached --auc_threshold."""
        self._check_tables()  # and the time of the step is not the time of the evaluation
        with progress.paused():
            for observer in self._log.observers:
                observer.evaluation_begins(self._epoch())
            with progress.evaluating(), self._keys.evaluating():
                self._evaluation = evaluation = self._evaluator.evaluate()
            self._evaluated = True
            progress.evaluated(evaluation)
            for observer in self._log.observers:
                observer.evaluated(
                    self._config.eval_split, evaluation.auc, num_samples=evaluation.num_samples, epoch=self._epoch()
                )
            if evaluation.auc is not None and evaluation.auc > (self._best_auc or 0.0):
                self._best_auc = evaluation.auc
                if self._config.keep_best and self._saver:
                    self._saver.save_best(self._document(finished=False))
        threshold = self._config.auc_threshold
        self._reached = threshold is not None and (evaluation.auc or 0.0) >= threshold
        if self._reached:
            self._log.say(f"AUC {evaluation.auc:.6f} has reached --auc_threshold {threshold:.6g}")
        return self._reached

    def _epoch(self) -> float:
        """The passes over the training data so far."""
        return self.step / self._length.steps_per_epoch

    def _epochs_to_evaluation(self) -> float:
        """The passes from here to the next evaluation; without one, to the last step."""
        next_step = min((step for step in self._length.evaluate_after if step > self.step), default=self._length.last)
        return (next_step - self.step) / self._length.steps_per_epoch

    def _save(self, finished: bool = False, wait: bool = True) -> None:
        if self._saver:
            self._check_tables()
            self._saver.save(self._document(finished), wait)

    def _document(self, finished: bool) -> dict:
        """What a checkpoint keeps besides the weights."""
        step, position = self._run_start
        run = {
            "finished": finished,
            "fingerprint": self._fingerprint,
            "first_step": step + 1,
            "first_position": list(position),
            "best_auc": self._best_auc,
            "evaluated": self._evaluated,
            "skipped_steps": self._skipped,
            "loss_scaling": self._scaling and self._scaling.document(),
            "key_counters": self._keys.totals().tolist(),
        }
        return {
            "model": self._model.config.document(),
            "step": self.step,
            "optimizer_state_began": self._state_began,
            "run": run,
            "data": self._data.document(self._position),
            "config": dataclasses.asdict(self._config),
        }

    def _kept(self) -> str:
        """The sentence that says which checkpoint a failed training leaves."""
        return self._saver.kept() if self._saver else "No checkpoint was saved."

    def _position_in(self, data: dict | None, resumes: bool) -> Position:
        """The position in the training data where training begins."""
        position = self._data.position_in(data) if data else Position()
        if position is None and resumes:
            raise TrainingError(
                f"{self._config.dataset_path}: is not the training data of the interrupted run, which had "
                f"{data['num_samples']} samples. Bring that data back, or begin a new run with --resume off."
            )
        if position is None:
            self._log.say(
                "The checkpoint comes from other training data, or from another order: this run begins a new pass."
            )
            return Position()
        return position

    def _say_length(self) -> None:
        config, data, say, last = self._config, self._data, self._log.say, self._length.last
        for note in self._length.notes:
            say(note)
        if data.num_samples < config.batch_size and not config.drop_last:
            say(
                f"The training split holds {data.num_samples} samples, fewer than batch_size {config.batch_size}: "
                f"each step trains on all {data.num_samples}."
            )
        say(
            f"train: {data.num_samples} samples, {self._length.steps_per_epoch} steps an epoch; "
            f"steps {self.step + 1} to {last}"
        )
        if self._position != Position():
            say(f"data: continues at sample {self._position.sample} of pass {self._position.epoch + 1}")
        if config.drop_last and data.num_samples % config.batch_size:
            say(f"drop_last: the last {data.num_samples % config.batch_size} samples of each pass are not trained on")
        if (end := self._schedule.last_step) is not None:
            say(
                f"learning rate: 0 from step {end} on; the last step is {last}"
                + (f". Warning: {last - max(end - 1, self.step)} steps learn nothing." if last >= end else "")
            )
