"""The files of a dataset against its feature spec: there, inside the folder, of a size that holds whole samples.

criteo_prep.feature_spec uses this for the layout that is trained on, the readers of the other layouts for their own.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from criteo_prep.feature_spec_document import Chunk, Feature, FeatureSpecError

OFFSET = np.dtype(np.int64)  # of the row offsets of a ragged feature


def existing_file(root: Path, file: str, feature: str) -> Path:
    """The path of a dataset's file.

    Args:
      root: the dataset folder.
      file: path relative to it.
      feature: a feature that the file holds, for the message.

    Raises:
      FeatureSpecError: a link leads out of the folder or back to itself, or there is no such file.
    """
    path = root / file
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise FeatureSpecError(f"{path}: leads out of the dataset folder {root}. Files must stay inside it.")
    if not path.is_file():
        if path.is_symlink():
            raise FeatureSpecError(f"{path}: is a link that leads to no file. Link it again, or copy the file there.")
        raise FeatureSpecError(f"{path}: there is no such file, but the feature spec names it for {feature!r}.")
    return path


def num_samples_in(root: Path, chunk: Chunk, features: Sequence[Feature]) -> int:
    """Samples in the file of a `split_binary` chunk, from its size.

    Raises:
      FeatureSpecError: the file is missing or its size is not that of whole samples.
    """
    path = existing_file(root, chunk.files[0], features[0].name)
    size = path.stat().st_size
    if features[0].ragged:
        return _num_rows_of_offsets(root, chunk, feature=features[0], values_bytes=size)
    each = sum(np.dtype(feature.dtype).itemsize * feature.hotness for feature in features)
    if size % each:
        dtypes = ", ".join(dict.fromkeys(feature.dtype for feature in features))
        count = len(features) * features[0].hotness
        raise FeatureSpecError(
            f"{path}: {size} bytes is not a multiple of {each} ({count} x {dtypes}). "
            "The file is truncated or its dtype is wrong."
        )
    return size // each


def _num_rows_of_offsets(root: Path, chunk: Chunk, *, feature: Feature, values_bytes: int) -> int:
    """Samples of a ragged feature: one less than its offsets, the last of which is the number of its ids."""
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
            f"makes {expected} bytes of {feature.dtype}. One of the two is truncated or belongs to another dataset."
        )
    return size // OFFSET.itemsize - 1
