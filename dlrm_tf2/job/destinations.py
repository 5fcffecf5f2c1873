"""What a run writes, checked before the work and not after hours: it can be written, and nothing is lost by it."""

import functools
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from criteo_prep.feature_spec import FeatureSpec
from dlrm_tf2 import checkpoint
from dlrm_tf2.checkpoint import CheckpointError
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.evaluation.predictions import check_predictions_path
from dlrm_tf2.logs import mlperf_log
from dlrm_tf2.runtime.agreement import on_all_ranks, on_rank_0
from dlrm_tf2.runtime.comm import Comm

_PROBE_PATIENCE_S = 3.0  # a network file system may show a new file of another host late


class DestinationError(ValueError):
    """A run would write into what it reads, or into a checkpoint."""


def check(config: TrainConfig, spec: FeatureSpec, *, comm: Comm, resumes: bool = False) -> None:
    """Refuses, on all ranks, a destination that cannot be written or that is an input of the run.

    `resumes`: an interrupted run is resumed, whose files exist.

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
        on_all_ranks(comm, "destination", work=check_checkpoints, error=CheckpointError)
        check_shared(path, comm)
    if config.mode != "train" and config.predictions_path:
        check_predictions_path(config.predictions_path, comm)


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


def check_shared(path: str, comm: Comm) -> None:
    """Refuses, on all ranks, the path of a checkpoint that lies on another disk on another host.

    Rank 0 writes a file next to the checkpoint, the others look for the file, and rank 0 removes it.

    Raises:
      CheckpointError: names the ranks that do not see the file.
    """
    if comm.size == 1:
        return
    parents = Path(os.path.realpath(path)).parents

    def write() -> tuple[int, str]:
        level = next(level for level, parent in enumerate(parents) if parent.exists())
        name = f".{Path(path).name}.probe-{secrets.token_hex(8)}"
        (parents[level] / name).touch(exist_ok=False)
        return level, name

    level, name = on_rank_0(comm, "shared.write", work=write, error=CheckpointError)
    probe, deadline = parents[level] / name, time.monotonic() + _PROBE_PATIENCE_S

    def look() -> None:
        while not probe.exists():
            if time.monotonic() > deadline:
                raise CheckpointError(
                    f"{path}: rank 0 wrote {name} into {probe.parent}, and the file is not here. All ranks write "
                    "one checkpoint: name a folder on a file system that all hosts share."
                )
            time.sleep(0.1)

    try:
        on_all_ranks(comm, "shared.look", work=look, error=CheckpointError)
    finally:
        if comm.rank == 0:
            probe.unlink(missing_ok=True)


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
