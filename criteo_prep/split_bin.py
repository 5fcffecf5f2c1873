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
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from criteo_prep.destination import DestinationError, new_dataset
from criteo_prep.feature_spec import AUTO, Chunk, Feature, FeatureSpec
from criteo_prep.flags import with_underscores
from criteo_prep.progress import Progress
from criteo_prep.schema import CATEGORICAL, LABEL, NUM_CATEGORICAL, NUMERICAL
from criteo_prep.split_bin_record import (
    ID_TYPES,
    NUMBER_TYPES,
    PARTS,
    WORD,
    Ids,
    RecordForm,
    SplitBinError,
    metadata,
    num_records,
    positive_integers,
    read_metadata,
    rows_of_parts,
)
from criteo_prep.synthetic.ahead import in_order
from criteo_prep.transcribe import Request, check_space, transcribe_spec

_BLOCK = 16384  # records that a thread takes at a time: 2.6 MB
_CACHED = 2048  # records that fit the second-level cache


def split(
    source: str | Path, destination: str | Path, form: RecordForm, slot_sizes: list[int] | None = None,
    overwrite: bool = False, quiet: bool = False,
) -> list[int]:  # fmt: skip
    """Makes destination/{label,dense,category}.bin and metadata.json.

    Args:
      source: file of records.
      destination: folder to make.
      form: of a record.
      slot_sizes: number of ids of each table; None to find the largest id + 1.

    Returns:
      The slot sizes.

    Raises:
      SplitBinError: the file is no whole number of records, or an id is out of range.
    """
    source, ids = Path(source), Ids(form.hotness, slot_sizes)
    rows = num_records(source, form)
    _check_apart(source, Path(destination))
    with new_dataset(destination, overwrite) as folder, contextlib.ExitStack() as stack:
        check_space(folder, source.stat().st_size)
        outputs = {part: stack.enter_context(open(folder / f"{part}.bin", "wb")).fileno() for part in PARTS}
        words = np.memmap(source, np.uint32, "r").reshape(rows, form.words) if rows else np.empty((0, form.words), "u4")
        descriptor = stack.enter_context(open(source, "rb")).fileno()

        def take(first: int) -> tuple[int, np.ndarray]:
            if os.fstat(descriptor).st_size < words.nbytes:  # to touch the map beyond the end would kill the process
                raise SplitBinError(f"{source}: shrank while it was read. Wait until it is complete.")
            block = words[first : first + _BLOCK]
            parts = {part: np.empty((len(block), columns.stop - columns.start), np.uint32)
                     for part, columns in form.columns.items()}  # fmt: skip
            for start in range(0, len(block), _CACHED):
                for part, columns in form.columns.items():
                    parts[part][start : start + _CACHED] = block[start : start + _CACHED, columns]
            largest = ids.check(parts["category"].view(form.category_type), source, first, form.words)
            for part, values in parts.items():
                _write(outputs[part], values, first * values.shape[1] * WORD)
            return len(block), largest

        with Progress("split", rows, "records", quiet) as progress:
            for count, largest in in_order(take, range(0, rows, _BLOCK)):
                np.maximum(ids.largest, largest, out=ids.largest)
                progress.advance(count)
        sizes = slot_sizes or [max(int(largest) + 1, 1) for largest in ids.largest]
        (folder / "metadata.json").write_text(metadata(form, sizes))
    return sizes


def join(source: str | Path, destination: str | Path, overwrite: bool = False, quiet: bool = False) -> int:
    """The inverse of split: the file of records. Returns their number.

    Raises:
      SplitBinError: the parts do not have the same number of records, or metadata.json is not one.
      DestinationError: the destination is there.
    """
    source, destination = Path(source), Path(destination)
    form, sizes = read_metadata(source / "metadata.json")
    rows = rows_of_parts(source, form)
    ids = Ids(form.hotness, sizes)
    with _new_file(destination, overwrite) as path, contextlib.ExitStack() as stack:
        check_space(path.parent, rows * form.words * WORD)
        inputs = {part: np.memmap(source / f"{part}.bin", np.uint32, "r").reshape(rows, -1) for part in PARTS if rows}
        output = stack.enter_context(open(path, "wb")).fileno()

        def put(first: int) -> int:
            block = np.empty((min(_BLOCK, rows - first), form.words), np.uint32)
            category = inputs["category"][first : first + len(block)].view(form.category_type)
            ids.check(category, source / "category.bin", first, form.words)
            for start in range(0, len(block), _CACHED):
                stop = min(start + _CACHED, len(block))
                for part, columns in form.columns.items():
                    block[start:stop, columns] = inputs[part][first + start : first + stop]
            _write(output, block, first * form.words * WORD)
            return len(block)

        with Progress("join", rows, "records", quiet) as progress:
            for count in in_order(put, range(0, rows, _BLOCK)):
                progress.advance(count)
    return rows


def split_to_tf_raw(
    source: str | Path, destination: str | Path, form: RecordForm, slot_sizes: list[int] | None = None,
    overwrite: bool = False, quiet: bool = False,
) -> list[int]:  # fmt: skip
    """The records as the train split of a tf_raw dataset. Arguments, return value and errors as for split.

    The numerical rule, log(x + 3), is applied where form.dense_log says that the trainer would.
    """
    source = Path(source)
    num_records(source, form)
    _check_apart(source, Path(destination))
    sizes = slot_sizes or [AUTO] * len(form.hotness)
    names = CATEGORICAL if len(sizes) == NUM_CATEGORICAL else [f"cat_{i}" for i in range(len(sizes))]
    columns = zip(names, sizes, form.hotness, strict=True)
    ids = [Feature(name, form.category_type, size, hotness) for name, size, hotness in columns]
    features = [Feature(LABEL, form.label_type), *(Feature(name, form.dense_type) for name in NUMERICAL), *ids]
    order = tuple(feature.name for feature in features)
    channels = {"categorical": order[14:], "numerical": NUMERICAL, "label": (LABEL,)}
    sources = {"train": (Chunk(order, (source.name,), "record_binary"),)}
    spec = FeatureSpec(dict(zip(order, features, strict=True)), channels, sources, {}, source.parent, source)
    request = Request(source.parent, "record_binary", dst_dataset_path=destination, dst_dataset_type="tf_raw",
                      dense_log=form.dense_log, overwrite=overwrite)  # fmt: skip
    transcribe_spec(request, spec, quiet)
    made = FeatureSpec.load(Path(destination) / request.dst_feature_spec)
    return [feature.cardinality for feature in made.categorical]


def _check_apart(source: Path, destination: Path) -> None:
    if Path(os.path.realpath(source)).is_relative_to(os.path.realpath(destination)):
        raise DestinationError(f"{destination}: holds the input {source}, which would be lost. Name another folder.")


def _write(descriptor: int, values: np.ndarray, offset: int) -> None:
    buffer = memoryview(values).cast("B")
    while buffer:
        count = os.pwrite(descriptor, buffer, offset)
        buffer, offset = buffer[count:], offset + count


@contextlib.contextmanager
def _new_file(destination: Path, overwrite: bool) -> Iterator[Path]:
    """Yields a path beside the destination; a clean exit renames it, an exception removes it."""
    if destination.exists() and (destination.is_dir() or not overwrite):
        hint = "Name a file." if destination.is_dir() else "Name another one, or add --overwrite to replace it."
        raise DestinationError(f"{destination}: is there already. {hint}")
    destination.parent.mkdir(parents=True, exist_ok=True)
    path = destination.with_name(f".{destination.name}.partial")
    try:
        yield path
        os.replace(path, destination)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


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
    add("--slot_size_array", metavar="LIST", help='number of ids of each table, "[3, 20, ...]" '
        "(default: the largest id + 1 in this file)")  # fmt: skip
    add("--label_type", default="int32", choices=NUMBER_TYPES, help="dtype of the label (default: %(default)s)")
    add("--dense_type", default="int32", choices=NUMBER_TYPES, help="dtype of dense numbers (default: %(default)s)")
    add("--category_type", default="int32", choices=ID_TYPES, help="dtype of the ids (default: %(default)s)")
    add("--dense_log", default="True", choices=("True", "False"), type=lambda text: text.capitalize(),
        help="whether dense numbers need log(x + 3); a note, tf_raw gets it done (default: %(default)s)")  # fmt: skip
    add("--hotness_per_table", metavar="LIST", help='ids of each table in a record, "[3, 2, 1, ...]" (default: 26 x 1)')
    add("--layout", default="split_bin", choices=("split_bin", "tf_raw"), help="what to make (default: %(default)s)")
    add("--join", action="store_true", help="the inverse: from the folder to the file")
    add("--overwrite", action="store_true", help="replace what is at OUTPUT, at the end")
    add("--quiet", action="store_true", help="show no progress")


def run(arguments: argparse.Namespace) -> int:
    if arguments.join:
        rows = join(arguments.input, arguments.output, arguments.overwrite, arguments.quiet)
        print(f"{arguments.output}: {rows:,} records")
        return 0
    sizes = hotness = None
    if arguments.slot_size_array is not None:
        sizes = _integers("--slot_size_array", arguments.slot_size_array)
    if arguments.hotness_per_table is not None:
        hotness = _integers("--hotness_per_table", arguments.hotness_per_table)
    form = RecordForm(arguments.label_type, arguments.dense_type, arguments.category_type,
                      tuple(hotness or [1] * NUM_CATEGORICAL), arguments.dense_log == "True")  # fmt: skip
    if sizes and len(sizes) != len(form.hotness):
        raise SplitBinError(f"--slot_size_array has {len(sizes)} sizes, a record has {len(form.hotness)} tables.")
    make = split_to_tf_raw if arguments.layout == "tf_raw" else split
    found = make(arguments.input, arguments.output, form, sizes, arguments.overwrite, arguments.quiet)
    if sizes is None:
        print(f"vocab_sizes are the largest id + 1 found in {arguments.input}, not those of a vocabulary: {found}")
    print(f"{arguments.output}: {arguments.layout}, {num_records(Path(arguments.input), form):,} records")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m criteo_prep.split_bin", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_arguments(parser)
    arguments = parser.parse_args(with_underscores(sys.argv[1:] if argv is None else argv))
    try:
        return run(arguments)
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted; the output is as it was", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
