"""Datasets made of nothing but a seed: power-law ids, and labels that are fair coins or a planted click model.

The writer is an argument, so this room knows no layout on disk; only the Criteo TSV form, which no other room writes,
is made here (criteo_tsv).
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np

from criteo_prep.batch import Batch, Ids
from criteo_prep.feature_spec import FeatureSpec, minimal_dtype
from criteo_prep.parallel import in_order
from criteo_prep.synthetic.columns import NUM_LEVELS, Columns
from criteo_prep.synthetic.power_law import stream_key
from criteo_prep.synthetic.teacher import BASE_RATE, SIGNAL, Teacher, draw_labels
from criteo_prep.synthetic.truth import Truth

LABELS = ("random", "teacher")
BATCH_SIZE = 65536
_VALUES = (np.arange(NUM_LEVELS) / NUM_LEVELS).astype(np.float16)  # numericals: uniform on [0, 1), exact in float16


class Writes(Protocol):
    def write(self, batch: Batch) -> None: ...


class Reader:
    """A split that exists only as a rule, read like one on disk: any range of samples, the same bytes each time.

    Args:
      spec: categorical features with cardinality and alpha, and the numericals; its files are not looked at.
      split: streams of different splits are independent.
      num_samples: where the split ends.
      seed: of the dataset.
      labels: "random", fair coins that nothing predicts, or "teacher", the planted click model.
      base_rate, signal: the teacher's, see Teacher.
      features: names of the features to make; all by default.

    Raises:
      FeatureSpecError: a feature cannot be drawn.
      ValueError: an argument is out of range.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        split: str,
        *,
        num_samples: int,
        seed: int,
        labels: str = "random",
        base_rate: float = BASE_RATE,
        signal: float = SIGNAL,
        features: Iterable[str] | None = None,
    ):
        if labels not in LABELS:
            raise ValueError(f"labels {labels!r}: must be one of {', '.join(LABELS)}.")
        if num_samples < 0:
            raise ValueError(f"num_samples {num_samples}: must not be negative.")
        self.spec, self.split, self.num_samples, self.truth = spec, split, num_samples, Truth()
        self._columns = Columns(spec.categorical, len(spec.numerical), seed=seed)
        self._dtypes = [minimal_dtype(feature.cardinality) for feature in spec.categorical]
        self._label_key = stream_key(seed, split, "label")
        values = np.tile(_VALUES.astype(np.float64), (len(spec.numerical), 1))
        self._teacher = (
            Teacher(self._columns, values, base_rate=base_rate, signal=signal) if labels == "teacher" else None
        )
        wanted = set(spec.features if features is None else features)
        self._label = spec.label.name in wanted
        self._numerical = any(feature.name in wanted for feature in spec.numerical)
        self._wanted = [feature.name in wanted for feature in spec.categorical]

    def read(self, start: int, stop: int, truth: Truth | None = None) -> Batch:
        """Samples [start, stop); `truth`, if given, counts their labels.

        Returns:
          Batch with label bool [n], numerical float16 [n, numericals], and per feature `hotness` ids a sample of its
          smallest dtype.
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
        """The split in order; `workers` threads work ahead (all cores by default). `truth` covers what was yielded."""

        def make(start: int) -> tuple[Batch, Truth]:
            truth = Truth()
            return self.read(start, min(start + batch_size, self.num_samples), truth), truth

        for batch, truth in in_order(make, range(0, self.num_samples, batch_size), workers):
            self.truth.merge(truth)
            yield batch

    def close(self) -> None:
        """Nothing is open; readers of files have it."""

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self.close()


def generate(
    spec: FeatureSpec,
    num_samples: int,
    *,
    seed: int,
    writer: Writes,
    labels: str = "random",
    split: str = "train",
    base_rate: float = BASE_RATE,
    signal: float = SIGNAL,
    workers: int | None = None,
    advance: Callable[[int], None] = lambda rows: None,
) -> Truth:
    """Writes the samples of a synthetic split. Arguments as for Reader; `advance` is told of rows as they are written.

    Returns:
      What can be known of the labels at best.
    """
    reader = Reader(spec, split, num_samples=num_samples, seed=seed, labels=labels, base_rate=base_rate, signal=signal)
    for batch in reader.batches(workers=workers):
        writer.write(batch)
        advance(batch.num_samples)
    return reader.truth
