"""Raw records taken apart into a file for labels, one for dense numbers and one for ids, and put together again.

    python -m criteo_prep.split_bin train.bin train/ --slot_size_array "[39884406, 39043, ...]"
    python -m criteo_prep.split_bin --join train/ train.bin

A record is 4 bytes a number: label, 13 dense, 26 ids (160 bytes), or, with --hotness_per_table, that many ids a table.
OUTPUT gets label.bin, dense.bin, category.bin and metadata.json; with --layout tf_raw, a dataset to train on.

Source: split_bin.py of the DLRM benchmarks of HugeCTR's sparse operation kit: names, bytes and flags.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from io import FileIO
from pathlib import Path

import numpy as np

from criteo_prep.destination import new_dataset, new_file
from criteo_prep.feature_spec import AUTO, Chunk, Feature, FeatureSpec
from criteo_prep.flags import run_program
from criteo_prep.guard import check_apart, check_space
from criteo_prep.parallel import in_order
from criteo_prep.progress import Progress
from criteo_prep.schema import CATEGORICAL, LABEL, NUM_CATEGORICAL, NUMERICAL
from criteo_prep.split_bin_record import (
    ID_TYPES,
    NUMBER_TYPES,
    PARTS,
    WORD,
    IdLimits,
    Place,
    RecordForm,
    SplitBinError,
    check_dense,
    metadata,
    num_records,
    positive_integers,
    read_metadata,
    rows_of_parts,
)
from criteo_prep.transcribe.array_file import ArrayFile
from criteo_prep.transcribe.freed_memory import keep_freed_memory
from criteo_prep.transcribe.run import Request, transcribe_spec
from criteo_prep.unchanged import Unchanged

_BLOCK_BYTES = 8192 * 160  # that a thread takes at a time: they are still in the cache when they are written


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
      form: of a record.
      slot_sizes: number of ids of each table; None to find the largest id + 1.

    Returns:
      The slot sizes.

    Raises:
      SplitBinError: the file is no whole number of records, an id is out of range, or somebody is writing the file.
      FeatureSpecError: a dense number is NaN or infinite, or the file shrank while it was read.
    """
    source, limits = Path(source), IdLimits(form.hotness, slot_sizes)
    rows, unchanged = num_records(source, form), Unchanged([source])
    with (
        new_dataset(destination, reads=[source], overwrite=overwrite) as folder,
        contextlib.ExitStack() as stack,
    ):
        check_space(folder, source.stat().st_size)
        records = stack.enter_context(contextlib.closing(ArrayFile(source, np.uint32)))
        outputs = [stack.enter_context(open(folder / f"{part}.bin", "wb", buffering=0)) for part in PARTS]
        ids = Place(source, form.words, form.words - sum(form.hotness))

        def take(first: int, stop: int) -> tuple[list[np.ndarray], np.ndarray]:
            whole = records.read(first * form.words, (stop - first) * form.words, stop).view(form.dtype)
            label, dense, category = (np.ascontiguousarray(whole[part]).view(np.uint32) for part in PARTS)
            check_dense(dense, form, path=source, first_record=first)
            return [label, dense, category], limits.check(category, first, ids)

        largest = _write_all(rows, form, make=take, outputs=outputs, name="split", quiet=quiet)
        if num_records(source, form) != rows:
            raise SplitBinError(f"{source}: grew while it was read. Wait until it is complete.")
        unchanged.check()
        sizes = slot_sizes or ([1] * len(form.hotness) if largest is None else (largest + 1).tolist())
        (folder / "metadata.json").write_text(metadata(form, sizes))
    return sizes


def join(source: str | Path, destination: str | Path, *, overwrite: bool = False, quiet: bool = False) -> int:
    """The inverse of split: the file of records. Returns their number.

    Raises:
      SplitBinError: the parts do not have the same number of records, an id is out of range, or metadata.json is none.
      FeatureSpecError: a dense number is NaN or infinite, or a part shrank while it was read.
      DestinationError: the destination is there, or is inside the source.
    """
    source, destination = Path(source), Path(destination)
    form, sizes = read_metadata(source / "metadata.json")
    rows = rows_of_parts(source, form)
    unchanged = Unchanged(source.iterdir())
    limits = IdLimits(form.hotness, sizes)
    with new_file(destination, reads=[source], overwrite=overwrite) as output, contextlib.ExitStack() as stack:
        check_space(destination, rows * form.dtype.itemsize)
        inputs = [ArrayFile(source / f"{part}.bin", np.uint32) for part in PARTS]
        for file in inputs:
            stack.callback(file.close)
        ids = Place(source / "category.bin", sum(form.hotness), 0)

        def put(first: int, stop: int) -> tuple[list[np.ndarray], np.ndarray]:
            whole, parts = np.empty(stop - first, form.dtype), {}
            for part, file in zip(PARTS, inputs, strict=True):
                width = form.dtype[part].itemsize // WORD
                parts[part] = file.read(first * width, (stop - first) * width, stop)
                whole[part] = parts[part].view(form.dtype[part])
            check_dense(parts["dense"], form, path=source / "dense.bin", first_record=first)
            return [whole.view(np.uint32)], limits.check(parts["category"], first, ids)

        _write_all(rows, form, make=put, outputs=[output], name="join", quiet=quiet)
        if rows_of_parts(source, form) != rows:
            raise SplitBinError(f"{source}: grew while it was read. Wait until it is complete.")
        unchanged.check()
    return rows


def _write_all(
    rows: int,
    form: RecordForm,
    *,
    make: Callable[[int, int], tuple[list[np.ndarray], np.ndarray]],
    outputs: list[FileIO],
    name: str,
    quiet: bool,
) -> np.ndarray | None:
    """Writes what make(first, stop) makes of each block of records, in threads, to the outputs, in order.

    One thread writes, because two that write one file wait for each other.

    Returns:
      The largest id of each table, from those that `make` finds in the blocks; None where there are no records.
    """
    keep_freed_memory()
    each = max(1, _BLOCK_BYTES // form.dtype.itemsize)
    largest = None
    with (
        Progress(name, rows, unit="records", quiet=quiet) as progress,
        # The threads end before their files are closed.
        contextlib.closing(in_order(lambda first: make(first, min(first + each, rows)), range(0, rows, each))) as made,
    ):
        for arrays, found in made:
            for file, array in zip(outputs, arrays, strict=True):
                _write(file, array)
            largest = found if largest is None else np.maximum(largest, found)
            progress.advance(min(each, rows - progress.done))
    return largest


def split_to_tf_raw(
    source: str | Path,
    destination: str | Path,
    *,
    form: RecordForm,
    slot_sizes: list[int] | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> list[int]:
    """The records as the train split of a tf_raw dataset. Arguments, return value and errors as for split.

    The numerical rule, log(x + 3), is applied where form.dense_log says that the trainer would.
    """
    source = Path(source)
    num_records(source, form)
    check_apart(destination, [source])
    sizes = slot_sizes or [AUTO] * len(form.hotness)
    names = CATEGORICAL if len(sizes) == NUM_CATEGORICAL else [f"cat_{i}" for i in range(len(sizes))]
    columns = zip(names, sizes, form.hotness, strict=True)
    ids = [Feature(name, form.category_type, cardinality=size, hotness=hotness) for name, size, hotness in columns]
    features = [Feature(LABEL, form.label_type), *(Feature(name, form.dense_type) for name in NUMERICAL), *ids]
    order = tuple(feature.name for feature in features)
    channels = {"categorical": order[14:], "numerical": NUMERICAL, "label": (LABEL,)}
    sources = {"train": (Chunk(order, (source.name,), "record_binary"),)}
    spec = FeatureSpec(
        dict(zip(order, features, strict=True)), channels, sources=sources, metadata={}, root=source.parent, path=source
    )
    request = Request(
        source.parent,
        "record_binary",
        dst_dataset_path=destination,
        dst_dataset_type="tf_raw",
        dense_log=form.dense_log,
        overwrite=overwrite,
    )
    transcribe_spec(request, spec, quiet=quiet)
    if slot_sizes:
        return slot_sizes
    made = FeatureSpec.load(Path(destination) / request.dst_feature_spec)
    return [feature.cardinality for feature in made.categorical]


def _write(file: FileIO, values: np.ndarray) -> None:
    buffer = memoryview(values).cast("B")
    while buffer:
        buffer = buffer[file.write(buffer) :]


def _integers(flag: str, text: str) -> list[int]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    return positive_integers(value, flag)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("input", metavar="INPUT", help="a file of records; with --join, a folder that split-bin has made")
    add("output", metavar="OUTPUT", help="the folder to make; with --join, the file")
    add(
        "--slot_size_array",
        metavar="LIST",
        help='number of ids of each table, "[3, 20, ...]" (default: the largest id + 1 in this file)',
    )
    add("--label_type", default="int32", choices=NUMBER_TYPES, help="dtype of the label (default: %(default)s)")
    add("--dense_type", default="int32", choices=NUMBER_TYPES, help="dtype of dense numbers (default: %(default)s)")
    add("--category_type", default="int32", choices=ID_TYPES, help="dtype of the ids (default: %(default)s)")
    add(
        "--dense_log",
        default="True",
        choices=("True", "False"),
        type=lambda text: text.capitalize(),
        help="whether dense numbers need log(x + 3); a note, tf_raw gets it done (default: %(default)s)",
    )
    add("--hotness_per_table", metavar="LIST", help='ids of each table in a record, "[3, 2, 1, ...]" (default: 26 x 1)')
    add("--layout", default="split_bin", choices=("split_bin", "tf_raw"), help="what to make (default: %(default)s)")
    add("--join", action="store_true", help="the inverse: from the folder to the file")
    add("--overwrite", action="store_true", help="replace what is at OUTPUT, at the end")
    add("--quiet", action="store_true", help="show no progress")


def run(arguments: argparse.Namespace) -> int:
    if arguments.join:
        rows = join(arguments.input, arguments.output, overwrite=arguments.overwrite, quiet=arguments.quiet)
        print(f"{arguments.output}: {rows:,} records")
        return 0
    sizes = hotness = None
    if arguments.slot_size_array is not None:
        sizes = _integers("--slot_size_array", arguments.slot_size_array)
    if arguments.hotness_per_table is not None:
        hotness = _integers("--hotness_per_table", arguments.hotness_per_table)
    form = RecordForm(
        arguments.label_type,
        arguments.dense_type,
        category_type=arguments.category_type,
        hotness=tuple(hotness or [1] * NUM_CATEGORICAL),
        dense_log=arguments.dense_log == "True",
    )
    if sizes and len(sizes) != len(form.hotness):
        raise SplitBinError(f"--slot_size_array has {len(sizes)} sizes, a record has {len(form.hotness)} tables.")
    make = split_to_tf_raw if arguments.layout == "tf_raw" else split
    found = make(
        arguments.input,
        arguments.output,
        form=form,
        slot_sizes=sizes,
        overwrite=arguments.overwrite,
        quiet=arguments.quiet,
    )
    if sizes is None:
        print(f"vocab_sizes are the largest id + 1 found in {arguments.input}, not those of a vocabulary: {found}")
    print(f"{arguments.output}: {arguments.layout}, {num_records(Path(arguments.input), form):,} records")
    return 0


def main(argv: Sequence[str] | None = None, name: str = "python -m criteo_prep.split_bin") -> int:
    return run_program(name, __doc__, add_arguments=add_arguments, run=run, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
