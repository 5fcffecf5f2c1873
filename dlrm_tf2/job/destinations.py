"""What a run writes, checked before the work and not after hours: it can be written, and nothing is lost by it."""

import functools
import os
from collections.abc import Iterator
from pathlib import Path

from criteo_prep.feature_spec import FeatureSpec
from dlrm_tf2 import checkpoint
from dlrm_tf2.checkpoint import CheckpointError
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.evaluation.predictions import check_predictions_path
from dlrm_tf2.job import gathering
from dlrm_tf2.logs import mlperf_log
from dlrm_tf2.runtime.agreement import on_all_ranks, on_rank_0
from dlrm_tf2.runtime.comm import Comm


class DestinationError(ValueError):
    """A run would write into what it reads, or into a checkpoint."""


def check(config: TrainConfig, spec: FeatureSpec, *, comm: Comm, resumes: bool = False) -> gathering.Far:
    """Refuses, on all ranks, a destination that cannot be written or that is an input of the run.

    `resumes`: an interrupted run is resumed, whose files exist.

    Returns:
      The ranks that do not see where the checkpoints are saved; only with --checkpoint_gather can they exist.

    Raises:
      DestinationError: a log, predictions or a folder for TensorBoard would be a file of the dataset, or would lie in
        a checkpoint. (No save replaces a folder that holds other files as well.)
      CheckpointError, PredictionsError, MlperfLogError: a checkpoint, the predictions or the log in the format of
        MLPerf cannot be written.
    """
    path = config.save_checkpoint_path

    def check_checkpoints() -> None:
        checkpoint.check_destination(path)
        if config.keep_best:
            checkpoint.check_destination(checkpoint.best_path(path))

    on_rank_0(comm, "outputs", work=lambda: check_apart(config, spec), error=DestinationError)
    if config.mode == "train" and config.mllog:
        check_log = functools.partial(mlperf_log.check_destination, config.mllog, resumes)
        on_rank_0(comm, "mllog", work=check_log, error=mlperf_log.MlperfLogError)
    if config.mode == "train" and path:
        if not config.checkpoint_gather:
            on_all_ranks(comm, "destination", work=check_checkpoints, error=CheckpointError)
            return gathering.far_from_saves(config, comm)
        on_rank_0(comm, "destination", work=check_checkpoints, error=CheckpointError)
        far = gathering.far_from_saves(config, comm)
        # A rank that does not see the folder may have anything under this path.
        check_seen = (lambda: None) if comm.rank in far.ranks else check_checkpoints
        on_all_ranks(comm, "destination_seen", work=check_seen, error=CheckpointError)
        return far
    if config.mode != "train" and config.predictions_path:
        check_predictions_path(config.predictions_path, comm)
    return gathering.Far()


def check_apart(config: TrainConfig, spec: FeatureSpec) -> None:
    """Raises DestinationError unless all that a run writes is apart from its dataset and its checkpoints."""
    of_dataset = {os.path.realpath(path) for path in _dataset_files(config, spec)}
    checkpoints = {os.path.realpath(path): path for path in _checkpoints(config)}
    for flag, written in _written(config):
        real = os.path.realpath(written)
        if real in of_dataset:
            raise DestinationError(f"--{flag} {written}: is a file of the dataset. Name another file.")
        for folder, name in checkpoints.items():
            if Path(real).is_relative_to(folder):
                raise DestinationError(
                    f"--{flag} {written}: lies in the checkpoint {name}, which holds nothing else. Name a place "
                    "outside it."
                )


def _written(config: TrainConfig) -> Iterator[tuple[str, str]]:
    """(flag, file or folder) of all that a run writes apart from checkpoints."""
    paths = {"log_path": config.log_file, "tensorboard": config.tensorboard}
    if config.mode != "train":
        paths["predictions_path"] = config.predictions_path
    else:
        paths["mllog"] = config.mllog
        paths["profiler_path"] = config.profiler_path if config.profiler_start_step is not None else None
    yield from ((flag, path) for flag, path in paths.items() if path)


def _dataset_files(config: TrainConfig, spec: FeatureSpec) -> Iterator[Path]:
    folder = Path(config.dataset_path)
    yield from (folder / config.feature_spec, folder / "manifest.json")
    yield from (folder / file for chunks in spec.sources.values() for chunk in chunks for file in chunk.files)


def _checkpoints(config: TrainConfig) -> Iterator[str]:
    """The folders of the checkpoints that a run reads or writes."""
    if config.restore_checkpoint_path:
        yield config.restore_checkpoint_path
    if config.save_checkpoint_path:
        yield from (config.save_checkpoint_path, str(checkpoint.best_path(config.save_checkpoint_path)))
