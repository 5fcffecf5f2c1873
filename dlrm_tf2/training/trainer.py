"""Mode train: the steps of a run, and what is done between them."""

import dataclasses
import math

from criteo_prep.feature_spec import FeatureSpec
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data.batches import Position, open_split
from dlrm_tf2.evaluation.evaluator import Evaluation, Evaluator
from dlrm_tf2.logs.run_log import RunLog
from dlrm_tf2.model.dlrm import Dlrm
from dlrm_tf2.runtime import activity
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.runtime.stopping import NEVER, Stopped, StopRequest
from dlrm_tf2.training.loss_scaling import LossScaling
from dlrm_tf2.training.progress import TrainingProgress
from dlrm_tf2.training.run_length import length_of
from dlrm_tf2.training.saver import Saver
from dlrm_tf2.training.schedule import Schedule
from dlrm_tf2.training.step import TrainingStep

_MOST_SKIPPED = 100  # steps skipped one after the other, after which more of them will not help


class TrainingError(ValueError):
    """Training cannot go on, such as when the loss is no longer a number."""


class Trainer:
    """Trains a model on a dataset.

    Args:
      config: the run.
      spec: the dataset's feature spec.
      model: this rank's part of the model.
      comm: the ranks.
      log: where to say what happens.
      saver: saves checkpoints; None for none.
      restored: the document of the checkpoint that the model's weights come from. Training goes on behind the samples
        that it has seen.
      resumes: this is the run that wrote that checkpoint, going on; otherwise a new one.
      stop: whether the process was asked to stop.
    """

    def __init__(
        self,
        config: TrainConfig,
        spec: FeatureSpec,
        *,
        model: Dlrm,
        comm: Comm,
        log: RunLog,
        saver: Saver | None = None,
        restored: dict | None = None,
        resumes: bool = False,
        stop: StopRequest = NEVER,
    ):
        self._config, self._model, self._comm, self._log, self._stop = config, model, comm, log, stop
        self._saver = saver
        restored = restored or {"step": 0}
        before = restored.get("run", {})  # what the run that saved it kept of itself
        own = before if resumes else {}
        # Both splits are opened now, so that a dataset that cannot be evaluated is refused before hours of training.
        self._data = open_split(config, spec, split="train", embedding=model.embedding, comm=comm, restored=restored)
        self._evaluator = None
        if config.evals_per_epoch or config.eval_every:
            test = open_split(config, spec, split="test", embedding=model.embedding, comm=comm, restored=restored)
            self._evaluator = Evaluator(config, model, comm=comm, log=log, data=test)
        self.step, self._position = restored["step"], self._position_in(restored.get("data"), resumes)
        self._began = self.step, self._position
        self._state_began = restored.get("optimizer_state_began", 0)  # after this step, the optimizer's state was 0
        if config.fresh_optimizer and not resumes:
            self._state_began = self.step
        if own:
            self._began = own["first_step"] - 1, Position(*own["first_position"])
        self._length = length_of(config, self._data, step=self._began[0], position=self._began[1])
        self._best_auc = own.get("best_auc")
        self._evaluation: Evaluation | None = None
        self._evaluated = own.get("evaluated", True)  # as far as an evaluation was due
        self._scaling = None
        if model.compute_dtype == "float16":
            self._scaling = LossScaling(config.loss_scale, config.loss_scaling == "dynamic")
            if before.get("loss_scaling"):
                self._scaling.restore(before["loss_scaling"])
        self._training_step = TrainingStep(model, comm, self._scaling)
        self._schedule = Schedule(
            config.learning_rate,
            config.warmup_steps,
            decay_start_step=config.decay_start_step,
            decay_steps=config.decay_steps,
        )
        self._unread, self._loss, self._asked_to_stop = None, math.nan, False
        self._skipped, self._skipped_in_a_row = own.get("skipped_steps", 0), 0

    def train(self) -> dict:
        """Trains to the last step of the run. Returns the flat summary.

        Raises:
          TrainingError: the loss is no longer a number.
          Stopped: a rank was asked to stop; what was trained is saved.
        """
        self._say_length()
        self._comm.broadcast(self._model.dense_variables)  # of the same seed, but made on processors that may differ
        with TrainingProgress(self._config, self._comm, log=self._log, length=self._length, step=self.step) as watch:
            return self._take_steps(watch)

    def _take_steps(self, watch: TrainingProgress) -> dict:
        config, last, first = self._config, self._length.last, self.step + 1
        if not self._evaluated and self._evaluate(watch):  # it was stopped between a step and its evaluation
            last = self.step
        batches = watch.batches(self._data.passes(config.batch_size, self._position))
        for step, batch in zip(range(first, last + 1), batches, strict=False):
            activity.doing(f"training step {step}")
            learning_rate = self._schedule.at(step)
            unread = self._training_step(batch, learning_rate, step - self._state_began, self._stop.asked)
            self._read()  # of the step before: on a GPU, this one runs meanwhile
            self._unread, self.step, self._position = unread, step, batch.after
            self._evaluated = step not in self._length.evaluate_after
            watch.step_done(step, batch.global_batch, self._loss)
            if step % config.print_freq == 0 or step == last:
                self._read()
                watch.log_steps(self._loss, learning_rate, self._skipped)
                if self._saver:
                    self._saver.poll()
            if self._asked_to_stop:
                break
            if not self._evaluated and self._evaluate(watch):
                last = step
                break
            if config.checkpoint_every and step % config.checkpoint_every == 0 and step != last:
                with watch.paused():
                    self._save(wait=False)
            activity.doing(f"waiting for the data of step {step + 1}")
        self._read()
        if self._asked_to_stop and (self.step < last or not self._evaluated):
            self._save()
            signals = self._comm.allgather_object(self._stop.signal, name="stopped_by")
            saved_step = self._saver and self._saver.saved_step
            raise Stopped(self.step, saved_step, signals=signals, checkpoint=config.save_checkpoint_path)
        summary = watch.summary(self._evaluation, self._skipped)
        self._log.record(summary)
        self._save(finished=True)
        return summary

    def _read(self) -> None:
        """Reads what the step before has come to, and ends training where it cannot go on."""
        if self._unread is None:
            return
        outcome, self._unread = self._training_step.outcome(self._unread), None
        self._loss = outcome.loss
        self._asked_to_stop |= outcome.stops > 0
        self._skipped += outcome.skipped
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if outcome.skipped else 0
        if not math.isfinite(outcome.loss):
            raise TrainingError(
                f"step {self.step}: the loss is {outcome.loss}. {self._kept()} Lower --learning_rate or lengthen "
                "--warmup_steps."
            )
        if self._skipped_in_a_row == _MOST_SKIPPED:
            raise TrainingError(
                f"step {self.step}: the gradients of the last {_MOST_SKIPPED} steps overflowed in float16. "
                f"{self._kept()} Use --loss_scaling dynamic, a lower --loss_scale, or --amp_dtype bfloat16."
            )

    def _evaluate(self, watch: TrainingProgress) -> bool:
        """Scores the test split. Returns whether training has come to what --auc_threshold asks for."""
        self._read()  # its time is not the evaluation's
        with watch.paused():
            self._evaluation = evaluation = self._evaluator.evaluate()
            self._evaluated = True
            watch.evaluated(evaluation)
            if evaluation.auc is not None and evaluation.auc > (self._best_auc or 0.0):
                self._best_auc = evaluation.auc
                if self._config.keep_best and self._saver:
                    self._saver.save_best(self._document(finished=False))
        threshold = self._config.auc_threshold
        reached = threshold is not None and (evaluation.auc or 0.0) >= threshold
        if reached:
            self._log.say(f"AUC {evaluation.auc:.6f} has reached --auc_threshold {threshold}")
        return reached

    def _save(self, finished: bool = False, wait: bool = True) -> None:
        if self._saver:
            self._read()
            self._saver.save(self._document(finished), wait)

    def _document(self, finished: bool) -> dict:
        """What a checkpoint keeps beside the weights."""
        step, position = self._began
        run = {
            "finished": finished,
            "first_step": step + 1,
            "first_position": list(position),
            "best_auc": self._best_auc,
            "evaluated": self._evaluated,
            "skipped_steps": self._skipped,
            "loss_scaling": self._scaling and self._scaling.document(),
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
        """What of the training is on disk, for the message that it failed."""
        return self._saver.kept() if self._saver else "No checkpoint was saved."

    def _position_in(self, data: dict | None, resumes: bool) -> Position:
        """Where training goes on in its data."""
        position = self._data.position_in(data) if data else Position()
        if position is None and resumes:
            raise TrainingError(
                f"{self._config.dataset_path}: is not the training data that the interrupted run had, which was "
                f"{data['num_samples']} samples. Bring that back, or begin a new run with --resume off."
            )
        if position is None:
            self._log.say(
                "The checkpoint's training data was other data, or in another order: this run begins a new pass."
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
            say(f"data: on from sample {self._position.sample} of pass {self._position.epoch + 1}")
        if config.drop_last and data.num_samples % config.batch_size:
            say(f"drop_last: the last {data.num_samples % config.batch_size} samples of each pass are not trained on")
        end = self._schedule.last_step
        say(
            f"learning rate: 0 from step {end} on; the last step is {last}"
            + (f". Warning: {last - max(end - 1, self.step)} steps learn nothing." if last >= end else "")
        )
