"""What to transcribe, and which requests make no sense."""

from dataclasses import dataclass
from pathlib import Path

# The synthetic source has no end, so `--max_batches_* -1`, which is "all", means these numbers of batches.
# Source: NVIDIA's table of datasets gives 6 GiB for a synthetic one: 1000 and 100 batches of 65536.
SYNTHETIC_BATCHES = {"train": 1000, "test": 100}

# Layouts that the published program also names and also refuses, and which layout here holds such data.
_REFUSED_LAYOUTS = {
    "binary_multihot": "tf_raw holds several ids a sample",
    "tfrecords_multihot": "split_tfrecords holds several ids a sample",
    "nvt": "parquet reads what NVTabular writes",
}


class TranscribeError(ValueError):
    """A request cannot be carried out."""


@dataclass(frozen=True)
class Request:
    """What to transcribe; the attributes are the published flags.

    Attributes:
      src_dataset_path, dst_dataset_path: folders to read and to make.
      src_feature_spec, dst_feature_spec: file names of the feature specs in these folders.
      src_dataset_type, dst_dataset_type: layouts, keys of READERS and WRITERS.
      src_batch_size: samples in a batch that `max_batches_*` count.
      max_batches_train, max_batches_test: batches to take; -1 is all. The second holds for every split but train.
      dst_prebatch_size: samples in a record of split_tfrecords.
      dense_log: whether numericals become log(x + 3), as in preprocessing.
      train_only: whether the other splits are left out.
      seed: seed of the synthetic source.
      overwrite: whether a destination that holds files is replaced.
    """

    src_dataset_path: str | Path = "synthetic_dataset"
    src_dataset_type: str = "tf_raw"
    src_feature_spec: str = "feature_spec.yaml"
    src_batch_size: int = 65536
    dst_dataset_path: str | Path = "synthetic_dataset"
    dst_feature_spec: str = "feature_spec.yaml"
    dst_dataset_type: str = "split_tfrecords"
    max_batches_train: int = -1
    max_batches_test: int = -1
    train_only: bool = False
    dst_prebatch_size: int = 65536
    dense_log: bool = False
    seed: int = 0
    overwrite: bool = False

    @property
    def reads(self) -> Path:
        """The folder that is read; of a synthetic source the feature spec alone."""
        folder = Path(self.src_dataset_path)
        return folder / self.src_feature_spec if self.src_dataset_type == "synthetic" else folder

    def max_batches(self, split: str) -> int | None:
        """The number of batches of a split to take; None for all batches of a source that has an end."""
        given = self.max_batches_train if split == "train" else self.max_batches_test
        if given == -1:
            return SYNTHETIC_BATCHES[split] if self.src_dataset_type == "synthetic" else None
        return given


def check_request(request: Request, readers: dict, writers: dict) -> None:
    """Raises TranscribeError for an unknown layout or a number out of range."""
    for flag, name, known in (
        ("src_dataset_type", request.src_dataset_type, readers),
        ("dst_dataset_type", request.dst_dataset_type, writers),
    ):
        if name not in known:
            hint = f"; {_REFUSED_LAYOUTS[name]}" if name in _REFUSED_LAYOUTS else ""
            raise TranscribeError(f"--{flag} {name}: is not a layout here{hint}. Give --{flag} {' or '.join(known)}.")
    for flag in ("max_batches_train", "max_batches_test"):
        if (given := getattr(request, flag)) != -1 and given < 1:
            raise TranscribeError(f"--{flag} {given}: must be -1, which is all, or at least 1.")
    for flag in ("src_batch_size", "dst_prebatch_size"):
        if (given := getattr(request, flag)) < 1:
            raise TranscribeError(f"--{flag} {given}: must be at least 1.")
    if request.dst_feature_spec != Path(request.dst_feature_spec).name:
        raise TranscribeError(f"--dst_feature_spec {request.dst_feature_spec}: must be a file name, without a folder.")
