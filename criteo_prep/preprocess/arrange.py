"""Label and numericals of all rows -> the files of the splits, in file order or in random order.

Every step can be stopped and repeated: a final file appears by a rename, and the file of all rows is deleted after it.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from criteo_prep.durable import force
from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.preprocess.parse.raw_columns import append
from criteo_prep.preprocess.shuffle import ShuffledFile
from criteo_prep.schema import NUM_NUMERICAL

_COPY_ROWS = 1 << 17


class RowForm(NamedTuple):
    """What one row is in a file: `width` numbers of `dtype`."""

    dtype: np.dtype
    width: int

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * self.width


def label_file(spec: FeatureSpec, split: str) -> str:
    return spec.chunk_of(split, spec.label.name).files[0]


def numerical_file(spec: FeatureSpec, split: str) -> str:
    return spec.chunk_of(split, spec.numerical[0].name).files[0]


def arrange(
    root: Path,
    spec: FeatureSpec,
    *,
    splits: dict[str, range],
    seed: int | None,
    advance: Callable[[int], None],
    forced: bool = False,
) -> None:
    """Makes the label file and the numerical file of every split.

    Args:
      root: the staging folder, with work/label.bin and work/numerical.bin.
      spec: names the files.
      splits: split -> its rows; the first split begins with row 0.
      seed: seed of the order of the train rows; None for the order of the files.
      advance: called with the number of rows done, twice for each row.
      forced: force new files to the disk before the files that they were made from are deleted.
    """
    for split in splits:
        (root / split).mkdir(exist_ok=True)
    forms = {label_file: RowForm(np.dtype(bool), 1), numerical_file: RowForm(np.dtype(np.float16), NUM_NUMERICAL)}
    for file_of, form in forms.items():
        files = {split: root / file_of(spec, split) for split in splits}
        source = root / "work" / next(iter(files.values())).name
        _arrange_file(source, files, splits=splits, form=form, seed=seed, forced=forced)
        advance(sum(map(len, splits.values())))


def _arrange_file(
    source: Path, files: dict[str, Path], *, splits: dict[str, range], form: RowForm, seed: int | None, forced: bool
) -> None:
    (first, first_rows), *others = splits.items()
    if files[first].exists():  # it is renamed last, so all files are finished
        source.unlink(missing_ok=True)
        return
    num_rows = sum(map(len, splits.values()))
    if source.stat().st_size == num_rows * form.row_bytes:
        for split, rows in others:
            with open(files[split], "wb", buffering=0) as target:
                for data in _rows_of(source, rows, form):
                    append(target, data)
        if forced:
            force([path for split, _ in others for path in (files[split], files[split].parent)])
    if seed is None or first != "train":
        os.truncate(source, len(first_rows) * form.row_bytes)
        os.rename(source, files[first])
        return
    temporary = source.with_suffix(".shuffled")
    with ShuffledFile(
        temporary,
        source.with_suffix(".scratch"),
        num_rows=len(first_rows),
        dtype=form.dtype,
        width=form.width,
        seed=seed,
    ) as target:
        for data in _rows_of(source, first_rows, form):
            target.write(data.view(form.dtype).reshape(-1, form.width))
    if forced:
        force([temporary])
    os.rename(temporary, files[first])
    source.unlink()


def _rows_of(source: Path, rows: range, form: RowForm) -> Iterator[np.ndarray]:
    """Yields uint8 arrays of whole rows."""
    with open(source, "rb", buffering=0) as file:
        file.seek(rows.start * form.row_bytes)
        for start in range(rows.start, rows.stop, _COPY_ROWS):
            data = np.empty(min(_COPY_ROWS, rows.stop - start) * form.row_bytes, np.uint8)
            assert file.readinto(data.data) == data.nbytes, "the file of all rows is ours and whole"
            yield data
