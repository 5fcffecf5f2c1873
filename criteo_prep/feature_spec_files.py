"""The files that a feature spec names: they exist, lie inside the dataset folder, and hold whole samples.

criteo_prep.feature_spec uses this module for the layout tf_raw, and the readers of the other layouts for their files.
"""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from criteo_prep.feature_spec_document import Chunk, Feature, FeatureSpecError
from criteo_prep.plain_file import check_plain

OFFSET = np.dtype(np.int64)  # dtype of the row offsets of a ragged feature


def is_inside(file: str) -> bool:
    """Whether a path is relative and stays inside its folder. Links are not followed."""
    path = PurePosixPath(file)
    return not path.is_absolute() and ".." not in path.parts and "\0" not in file and bool(path.parts)


def existing_file(root: Path, file: str, feature: str) -> Path:
    """The path of an existing file of a dataset.

    Args:
      root: the dataset folder.
      file: path of the file, relative to the folder.
      feature: name of a feature in the file, for the message.

    Raises:
      FeatureSpecError: a link leads out of the folder or to no file, or the file does not exist.
      NotPlainError: the file is a pipe, a socket or a device.
    """
    path = root / file
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise FeatureSpecError(f"{path}: leads out of the dataset folder {root}. Files must stay inside it.")
    if path.is_symlink() and not path.exists():
        raise FeatureSpecError(
            f"{path}: is a link that leads to no file, but the feature spec names it for {feature!r}. Link it again, "
            "or copy the file there."
        )
    check_plain(path)
    if not path.is_file():
        raise FeatureSpecError(f"{path}: there is no such file, but the feature spec names it for {feature!r}.")
    return path


def num_samples_in(root: Path, chunk: Chunk, features: Sequence[Feature]) -> int:
    """Number of samples in the file of a `split_binary` chunk, found from the size of the file.

    Raises:
      FeatureSpecError: the file is missing or its last sample is not whole.
    """
    path = existing_file(root, chunk.files[0], features[0].name)
    size = path.stat().st_size
    if features[0].ragged:
        return _num_rows_of_offsets(root, chunk, feature=features[0], values_bytes=size)
    sample_bytes = sum(np.dtype(feature.dtype).itemsize * feature.hotness for feature in features)
    if size % sample_bytes:
        dtypes = ", ".join(dict.fromkeys(feature.dtype for feature in features))
        count = len(features) * features[0].hotness
        raise FeatureSpecError(
            f"{path}: {size} bytes is not a multiple of {sample_bytes} ({count} x {dtypes}). "
            "The file is truncated or its dtype is wrong."
        )
    return size // sample_bytes


def _num_rows_of_offsets(root: Path, chunk: Chunk, *, feature: Feature, values_bytes: int) -> int:
    """Number of samples of a ragged feature: the number of offsets less 1. The last offset is the number of ids."""
    path = existing_file(root, chunk.files[1], feature.name)
    size = path.stat().st_size
    if size % OFFSET.itemsize or size == 0:
        raise FeatureSpecError(
            f"{path}: {size} bytes is not a positive multiple of {OFFSET.itemsize} (int64). The file is truncated."
        )
    with open(path, "rb") as file:
        file.seek(size - OFFSET.itemsize)
        last = int.from_bytes(file.read(OFFSET.itemsize), "little", signed=True)
    expected = last * np.dtype(feature.dtype).itemsize
    if values_bytes != expected:
        raise FeatureSpecError(
            f"{root / chunk.files[0]}: {values_bytes} bytes, but the last offset in {os.path.basename(path)}, {last}, "
            f"makes {expected} bytes of {feature.dtype}. One of the two is truncated or from another dataset."
        )
    return size // OFFSET.itemsize - 1
