"""Label and numericals of all rows -> the files of the splits, in file order or in a random one.

Every step can be stopped and done again: a final file appears by a rename, and the file of all rows goes after it.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from criteo_prep.durable import force
from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.preprocess.parse.raw_columns import append
from criteo_prep.preprocess.shuffle import ShuffledFile
from criteo_prep.schema import NUM_NUMERICAL

_COPY_ROWS = 1 << 17


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
    """Makes every split's label and numerical file.

    Args:
      root: the dataset folder in the making, with work/label.bin and work/numerical.bin.
      splits: split -> its rows; the first one begins with row 0.
      seed: of the train rows' order; None leaves it.
      advance: called with the rows done, twice for each row.
      forced: what is made must be on the disk before what it was made of goes.
    """
    for split in splits:
        (root / split).mkdir(exist_ok=True)
    kinds = ((label_file, np.dtype(bool), 1), (numerical_file, np.dtype(np.float16), NUM_NUMERICAL))
    for file_of, dtype, width in kinds:
        source = root / "work" / Path(file_of(spec, "train")).name if "train" in splits else None
        source = source or root / "work" / Path(file_of(spec, next(iter(splits)))).name
        files = {split: root / file_of(spec, split) for split in splits}
        _arrange_file(source, files, splits=splits, dtype=dtype, width=width, seed=seed, forced=forced)
        advance(sum(map(len, splits.values())))


def _arrange_file(
    source: Path,
    files: dict[str, Path],
    *,
    splits: dict[str, range],
    dtype: np.dtype,
    width: int,
    seed: int | None,
    forced: bool,
) -> None:
    (first, first_rows), *others = splits.items()
    if files[first].exists():  # all was done before it was named so
        source.unlink(missing_ok=True)
        return
    row_bytes = dtype.itemsize * width
    num_rows = sum(map(len, splits.values()))
    if source.stat().st_size == num_rows * row_bytes:
        for split, rows in others:
            with open(files[split], "wb", buffering=0) as target:
                _copy(source, rows, row_bytes=row_bytes, write=lambda data, target=target: append(target, data))
        if forced:
            force([path for split, _ in others for path in (files[split], files[split].parent)])
    if seed is None or first != "train":
        os.truncate(source, len(first_rows) * row_bytes)
        os.rename(source, files[first])
        return
    temporary = source.with_suffix(".shuffled")
    with ShuffledFile(
        temporary, source.with_suffix(".scratch"), num_rows=len(first_rows), dtype=dtype, width=width, seed=seed
    ) as target:
        _copy(
            source,
            first_rows,
            row_bytes=row_bytes,
            write=lambda data: target.write(data.view(dtype).reshape(-1, width)),
        )
    if forced:
        force([temporary])
    os.rename(temporary, files[first])
    source.unlink()


def _copy(source: Path, rows: range, *, row_bytes: int, write: Callable[[np.ndarray], None]) -> None:
    """Gives `write` uint8 arrays of whole rows."""
    with open(source, "rb", buffering=0) as file:
        file.seek(rows.start * row_bytes)
        for start in range(rows.start, rows.stop, _COPY_ROWS):
            data = np.empty(min(_COPY_ROWS, rows.stop - start) * row_bytes, np.uint8)
            assert file.readinto(data.data) == data.nbytes, "the file of all rows is ours and whole"
            write(data)
