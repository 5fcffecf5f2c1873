"""Which share of a feature's occurrences each threshold keeps, and how many rows its table then has."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from criteo_prep.feature_spec import Feature
from criteo_prep.pages.dataset import Dataset
from criteo_prep.pages.skew import CountHistogram
from criteo_prep.preprocess.columns.vocabulary import VocabularyError
from criteo_prep.preprocess.finished import ENCODE
from criteo_prep.preprocess.parquet_file import open_parquet

# Thresholds of the chart, about four for each factor of ten.
THRESHOLDS = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 2000, 3000, 5000, 10_000)
_BATCH_ROWS = 1 << 20


@dataclass(frozen=True)
class Coverage:
    """What each threshold keeps of a feature.

    Attributes:
      histogram: how many values occur how often.
      total: occurrences, missing values included; a missing value is never kept.
      known_from: the lowest threshold that is known: below it, the dataset no longer has the values.
      source: where the counts come from, in words.
    """

    histogram: CountHistogram
    total: int
    known_from: int
    source: str

    @property
    def thresholds(self) -> list[int]:
        """The thresholds of the chart, from the lowest known one up to the first that keeps nothing."""
        largest = int(self.histogram.counts[0]) if len(self.histogram.counts) else 0
        known = {self.known_from, *(each for each in THRESHOLDS if each >= self.known_from)}
        return sorted(each for each in known if each <= largest) or [self.known_from]

    def share(self, threshold: int) -> float:
        """The share of occurrences whose value occurs `threshold` times or more."""
        return self.histogram.kept(threshold)[0] / self.total if self.total else 0.0

    def table_rows(self, threshold: int) -> int:
        """Rows of the table, id 0 included."""
        return self.histogram.kept(threshold)[1] + 1


def coverage_of(dataset: Dataset, feature: Feature, *, ids: CountHistogram, occurrences: dict[str, int]) -> Coverage:
    """The coverage of a feature: by its vocabulary, or by its ids where it has none.

    Args:
      dataset: the dataset.
      feature: a categorical feature.
      ids: counts of the ids in the train split, without the id that stands for missing values.
      occurrences: split -> number of ids in it.

    Raises:
      VocabularyError, OSError: the file is not a vocabulary.
    """
    path = dataset.root / "vocabularies" / f"{feature.name.removesuffix('.bin')}.parquet"
    base = base_split(dataset)
    # The vocabulary of encoded rows has the counts of other rows.
    if feature.key or dataset.made_by.startswith(ENCODE) or not path.is_file():
        what = "keys" if feature.key else "ids"
        source = f"counts of the {what} in the {base} split"
        return Coverage(ids, occurrences[base], known_from=1, source=source)
    rules = dataset.manifest["rules"] if dataset.manifest else {}
    only_train = rules.get("vocabulary_days") == "train" and "train" in occurrences
    counted = {split: number for split, number in occurrences.items() if split == "train" or not only_train}
    histogram = CountHistogram.of(_counts_in(path))
    known_from = max(1, _threshold_of(rules.get("threshold"), feature.name, histogram=histogram))
    source = f"vocabulary of {'train' if only_train else 'all'} rows"
    return Coverage(histogram, sum(counted.values()), known_from=known_from, source=source)


def base_split(dataset: Dataset) -> str:
    """The split that a feature is described by: train, or the first split of a dataset without train."""
    return "train" if "train" in dataset.rows else next(iter(dataset.rows))


def _counts_in(path: Path) -> Iterator[pl.Series]:
    with open_parquet(path, VocabularyError) as file:
        if "count" not in file.schema_arrow.names:
            raise VocabularyError(f"{path}: is not a vocabulary: it has no column count. Make the dataset again.")
        for batch in file.iter_batches(_BATCH_ROWS, columns=["count"]):
            yield pl.Series("count", batch.column(0).to_numpy(zero_copy_only=False)).cast(pl.Int64)


def _threshold_of(rule: object, name: str, *, histogram: CountHistogram) -> int:
    """The threshold of a column in the rule of a manifest: 15, "15,cat_0:3", or a threshold for each feature by name.

    Where the rule has another form, the lowest count in the vocabulary: no threshold up to it keeps more.
    """
    if isinstance(rule, dict) and isinstance(rule.get(name), int):
        return rule[name]
    found = None
    for part in str(rule).split(","):
        column, _, number = part.rpartition(":")
        if not number.strip().isdecimal():
            return int(histogram.counts[-1]) if len(histogram.counts) else 1
        if not column.strip() and found is None or column.strip() == name:
            found = int(number)
    return found or 0
