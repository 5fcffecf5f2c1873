"""Label and numbers of all rows -> the files of the splits, in file order or in random order."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from criteo_prep.manifest import block_entry
from criteo_prep.preprocess.columns.encoder import write_ids
from criteo_prep.preprocess.shuffle import ShuffledFile
from criteo_prep.table.request import TableWork
from criteo_prep.table.splits import split_folder
from criteo_prep.table.transforms import transformed
from criteo_prep.table.work_files import LABEL, NUMBERS, RowNumbers

_BLOCK_ROWS = 1 << 16


def arrange(work: TableWork, known: dict[str, dict], advance: Callable[[int], None]) -> list[str]:
    """Writes label.bin and numerical.bin of every split.

    Args:
      work: the parsed rows, and the dataset to make.
      known: the statistics of the numericals, by feature.
      advance: called with the number of rows that are done.

    Returns:
      The files, as paths in the dataset folder.
    """
    written = []
    for split, num_rows in work.splits.num_rows.items():
        folder, seed = split_folder(work.root, split), work.seed if split == "train" else None
        write_ids(folder / "label.bin", _labels(work, split), num_rows=num_rows, dtype=np.dtype(bool), seed=seed)
        written.append(f"{split}/label.bin")
        if width := len(work.schema.numerical):
            path, blocks = folder / "numerical.bin", _numericals(work, split, known)
            write_rows(path, blocks, num_rows=num_rows, form=(np.dtype(np.float16), width), seed=seed)
            written.append(f"{split}/numerical.bin")
        advance(num_rows)
    return written


def number_blocks(work: TableWork, split: str) -> Iterator[np.ndarray]:
    """Yields the numbers of a split as they are in the log: float64 [n, numericals], NaN where missing."""
    width = len(work.schema.numerical)
    with RowNumbers(work.journal.folder / NUMBERS, np.float64, width) as file:
        for start, stop in _blocks(work, split):
            yield file.read(start, stop).reshape(-1, width)[work.splits.rows(split, start, stop)]


def _labels(work: TableWork, split: str) -> Iterator[np.ndarray]:
    with RowNumbers(work.journal.folder / LABEL, np.bool_) as file:
        for start, stop in _blocks(work, split):
            yield np.ascontiguousarray(file.read(start, stop)[work.splits.rows(split, start, stop)])


def _numericals(work: TableWork, split: str, known: dict[str, dict]) -> Iterator[np.ndarray]:
    for block in number_blocks(work, split):
        out = np.empty(block.shape, np.float16)
        for place, each in enumerate(work.schema.numerical):
            out[:, place] = transformed(block[:, place], each, known.get(each.feature, {}))
        yield out


def write_rows(
    path: Path, blocks: Iterator[np.ndarray], *, num_rows: int, form: tuple[np.dtype, int], seed: int | None
) -> dict:
    """Writes rows of `form` = (dtype, numbers of a row): in the given order or, with a seed, in a random order.

    Returns:
      The manifest's entry for the file.
    """
    dtype, width = form
    if seed is None or width == 1:
        return write_ids(path, blocks, num_rows=num_rows, dtype=dtype, seed=seed)
    scratch = path.parent.parent / "work" / f"{path.stem}.scratch"
    with ShuffledFile(path, scratch, num_rows=num_rows, dtype=dtype, width=width, seed=seed) as file:
        for block in blocks:
            file.write(block.reshape(-1, width))
    return block_entry(path)


def _blocks(work: TableWork, split: str) -> Iterator[tuple[int, int]]:
    for start in range(0, work.journal.num_rows, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, work.journal.num_rows)
        if work.splits.lie_in(split, start, stop):
            yield start, stop
