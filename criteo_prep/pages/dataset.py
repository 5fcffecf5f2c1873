"""A dataset as its card reads it: the samples of each split, piece by piece, and the manifest if there is one."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from criteo_prep import manifest
from criteo_prep.batch import Batch
from criteo_prep.feature_spec import Feature, FeatureSpec
from criteo_prep.feature_spec import FeatureSpecError as SpecError
from criteo_prep.messages import one_line
from criteo_prep.transcribe.in_place import open_split

_SPEC = "feature_spec.yaml"
_PIECE_BYTES = 64 << 20  # bytes of the samples that are in memory at a time
_MOST_ROWS = 1 << 22  # samples of a piece


class Dataset:
    """An existing dataset.

    Args:
      root: the dataset folder.

    Attributes:
      root, spec: the folder and its feature spec.
      manifest: its manifest, or None where it has none.
      rows: split -> number of samples.

    Raises:
      FeatureSpecError, ManifestError, OSError: the spec or the manifest is missing, damaged or does not fit the files;
        a dataset without a manifest is accepted.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self.spec = FeatureSpec.load(self.root / _SPEC)
        if not self.spec.splits:
            raise SpecError(f"{self.spec.path}: names no files, so there is nothing to report. Name a dataset.")
        has_manifest = (self.root / manifest.MANIFEST).exists()
        self.manifest = manifest.load_manifest(self.root) if has_manifest else None
        self.rows: dict[str, int] = {}
        for split in self.spec.splits:
            with open_split(self.spec, split) as reader:
                self.rows[split] = reader.num_samples

    @property
    def made_by(self) -> str:
        """What made the dataset, in one short line; "" where that is not known."""
        return one_line(self.manifest["made_by"], 80) if self.manifest else ""

    @property
    def is_synthetic(self) -> bool:
        """Whether the ids were drawn from a power law, so that id 0 is the most frequent and no value is missing."""
        return any(feature.alpha is not None for feature in self.spec.categorical)

    def batches(self, split: str, features: Sequence[Feature]) -> Iterator[Batch]:
        """Features of a split, in order and in pieces. Of the numericals, name all or none.

        Raises:
          FeatureSpecError, OSError: a file is damaged or shrank; the message has file and row.
        """
        with open_split(self.spec, split, [feature.name for feature in features]) as reader:
            step = self._rows_of_piece(split, features)
            for start in range(0, reader.num_samples, step):
                yield reader.read(start, min(start + step, reader.num_samples))

    def ids(self, split: str, feature: Feature) -> Iterator[np.ndarray]:
        """The ids or keys of a categorical feature, int64 [n], in pieces."""
        for batch in self.batches(split, [feature]):
            yield batch.categorical[feature.name].values.astype(np.int64, copy=False)

    def _rows_of_piece(self, split: str, features: Sequence[Feature]) -> int:
        """How many samples are read at a time; a ragged feature may have very many ids in each."""
        files = {file for feature in features for file in self.spec.chunk_of(split, feature.name).files}
        num_bytes = sum(path.stat().st_size for file in files if (path := self.root / file).is_file())
        # An id of one byte on disk has eight bytes in memory.
        nominal = sum(feature.hotness for feature in features)
        sample_bytes = 8 * max(nominal, num_bytes // max(1, self.rows[split]), 1)
        return min(_MOST_ROWS, max(1, _PIECE_BYTES // sample_bytes))
