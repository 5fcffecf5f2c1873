"""What must be the same on all ranks, checked at the start: the program, its libraries, the flags, and the dataset."""

import dataclasses
import hashlib
import importlib.metadata
import platform
from pathlib import Path

from criteo_prep.feature_spec import FeatureSpec, FeatureSpecError
from dlrm_tf2 import __version__
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data.batches import splits_of
from dlrm_tf2.data.fingerprint import fingerprint_of
from dlrm_tf2.runtime.agreement import check_same
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.runtime.process import Launch

_PACKAGES = Path(__file__).resolve().parents[2]
# A host may have its own folders and its own number of cores, and a rank a log of its own, which only rank 0 writes.
# The content of the dataset is compared, not its path.
_OF_HOST = frozenset(("dataset_path", "embeddings_folder", "log_path", "intra_op_parallelism", "inter_op_parallelism"))


class DifferentRanks(ValueError):
    """The ranks of a job are not started alike."""


def check_program(comm: Comm) -> None:
    """Refuses, on all ranks, ranks that run another program.

    Raises:
      DifferentRanks: names the ranks with another version of the program, of TensorFlow, Horovod or Python.
    """
    if comm.size == 1:
        return
    import tensorflow as tf  # not before the process is set up

    versions = {
        "program": f"dlrm_tf2 {__version__} with sources {_sources()}",
        "TensorFlow": tf.__version__,
        "Horovod": importlib.metadata.version("horovod"),
        "Python": platform.python_version(),
    }
    advice = "All ranks must run the same program: install the same version on every host."
    check_same(comm, "versions", values=versions, error=DifferentRanks, advice=advice)


def check_run(config: TrainConfig, spec: FeatureSpec, *, comm: Comm, launch: Launch) -> None:
    """Refuses, on all ranks, ranks that have other flags or another dataset.

    The first rank of each host reads the dataset, if there are several hosts.

    Raises:
      DifferentRanks: names the flags and the ranks that differ, or the ranks with another dataset.
    """
    if comm.size == 1:
        return
    flags = {f"--{name}": str(value) for name, value in dataclasses.asdict(config).items() if name not in _OF_HOST}
    advice = "All ranks must have the same flags."
    check_same(comm, "flags", values=flags, error=DifferentRanks, advice=advice)
    if launch.local_size == launch.world_size:
        return
    values = {"the dataset": _content(config, spec)} if launch.local_rank == 0 else {}
    advice = f"--dataset_path {config.dataset_path}: all hosts must have the same dataset."
    check_same(comm, "dataset", values=values, error=DifferentRanks, advice=advice)


def _content(config: TrainConfig, spec: FeatureSpec) -> str:
    """The content of the dataset, or why it cannot be read. Where no rank can read it, a later check reports that."""
    try:
        splits = () if config.dataset_type == "synthetic" else splits_of(config)
        return f"fingerprint {fingerprint_of(spec, splits)[:12]}"
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    except FeatureSpecError as error:
        return str(error)


def _sources() -> str:
    """A checksum of the Python files of this program."""
    digest = hashlib.sha256()
    for package in ("criteo_prep", "dlrm_tf2"):
        for file in sorted((_PACKAGES / package).rglob("*.py")):
            digest.update(f"{file.relative_to(_PACKAGES)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:12]
