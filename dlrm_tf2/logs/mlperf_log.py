"""The log of a training in the format of MLPerf, by MLPerf's own package. A DLRM is `dlrm`, a DCNv2 `dlrm_dcnv2`.

Source: the rules "training 2.1.0" (dlrm) and "training 6.0.0" (dlrm_dcnv2) of the package's compliance checker.
"""

import importlib.util
import logging
from pathlib import Path

from dlrm_tf2.config import TrainConfig
from dlrm_tf2.logs.run_observer import RunObserver
from dlrm_tf2.runtime import terminal

_POWER = 2  # of the learning rate's fall


class MlperfLogError(ValueError):
    """The log cannot be written."""


def check_destination(path: str, resumes: bool) -> None:
    """Raises MlperfLogError unless the package is installed, and `path` is free or the log of a run that is resumed."""
    if importlib.util.find_spec("mlperf_logging") is None:
        raise MlperfLogError(
            f"--mllog {path}: needs the package mlperf-logging. Install it: pip install 'criteo-dlrm[mlperf]'."
        )
    if Path(path).exists() and not resumes:
        raise MlperfLogError(f"--mllog {path}: exists, and such a log holds one run. Name another file.")
    if not Path(path).absolute().parent.is_dir():
        raise MlperfLogError(f"--mllog {path}: its folder does not exist. Make it, or name another file.")


class MlperfLog(RunObserver):
    """Writes the log from the initialisation to the end of a training.

    Args:
      path: a new file, or the log of the resumed run.
      config: the run.
      platform: what it runs on, such as "2 x cpu".
      resumes: the run is resumed; its log continues, if the file exists.

    Raises:
      MlperfLogError: the file cannot be opened.
    """

    def __init__(self, path: str, config: TrainConfig, *, platform: str, resumes: bool = False):
        from mlperf_logging.mllog.mllog import MLLogger

        logger = logging.Logger("mlperf", logging.INFO)
        self._continues, self._block = resumes and Path(path).exists(), None
        try:
            self._file = _File(path, mode="a" if self._continues else "x", encoding="utf-8")
        except OSError as error:
            raise MlperfLogError(f"--mllog {path}: cannot be opened: {error.strerror}. Name another file.") from None
        logger.addHandler(self._file)
        self._log = MLLogger(logger, root_dir=str(Path(__file__).resolve().parents[2]))
        if self._continues:
            return
        self._log.event("cache_clear", True)
        self._log.start("init_start")
        for key, value in {**_submission(config, platform), **_hyperparameters(config)}.items():
            self._log.event(key, value)
        for tensor in _tensors(config):
            self._log.event("weights_initialization", metadata={"tensor": tensor})

    def training_begins(self, num_train: int, num_eval: int, *, epoch: float, epochs: float) -> None:
        if not self._continues:
            self._log.event("train_samples", num_train)
            self._log.event("eval_samples", num_eval)
            self._log.end("init_stop")
            self._log.start("run_start")
        self.training_continues(epoch, epochs)

    def training_continues(self, epoch: float, epochs: float) -> None:
        self._log.start("block_start", metadata={"first_epoch_num": epoch, "epoch_count": epochs})
        self._block = epoch

    def evaluation_begins(self, epoch: float) -> None:
        self._end_block()
        self._log.start("eval_start", metadata={"epoch_num": epoch})

    def evaluated(self, split: str, auc: float | None, *, num_samples: int, epoch: float) -> None:
        if auc is not None:
            self._log.event("eval_accuracy", auc, metadata={"epoch_num": epoch})
        self._log.end("eval_stop", metadata={"epoch_num": epoch})

    def training_ends(self, epoch: float, success: bool) -> None:
        self._end_block()
        self._log.end("run_stop", metadata={"status": "success" if success else "aborted", "epoch_num": epoch})
        self._file.close()

    def _end_block(self) -> None:
        if self._block is not None:
            self._log.end("block_stop", metadata={"first_epoch_num": self._block})
        self._block = None


class _File(logging.FileHandler):
    """A record that cannot be written does not end the run: a warning says so once."""

    _has_warned = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name in logging
        if not self._has_warned:
            terminal.warn(
                f"--mllog {self.baseFilename}: cannot be written. The run continues, and the log misses lines."
            )
        self._has_warned = True


def _submission(config: TrainConfig, platform: str) -> dict[str, object]:
    return {
        "submission_benchmark": "dlrm_dcnv2" if config.interaction == "cross" else "dlrm",
        "submission_org": "reference_implementation",
        "submission_division": "closed",
        "submission_status": "onprem",
        "submission_platform": platform,
    }


def _hyperparameters(config: TrainConfig) -> dict[str, object]:
    values = {
        "seed": config.seed,
        "global_batch_size": config.batch_size,
        "gradient_accumulation_steps": 1,
        "opt_name": config.optimizer,
        "opt_base_learning_rate": config.learning_rate,
        "opt_weight_decay": 0,
        "opt_learning_rate_warmup_steps": config.warmup_steps,
        "opt_learning_rate_decay_start_step": config.decay_start_step,
        "opt_learning_rate_decay_steps": config.decay_steps,
    }
    if config.optimizer == "adagrad":
        values["opt_adagrad_learning_rate_decay"] = values["opt_adagrad_initial_accumulator_value"] = 0
        values["opt_adagrad_epsilon"] = config.epsilon
    if config.optimizer == "sgd":
        values["sgd_opt_base_learning_rate"] = config.learning_rate
        values["sgd_opt_learning_rate_decay_poly_power"] = _POWER
        values["sgd_opt_learning_rate_decay_steps"] = config.decay_steps
        values["lr_decay_start_steps"] = config.decay_start_step
    return values


def _tensors(config: TrainConfig) -> list[str]:
    """What is initialised, by MLPerf's names."""
    mlps = {"bottom_mlp": config.bottom_mlp_dims, "top_mlp": config.top_mlp_dims}
    return ["embeddings", *(f"{mlp}_dense{layer + 1}" for mlp, dims in mlps.items() for layer in range(len(dims)))]
