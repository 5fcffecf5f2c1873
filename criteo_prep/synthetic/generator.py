"""Datasets that a seed alone makes: power-law ids, and labels that are fair coins or a planted click model.

The caller gives the writer, so this folder knows no layout on disk. The only exception is criteo_tsv, whose form no
other folder writes.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import FeatureSpec, minimal_dtype
from criteo_prep.parallel import in_order
from criteo_prep.synthetic.columns import NUM_LEVELS, Columns
from criteo_prep.synthetic.labels import FAIR_COINS, Labels, draw_labels
from criteo_prep.synthetic.power_law import stream_key
from criteo_prep.synthetic.truth import Truth

BATCH_SIZE = 65536
_VALUES = (np.arange(NUM_LEVELS) / NUM_LEVELS).astype(np.float16)  # numericals: uniform on [0, 1), exact in float16


class BatchWriter(Protocol):
    def write(self, batch: Batch) -> None: ...


class Reader:
    """A split that exists only as a rule. It reads like a split on disk: any range of samples, always the same bytes.

    Args:
      spec: categorical features with cardinality and alpha, and the numericals. The files of the spec are not used.
      split: name of the split; different splits have independent samples.
      num_samples: number of samples in the split.
      seed: seed of the dataset.
      labels: how the labels are drawn.
      features: names of the features to make; None for all.

    Raises:
      FeatureSpecError: the ids of a feature cannot be drawn.
      ValueError: an argument is out of range.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        split: str,
        *,
        num_samples: int,
        seed: int,
        labels: Labels = FAIR_COINS,
        features: Iterable[str] | None = None,
    ):
        if num_samples < 0:
            raise ValueError(f"num_samples {num_samples}: must not be negative.")
        self.spec, self.split, self.num_samples, self.truth = spec, split, num_samples, Truth()
        self._columns = Columns(spec.categorical, len(spec.numerical), seed=seed)
        self._dtypes = [minimal_dtype(feature.cardinality) for feature in spec.categorical]
        self._label_key = stream_key(seed, split, "label")
        self._teacher = labels.teacher(self._columns, np.tile(_VALUES.astype(np.float64), (len(spec.numerical), 1)))
        wanted = set(spec.features if features is None else features)
        self._label = spec.label.name in wanted
        self._numerical = any(feature.name in wanted for feature in spec.numerical)
        self._wanted = [feature.name in wanted for feature in spec.categorical]

    def read(self, start: int, stop: int, truth: Truth | None = None) -> Batch:
        """Samples [start, stop).

        Args:
          start, stop: range of samples in the split.
          truth: counts the labels, if given.

        Returns:
          Batch with label bool [n], numerical float16 [n, numericals], and for each feature `hotness` ids a sample, of
          the smallest dtype that the published rule allows.
        """
        assert 0 <= start <= stop <= self.num_samples
        needs_all, label, categorical = self._teacher and self._label, None, {}
        levels = self._columns.levels(self.split, start, stop) if self._numerical or needs_all else None
        ids = [
            self._columns.ids(self.split, i, start=start, stop=stop, dtype=dtype)
            if self._wanted[i] or needs_all
            else None
            for i, dtype in enumerate(self._dtypes)
        ]
        if self._label:
            logits = self._teacher.logits(ids, levels) if self._teacher else None
            label = draw_labels(
                logits, stop - start, key=self._label_key, start=start, truth=Truth() if truth is None else truth
            )
        for feature, values, wanted in zip(self.spec.categorical, ids, self._wanted, strict=True):
            if wanted:
                hotness = feature.hotness
                lengths = np.full(stop - start, hotness, np.int32) if hotness > 1 else None
                categorical[feature.name] = Ids(values, lengths)
        return Batch(label, _VALUES.take(levels, mode="clip") if self._numerical else None, categorical)

    def batches(self, batch_size: int = BATCH_SIZE, workers: int | None = None) -> Iterator[Batch]:
        """Yields the split in order. `workers` threads read ahead (None: one per core). Labels count in self.truth."""

        def make(start: int) -> tuple[Batch, Truth]:
            truth = Truth()
            return self.read(start, min(start + batch_size, self.num_samples), truth), truth

        for batch, truth in in_order(make, range(0, self.num_samples, batch_size), workers=workers):
            self.truth.merge(truth)
            yield batch

    def close(self) -> None:
        """Does nothing; a reader of files closes its files."""

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self.close()


def write_samples(
    reader: Reader,
    writer: BatchWriter,
    *,
    workers: int | None = None,
    advance: Callable[[int], None] = lambda rows: None,
) -> Truth:
    """Writes all samples of a synthetic split.

    Args:
      reader: the split.
      writer: gets the batches in order.
      workers: threads; None for one thread per core.
      advance: called with the number of samples after each written batch.

    Returns:
      The best scores that the labels allow.
    """
    for batch in reader.batches(workers=workers):
        writer.write(batch)
        advance(batch.num_samples)
    return reader.truth
