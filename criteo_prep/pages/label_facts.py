"""Rows and label rate of each split, and of each file or day where the manifest says which rows came from which."""

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from criteo_prep.pages.dataset import Dataset
from criteo_prep.preprocess.finished import ENCODE, PREPROCESS


@dataclass(frozen=True)
class RowsFacts:
    """Some rows of a dataset.

    Attributes:
      name: name of the split or of the file.
      split: the split that the rows are in.
      rows: number of rows.
      clicks: rows with label 1; None where it is not known which rows these are.
    """

    name: str
    split: str
    rows: int
    clicks: int | None

    @property
    def rate(self) -> float | None:
        """The label rate."""
        return self.clicks / self.rows if self.clicks is not None and self.rows else None


@dataclass(frozen=True)
class LabelFacts:
    """The labels of a dataset.

    Attributes:
      splits: one entry for each split.
      files: one entry for each file and split that has rows of it; empty where the manifest does not say.
      note: why `files` is empty, or has no label rates; "" where everything is known.
    """

    splits: tuple[RowsFacts, ...]
    files: tuple[RowsFacts, ...]
    note: str


def label_facts(dataset: Dataset) -> LabelFacts:
    """Reads the labels of all splits. Raises FeatureSpecError or OSError for a damaged file."""
    pieces, note = _pieces_of_files(dataset)
    shuffled = dataset.manifest is not None and bool(dataset.manifest["rules"].get("shuffle"))
    splits, files = [], []
    for split, num_rows in dataset.rows.items():
        ends = [rows.stop for _, of_split, rows in pieces if of_split == split]
        clicks = _clicks_up_to(dataset, split, [*ends, num_rows])
        splits.append(RowsFacts(split, split, rows=num_rows, clicks=clicks[num_rows]))
        for name, of_split, rows in pieces:
            if of_split == split:
                known = not (shuffled and split == "train") or rows == range(num_rows)
                number = clicks[rows.stop] - clicks[rows.start] if known else None
                files.append(RowsFacts(name, split, rows=len(rows), clicks=number))
    if shuffled and any(each.clicks is None for each in files):
        note = "The train rows are in random order, so their label rate by file is not known."
    return LabelFacts(tuple(splits), tuple(files), note)


def _pieces_of_files(dataset: Dataset) -> tuple[list[tuple[str, str, range]], str]:
    """(file, split, its rows in the split) of all files, and why there are none."""
    if dataset.manifest is None:
        return [], "The dataset has no manifest, so which rows came from which file is not known."
    inputs = dataset.manifest["inputs"]
    if dataset.made_by not in (PREPROCESS, ENCODE):
        # Only these two put the rows of the files one after the other, and cut the splits from them.
        return [], "Which rows came from which file is not known." if inputs else ""
    sizes = [entry.get("rows") for entry in inputs]
    order = [split for split in ("train", "test", "validation") if split in dataset.rows]
    known = all(isinstance(size, int) and size >= 0 for size in sizes)
    if not known or sum(sizes) != sum(dataset.rows.values()):
        return [], "The manifest does not say how many rows each file has."
    pieces, first_of_split = [], 0
    for split in order:
        first_of_file = 0
        for entry, size in zip(inputs, sizes, strict=True):
            start = max(first_of_file, first_of_split) - first_of_split
            stop = min(first_of_file + size, first_of_split + dataset.rows[split]) - first_of_split
            if start < stop:
                pieces.append((str(entry["name"]), split, range(start, stop)))
            first_of_file += size
        first_of_split += dataset.rows[split]
    return pieces, ""


def _clicks_up_to(dataset: Dataset, split: str, ends: list[int]) -> dict[int, int]:
    """How many labels are 1 in the first n rows of a split, for 0 and for each n in `ends`."""
    found, clicks, first = {0: 0}, 0, 0
    waiting = iter(sorted(set(ends) - {0}))
    end = next(waiting, None)
    for labels in _labels(dataset, split):
        sums = labels.cum_sum()
        while end is not None and end <= first + len(labels):
            found[end] = clicks + int(sums[end - first - 1])
            end = next(waiting, None)
        clicks += int(sums[-1]) if len(sums) else 0
        first += len(labels)
    return found


def _labels(dataset: Dataset, split: str) -> Iterator[pl.Series]:
    for batch in dataset.batches(split, [dataset.spec.label]):
        assert batch.label is not None
        yield pl.Series("label", batch.label).cast(pl.Int64)
