"""The layouts whose samples can be read at any place, so that a trainer reads them as they are: one visible dict.

Such a reader has `num_samples`, `read(start, stop)`, `take(rows)` and `close()`, and decodes the asked features only.
"""

from collections.abc import Iterable

from criteo_prep.feature_spec import FeatureSpec, FeatureSpecError
from criteo_prep.transcribe import criteo_npy, record_binary, tf_raw
from criteo_prep.transcribe.layout_spec import LayoutError

Reader = tf_raw.Reader | record_binary.Reader | criteo_npy.Reader

# type of a split's chunks -> Reader(root, spec, split=..., features=...)
READERS: dict[str, type] = {
    "split_binary": tf_raw.Reader,
    "record_binary": record_binary.Reader,
    "criteo_npy": criteo_npy.Reader,
}


def open_split(spec: FeatureSpec, split: str, features: Iterable[str] | None = None) -> Reader:
    """The reader of a split, by the type of its chunks.

    Args:
      spec: spec of the dataset, whose root is the dataset folder.
      split: "train", "test" or "validation".
      features: names of the features to read; all by default. Numericals are read all or none.

    Raises:
      FeatureSpecError: there is no such split, its samples cannot be read at any place, or its files are missing,
        truncated or disagree.
    """
    if split not in spec.sources:
        raise FeatureSpecError(f"{spec.path}: there is no split {split!r}; the splits are {list(spec.splits)}.")
    kind = spec.sources[split][0].type
    if kind not in READERS:
        raise LayoutError(
            f"{spec.path}: source_spec: {split}: is of type {kind!r}, of which samples cannot be read at any place. "
            "Transcribe the dataset to tf_raw."
        )
    return READERS[kind](spec.root, spec, split=split, features=features)
