"""What the card says about a categorical feature: sizes, skew, missing values, drift, coverage."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from criteo_prep.feature_spec import Feature
from criteo_prep.pages.coverage import Coverage, base_split, coverage_of
from criteo_prep.pages.dataset import Dataset
from criteo_prep.pages.id_counts import MOST_IDS, VALUE, counted_parts
from criteo_prep.pages.skew import CountHistogram

TOP = (1, 10, 1000)
MISSING_KEY = -1


@dataclass(frozen=True)
class Drift:
    """How far the ids of the test split are from the ids of the train split.

    Attributes:
      variation: total variation distance, half the sum of |share in train - share in test| over all ids: 0 to 1.
      by_chance: about the distance that two samples of these sizes have without any drift.
      unseen: share of the test split's ids that the train split does not have.
    """

    variation: float
    by_chance: float
    unseen: float


@dataclass(frozen=True)
class CategoricalFacts:
    """A categorical feature. Shares are shares of the ids in the train split, or in the only split.

    Attributes:
      feature: the feature.
      occurrences: split -> number of ids.
      num_ids: different ids or keys, without the one for missing values.
      rest: share of id 0, or of the key -1; None where id 0 is an id as any other.
      rest_is_missing: whether `rest` are missing values and nothing else.
      empty: share of samples without any id; None where every sample has one.
      top: number of ids -> share of so many most frequent ids.
      exponent: exponent of the power law; see CountHistogram.exponent.
      drift: from train to test, or None for a dataset without both.
      coverage: what each threshold keeps.
    """

    feature: Feature
    occurrences: dict[str, int]
    num_ids: int
    rest: float | None
    rest_is_missing: bool
    empty: float | None
    top: dict[int, float]
    exponent: float | None
    drift: Drift | None
    coverage: Coverage

    @property
    def table_rows(self) -> int:
        """Rows of the feature's table: its cardinality; for keys, the different keys that occur."""
        return self.num_ids if self.feature.key else int(self.feature.cardinality)


def categorical_facts(dataset: Dataset, feature: Feature, *, most_ids: int = MOST_IDS) -> CategoricalFacts:
    """Reads all ids of a feature, and its vocabulary.

    Args:
      dataset: the dataset.
      feature: one of its categorical features.
      most_ids: different ids in memory at a time.

    Raises:
      FeatureSpecError, VocabularyError, OSError: a file is missing or damaged.
    """
    base, splits = base_split(dataset), list(dataset.rows)
    rest = MISSING_KEY if feature.key else None if dataset.is_synthetic else 0
    occurrences = {split: sum(map(len, dataset.ids(split, feature))) for split in splits}
    counts, found_rest, drift = CountHistogram(), 0, Drift(0.0, 0.0, 0.0)
    for part in counted_parts(lambda split: dataset.ids(split, feature), splits, most_ids=most_ids):
        if rest is not None:
            found_rest += int(part.filter(pl.col(VALUE) == rest)[base].sum())
        proper = part if rest is None else part.filter(pl.col(VALUE) != rest)
        new = CountHistogram.of([proper[base]])
        counts = CountHistogram([_frame(counts), _frame(new)])
        drift = _added(drift, part, sizes=occurrences)
    whole = max(1, occurrences[base])
    coverage = coverage_of(dataset, feature, ids=counts, occurrences=occurrences)
    return CategoricalFacts(
        feature=feature,
        occurrences=occurrences,
        num_ids=counts.total_ids,
        rest=None if rest is None else found_rest / whole,
        rest_is_missing=feature.key or (coverage.known_from == 1 and coverage.source == "vocabulary of all rows"),
        empty=_empty_share(dataset, feature) if feature.ragged else None,
        top={number: counts.top(number) / whole for number in TOP},
        exponent=counts.exponent(),
        drift=drift if min(occurrences.get("train", 0), occurrences.get("test", 0)) else None,
        coverage=coverage,
    )


def _frame(histogram: CountHistogram) -> pl.DataFrame:
    return pl.DataFrame({"count": histogram.counts, "num_ids": histogram.num_ids})


def _added(drift: Drift, part: pl.DataFrame, *, sizes: dict[str, int]) -> Drift:
    """The drift with the ids of another part; each of its three numbers is a sum over ids."""
    num_train, num_test = sizes.get("train", 0), sizes.get("test", 0)
    if not num_train or not num_test:
        return drift
    train, test = (part[split].to_numpy().astype(np.float64) for split in ("train", "test"))
    pooled = (train + test) / (num_train + num_test)
    deviation = np.sqrt(pooled * (1 - pooled) * (1 / num_train + 1 / num_test))
    # The mean of |a difference| is sqrt(2 / pi) standard deviations, and cannot be above the sum of both shares.
    chance = np.minimum(2 * pooled, np.sqrt(2 / np.pi) * deviation)
    return Drift(
        drift.variation + float(np.abs(train / num_train - test / num_test).sum()) / 2,
        drift.by_chance + float(chance.sum()) / 2,
        drift.unseen + float(test[train == 0].sum()) / num_test,
    )


def _empty_share(dataset: Dataset, feature: Feature) -> float:
    base = base_split(dataset)
    empty = sum(int((lengths == 0).sum()) for lengths in _lengths(dataset, base, feature))
    return empty / max(1, dataset.rows[base])


def _lengths(dataset: Dataset, split: str, feature: Feature) -> Iterator[np.ndarray]:
    for batch in dataset.batches(split, [feature]):
        lengths = batch.categorical[feature.name].row_lengths
        assert lengths is not None, "a ragged feature has row lengths"
        yield lengths
