"""The three modes: train, evaluate, benchmark inference."""

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from criteo_prep.feature_spec import FeatureSpec
from dlrm_tf2 import metrics
from dlrm_tf2.comm import Comm
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data import Position, RankBatch, RankData, Reading
from dlrm_tf2.embedding.ids import RankIds
from dlrm_tf2.model import Dlrm
from dlrm_tf2.optim import Schedule
from dlrm_tf2.run_log import RunLog
from dlrm_tf2.step_clock import StepClock

_INFERENCE_WARMUP = 10  # batches whose latency does not count, as published


class TrainingError(ValueError):
    """Training cannot go on, such as when the loss is no longer a number."""


@dataclass(frozen=True)
class Evaluation:
    """AUC (None when the split has only one class), mean binary cross entropy, and samples scored."""

    auc: float | None
    loss: float
    num_samples: int

    def line(self) -> str:
        """For people: `AUC 0.xxxxxx, ...`."""
        auc = "undefined" if self.auc is None else f"{self.auc:.6f}"
        return f"AUC {auc}, test loss {self.loss:.6f}, {self.num_samples} samples"


class Trainer:
    """Runs a model over a dataset.

    Args:
      config: the run.
      spec: the dataset's feature spec.
      model: this rank's part of the model.
      comm: the ranks.
      log: where to say what happens.
      step: training steps that the model has already had (from a checkpoint).
      data: data_document() of the run that saved the checkpoint; training goes on behind the samples that it has seen.
    """

    def __init__(
        self,
        config: TrainConfig,
        spec: FeatureSpec,
        model: Dlrm,
        comm: Comm,
        log: RunLog,
        step: int = 0,
        data: dict | None = None,
    ):
        self._config, self._spec, self._model, self._comm, self._log = config, spec, model, comm, log
        self.step = step
        self._schedule = Schedule(
            config.learning_rate, config.warmup_steps, config.decay_start_step, config.decay_steps
        )
        self._loss_scale = config.loss_scale if config.amp else 1.0
        # Opened now, so that a dataset that cannot be evaluated is refused before hours of training.
        self._data_seed = data["seed"] if data else config.seed or 0
        self._training = self._data("train") if config.mode == "train" else None
        self._position = self._training.position_in(data) if data and self._training else Position()
        if self._position is None:
            log.say("The checkpoint's training data was other data, or in another order: this run begins a new pass.")
            self._position = Position()
        self._test = self._data("test") if config.mode != "train" or config.evals_per_epoch else None
        label = tf.TensorSpec([None], tf.float32)
        numerical = tf.TensorSpec([None, model.config.num_numerical], tf.float32)
        scalar = tf.TensorSpec([], tf.float32)
        ids = model.embedding.signature
        self._train_step = tf.function(self._train_step, input_signature=[label, numerical, ids, scalar, scalar])
        self._forward = tf.function(self._forward, input_signature=[numerical, ids])

    def train(self) -> dict:
        """Trains for the steps that the configuration asks for. Returns the flat summary."""
        config, log = self._config, self._log
        data = self._training
        steps_per_epoch = data.num_batches(config.batch_size)
        steps, epochs = self._length(data, steps_per_epoch)
        first, last = self.step + 1, self.step + steps
        self._say_length(data, steps_per_epoch, last)
        evaluate_after = self._evaluation_steps(data, steps_per_epoch, epochs, steps)
        self._comm.broadcast(self._model.dense_variables)
        clock = StepClock(warmup=min(2 * config.print_freq, steps // 2))
        evaluation = None
        batches = clock.waiting_for(data.passes(config.batch_size, self._position))
        for self.step, batch in zip(range(first, last + 1), batches, strict=False):
            self._position = batch.after
            learning_rate = self._schedule.at(self.step)
            loss = self._train_step(batch.label, batch.numerical, batch.ids, learning_rate, float(self.step))
            clock.count(batch.global_batch)
            done = self.step - first + 1
            if self.step % config.print_freq == 0 or self.step == last:
                self._log_step(float(loss), learning_rate, clock, done, steps)
            if done in evaluate_after:
                float(loss)  # on a GPU, wait for the step: its time is not the evaluation's
                with clock.paused():
                    evaluation = self.evaluate()
                    self._log_evaluation(evaluation)
        throughput, step_ms, _ = clock.mean()
        summary = {"throughput": throughput, "mean_step_time_ms": step_ms}
        if evaluation:
            summary |= {"auc": evaluation.auc, "validation_loss": evaluation.loss}
        log.record(summary)
        return summary

    def data_document(self) -> dict:
        """Where training stands in its data, for a checkpoint."""
        return self._training.document(self._position)

    def evaluate(self) -> Evaluation:
        """Scores every sample of the test split once (or max_steps batches in mode eval), over all ranks."""
        logits, labels = [], []
        for batch in self._test_batches():
            logits.append(self._forward(batch.numerical, batch.ids).numpy())
            labels.append(batch.label > 0.5)
        return self._scored(logits, labels)

    def evaluate_only(self) -> Evaluation:
        """Mode eval: evaluates the restored model and records the flat summary."""
        evaluation = self.evaluate()
        self._log.record({"auc": evaluation.auc, "test_loss": evaluation.loss})
        return evaluation

    def infer(self) -> dict:
        """Scores the test split batch by batch, the way a server would, and times each. Returns the flat summary."""
        latencies, logits, labels = [], [], []
        for batch in self._test_batches():
            if not latencies:
                self._forward(batch.numerical, batch.ids)  # traces and compiles
            start = time.perf_counter()
            logits.append(self._forward(batch.numerical, batch.ids).numpy())
            latencies.append((time.perf_counter() - start, batch.global_batch))
            labels.append(batch.label > 0.5)
        evaluation = self._scored(logits, labels)
        timed = latencies[min(_INFERENCE_WARMUP, len(latencies) // 2) :]
        seconds = np.array([latency for latency, _ in timed])
        summary = {
            "mean_inference_throughput": sum(size for _, size in timed) / seconds.sum(),
            "mean_inference_latency": float(seconds.mean()),
            **{f"p{p}_inference_latency": float(np.percentile(seconds, p)) for p in (90, 95, 99)},
            "auc": evaluation.auc,
        }
        self._log.record(summary)
        return summary

    def _train_step(
        self, label: tf.Tensor, numerical: tf.Tensor, ids: RankIds, learning_rate: tf.Tensor, step: tf.Tensor
    ) -> tf.Tensor:
        """Step number `step` (the first is 1). Returns the mean loss over the global batch, before the update."""
        model, dense, scale = self._model, self._model.dense_variables, self._loss_scale
        global_batch = tf.cast(tf.shape(ids.of_all.fixed)[0], tf.float32)
        looked = model.lookup(ids)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([looked.vectors, dense])
            logits = model.logits(numerical, looked)
            # This rank's share of the mean over the global batch: shares add up, whatever the ranks' batch sizes.
            loss = tf.reduce_sum(tf.nn.sigmoid_cross_entropy_with_logits(label, logits)) / global_batch
            scaled = loss * scale
        row_gradients, dense_gradients = tape.gradient(scaled, [looked.vectors, dense])
        loss, *dense_gradients = self._comm.allreduce_sum([loss, *dense_gradients], name="loss_and_dense_gradients")
        model.dense_optimizer.apply(dense_gradients, learning_rate, step, scale)
        zero = model.embedding.apply_gradient(looked, row_gradients, learning_rate, step, scale)
        return loss + zero  # so that a rank takes part in exchanges of which it has no use, see apply_gradient

    def _forward(self, numerical: tf.Tensor, ids: RankIds) -> tf.Tensor:
        """Logits of this rank's samples, [local batch]."""
        return self._model.logits(numerical, self._model.lookup(ids))

    def _data(self, split: str) -> RankData:
        config, embedding, comm = self._config, self._model.embedding, self._comm
        samples = None
        if config.dataset_type == "synthetic":
            samples = (config.synthetic_dataset_train_batches * config.batch_size if split == "train"
                       else config.synthetic_dataset_valid_batches * config.valid_batch_size)
        if split == "train":
            reading = Reading(config.shuffle, config.shuffle_window, self._data_seed, config.drop_last, samples)
        else:
            reading = Reading(seed=self._data_seed, synthetic_samples=samples)
        features = embedding.global_features, embedding.sample_features
        return RankData(self._spec, split, *features, comm.rank, comm.size, reading)

    def _test_batches(self) -> Iterator[RankBatch]:
        """The test split, with its progress shown; in the modes eval and inference at most max_steps batches of it."""
        size, limit = self._config.valid_batch_size, self._config.max_steps
        num_batches = self._test.num_batches(size)
        if self._config.mode != "train" and limit != -1:
            num_batches = min(num_batches, limit)
        start = time.perf_counter()
        for number, batch in enumerate(itertools.islice(self._test.batches(size), num_batches), 1):
            yield batch
            left_s = (time.perf_counter() - start) / number * (num_batches - number)
            self._log.live(f"test split: batch {number} of {num_batches}, {left_s:.0f} s left")
        self._log.live("")

    def _length(self, data: RankData, steps_per_epoch: int) -> tuple[int, int]:
        """(steps to run, passes over the data that they need). What is left of a pass begun before counts as one."""
        max_steps, epochs = self._config.max_steps, self._config.epochs
        first = data.num_batches(self._config.batch_size, self._position.sample)
        of_epochs = first + steps_per_epoch * ((epochs or 1) - 1)
        if of_epochs == 0:
            raise TrainingError(
                f"drop_last leaves none of {data.num_samples} training samples: batch_size is "
                f"{self._config.batch_size}. Lower it."
            )
        if max_steps == -1:
            return of_epochs, epochs or 1
        if epochs is not None and of_epochs < max_steps:
            self._log.say(f"max_steps {max_steps} is more than {epochs} epochs have: {of_epochs} steps.")
            max_steps = of_epochs
        return max_steps, 1 + max(0, -(-(max_steps - first) // steps_per_epoch))

    def _say_length(self, data: RankData, steps_per_epoch: int, last: int) -> None:
        batch_size, say = self._config.batch_size, self._log.say
        if data.num_samples < batch_size and not self._config.drop_last:
            say(f"The training split holds {data.num_samples} samples, fewer than batch_size {batch_size}: "
                f"each step trains on all {data.num_samples}.")
        say(f"train: {data.num_samples} samples, {steps_per_epoch} steps an epoch; steps {self.step + 1} to {last}")
        if self._position != Position():
            say(f"data: on from sample {self._position.sample} of pass {self._position.epoch + 1}")
        if self._config.drop_last and data.num_samples % batch_size:
            say(f"drop_last: the last {data.num_samples % batch_size} samples of each pass are not trained on")
        end = self._schedule.last_step
        say(f"learning rate: 0 from step {end} on; the last step is {last}"
            + (f". Warning: {last - max(end - 1, self.step)} steps learn nothing." if last >= end else ""))

    def _evaluation_steps(self, data: RankData, steps_per_epoch: int, epochs: int, steps: int) -> set[int]:
        """Which of the steps of this run, counted from 1, an evaluation follows."""
        per_epoch = self._config.evals_per_epoch
        if per_epoch == 0:
            return set()
        before = steps_per_epoch - data.num_batches(self._config.batch_size, self._position.sample)
        spaced = {
            epoch * steps_per_epoch + math.ceil(steps_per_epoch * part / per_epoch) - before
            for epoch in range(epochs)
            for part in range(1, per_epoch + 1)
        }
        return {step for step in spaced if 0 < step < steps} | {steps}

    def _scored(self, logits: list[np.ndarray], labels: list[np.ndarray]) -> Evaluation:
        """The metrics over all ranks' samples, computed once, on rank 0."""
        logits_of_all = self._comm.allgather(np.concatenate(logits), name="evaluation_logits")
        labels_of_all = self._comm.allgather(np.concatenate(labels), name="evaluation_labels")
        evaluation = None
        if self._comm.rank == 0:
            evaluation = self._metrics(logits_of_all, labels_of_all)
        return self._comm.broadcast_object(evaluation, name="evaluation")

    def _metrics(self, logits: np.ndarray, labels: np.ndarray) -> Evaluation:
        auc = None
        if labels.all() or not labels.any():
            self._log.say("AUC is not defined: every label of the test split is the same.")
        elif self._config.auc_thresholds is None:
            auc = metrics.auc_exact(logits, labels)
        else:
            auc = metrics.auc_binned(logits, labels, self._config.auc_thresholds)
        return Evaluation(auc, metrics.log_loss(logits, labels), len(labels))

    def _log_step(self, loss: float, learning_rate: float, clock: "StepClock", done: int, steps: int) -> None:
        samples_per_s, step_ms, data_wait_ms = clock.lap()
        self._log.record({"step": self.step, "loss": loss, "learning_rate": learning_rate,
                          "samples_per_s": samples_per_s, "step_ms": step_ms, "data_wait_ms": data_wait_ms})
        left_s = (steps - done) * step_ms / 1e3
        self._log.say(f"step {self.step} ({done}/{steps}): loss {loss:.5f}, learning rate {learning_rate:.4g}, "
                      f"{samples_per_s:,.0f} samples/s, {step_ms:.1f} ms, {left_s:.0f} s left")
        if not math.isfinite(loss):
            raise TrainingError(
                f"step {self.step}: the loss is {loss}. No checkpoint was saved. Lower --learning_rate or lengthen "
                "--warmup_steps."
            )

    def _log_evaluation(self, evaluation: Evaluation) -> None:
        self._log.record({"step": self.step, "auc": evaluation.auc, "test_loss": evaluation.loss})
        self._log.say(f"step {self.step}: {evaluation.line()}")

