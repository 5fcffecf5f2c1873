"""A fingerprint of a dataset's content: the same for a copy in another folder, another fingerprint after a change.

It covers the features, the sizes of the files, and a sample of each file's bytes. So it takes seconds for a dataset of
any size, and it may miss a few bytes that change in the middle of a large file.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from criteo_prep.feature_spec import FeatureSpec

_BLOCKS = 64  # blocks that are read of a file, evenly spaced, with the first and the last block of the file
_BLOCK_BYTES = 16 << 10


def fingerprint_of(spec: FeatureSpec, splits: Sequence[str]) -> str:
    """The fingerprint of a dataset, hexadecimal.

    Args:
      spec: feature spec of the dataset.
      splits: the splits whose files count; without a split, the features alone.

    Raises:
      FeatureSpecError: the spec has no such split.
      OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for channel, names in sorted(spec.channels.items()):
        for name in names:
            feature = spec.features[name]
            digest.update(f"{channel} {name} {feature.dtype} {feature.cardinality} {feature.hotness}\n".encode())
    names = [name for channel in sorted(spec.channels) for name in spec.channels[channel]]
    if isinstance(spec.metadata, dict) and spec.metadata.get("dense_log"):
        digest.update(b"dense_log")
    for split in splits:
        for file in dict.fromkeys(file for name in names for file in spec.chunk_of(split, name).files):
            _add_file(spec.root / file, digest)
    return digest.hexdigest()


def _add_file(path: Path, digest) -> None:
    size = path.stat().st_size
    digest.update(f"{size}\n".encode())
    with open(path, "rb") as file:
        for start in dict.fromkeys(np.linspace(0, max(0, size - _BLOCK_BYTES), _BLOCKS).astype(int).tolist()):
            file.seek(start)
            digest.update(file.read(_BLOCK_BYTES))
