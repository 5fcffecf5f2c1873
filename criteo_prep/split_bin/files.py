"""A file of records to a folder with a file for labels, one for dense numbers and one for ids; and back."""

import contextlib
import functools
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import numpy as np

from criteo_prep.destination import new_dataset, new_file
from criteo_prep.guard import check_space
from criteo_prep.parallel import in_order
from criteo_prep.progress import Progress
from criteo_prep.split_bin.metadata import METADATA, metadata_text, read_metadata
from criteo_prep.split_bin.record import (
    PARTS,
    WORD,
    IdLimits,
    IdPlace,
    RecordForm,
    SplitBinError,
    check_dense,
    check_labels,
    holds_records,
    num_records,
    num_records_of_parts,
)
from criteo_prep.transcribe.array_file import ArrayFile
from criteo_prep.transcribe.freed_memory import keep_freed_memory
from criteo_prep.unchanged import Unchanged

_BLOCK_BYTES = 8192 * 160  # bytes that a thread takes at a time: they are still in the cache when they are written


def split(
    source: str | Path,
    destination: str | Path,
    *,
    form: RecordForm,
    slot_sizes: list[int] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> list[int]:
    """Makes destination/{label,dense,category}.bin and metadata.json.

    Args:
      source: file of records.
      destination: folder to make.
      form: types and sizes of a record.
      slot_sizes: number of ids of each table; None for the largest id + 1 of this file.
      overwrite: whether an existing destination is replaced.
      quiet: whether no progress is shown.

    Returns:
      The slot sizes.

    Raises:
      SplitBinError: the last record is not whole, a label or an id is out of range, or somebody is writing the file.
      FeatureSpecError: a dense number is NaN or infinite, or the file shrank while it was read.
    """
    source, limits = Path(source), IdLimits(form.hotness, slot_sizes)
    rows = num_records(source, form)
    unchanged = Unchanged([source])
    with (
        new_dataset(destination, reads=[source], overwrite=overwrite) as folder,
        contextlib.ExitStack() as stack,
    ):
        check_space(folder, source.stat().st_size)
        records = stack.enter_context(contextlib.closing(ArrayFile(source, np.uint32)))
        outputs = [stack.enter_context(open(folder / f"{part}.bin", "wb", buffering=0)) for part in PARTS]
        place = IdPlace(source, form.num_words, form.num_words - sum(form.hotness))

        def parts_of(first: int, stop: int) -> tuple[list[np.ndarray], np.ndarray]:
            whole = records.read(first * form.num_words, (stop - first) * form.num_words, stop).view(form.dtype)
            label, dense, category = (np.ascontiguousarray(whole[part]).view(np.uint32) for part in PARTS)
            check_labels(label, form, path=source, first_record=first)
            check_dense(dense, form, path=source, first_record=first)
            return [label, dense, category], limits.check(category, first, place)

        with Progress("split", rows, unit="records", quiet=quiet) as progress:
            largest = _write_blocks(parts_of, form, outputs=outputs, progress=progress)
        if num_records(source, form) != rows:
            raise SplitBinError(f"{source}: grew while it was read. Wait until it is complete.")
        unchanged.check()
        sizes = slot_sizes or ([1] * len(form.hotness) if largest is None else (largest + 1).tolist())
        (folder / METADATA).write_text(metadata_text(form, sizes))
    return sizes


def join(source: str | Path, destination: str | Path, *, overwrite: bool = False, quiet: bool = False) -> int:
    """Makes the file of records of a folder that `split` made. Returns the number of records.

    Raises:
      SplitBinError: the three files differ in their number of records, a label or an id is out of range, or
        metadata.json is bad.
      FeatureSpecError: a dense number is NaN or infinite, or a file shrank while it was read.
      DestinationError: the destination exists and does not hold records of this form, or is inside the source.
    """
    source, destination = Path(source), Path(destination)
    form, sizes = read_metadata(source / METADATA)
    rows = num_records_of_parts(source, form)
    limits = IdLimits(form.hotness, sizes)
    unchanged = Unchanged(source.iterdir())
    is_ours = functools.partial(holds_records, form=form, limits=limits)
    with (
        new_file(destination, is_ours=is_ours, reads=[source], overwrite=overwrite) as output,
        contextlib.ExitStack() as stack,
    ):
        check_space(destination, rows * form.dtype.itemsize)
        inputs = [ArrayFile(source / f"{part}.bin", np.uint32) for part in PARTS]
        for file in inputs:
            stack.callback(file.close)
        place = IdPlace(source / "category.bin", sum(form.hotness), 0)

        def records_of(first: int, stop: int) -> tuple[list[np.ndarray], np.ndarray]:
            whole, parts = np.empty(stop - first, form.dtype), {}
            for part, file in zip(PARTS, inputs, strict=True):
                width = form.dtype[part].itemsize // WORD
                parts[part] = file.read(first * width, (stop - first) * width, stop)
                whole[part] = parts[part].view(form.dtype[part])
            check_labels(parts["label"], form, path=source / "label.bin", first_record=first)
            check_dense(parts["dense"], form, path=source / "dense.bin", first_record=first)
            return [whole.view(np.uint32)], limits.check(parts["category"], first, place)

        with Progress("join", rows, unit="records", quiet=quiet) as progress:
            _write_blocks(records_of, form, outputs=[output], progress=progress)
        if num_records_of_parts(source, form) != rows:
            raise SplitBinError(f"{source}: grew while it was read. Wait until it is complete.")
        unchanged.check()
    return rows


def _write_blocks(
    make: Callable[[int, int], tuple[list[np.ndarray], np.ndarray]],
    form: RecordForm,
    *,
    outputs: list[FileIO],
    progress: Progress,
) -> np.ndarray | None:
    """Writes what `make` returns for each block of records to the outputs, in order.

    `make` runs in several threads. One thread writes, because two threads that write one file wait for each other.

    Args:
      make: function of (first record, record after the last one) that returns an array for each output, and the
        largest id of each table.
      form: types and sizes of a record.
      outputs: files to write.
      progress: progress whose total is the number of records.

    Returns:
      The largest id of each table; None where there are no records.
    """
    keep_freed_memory()
    rows, block_rows = progress.total, max(1, _BLOCK_BYTES // form.dtype.itemsize)
    blocks = in_order(lambda first: make(first, min(first + block_rows, rows)), range(0, rows, block_rows))
    largest = None
    with contextlib.closing(blocks):  # the threads end before their files are closed
        for arrays, largest_of_block in blocks:
            for file, array in zip(outputs, arrays, strict=True):
                _write(file, array)
            largest = largest_of_block if largest is None else np.maximum(largest, largest_of_block)
            progress.advance(min(block_rows, rows - progress.done))
    return largest


def _write(file: FileIO, values: np.ndarray) -> None:
    buffer = memoryview(values).cast("B")
    while buffer:
        buffer = buffer[file.write(buffer) :]
