"""Raw records to a file for labels, one for dense numbers and one for ids; and back.

    python -m criteo_prep.split_bin train.bin train/ --slot_size_array "[39884406, 39043, ...]"
    python -m criteo_prep.split_bin --join train/ train.bin

A record has 4 bytes for each number: label, 13 dense numbers, 26 ids (160 bytes), or as many ids of each table as
--hotness_per_table says. A feature_spec.yaml that names INPUT, or a metadata.json next to INPUT, gives types and sizes;
a flag that contradicts it is an error. OUTPUT gets label.bin, dense.bin, category.bin and metadata.json. With --layout
tf_raw, OUTPUT is a dataset to train on.

Source: split_bin.py of the DLRM benchmarks of HugeCTR's sparse operation kit: names, bytes and flags.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from criteo_prep.flags import run_program
from criteo_prep.split_bin.files import join, split
from criteo_prep.split_bin.known_form import KnownForm, known_form
from criteo_prep.split_bin.metadata import positive_integers
from criteo_prep.split_bin.record import (
    ID_TYPES,
    NUMBER_TYPES,
    RecordForm,
    SplitBinError,
    dense_type_doubt,
    num_records,
)
from criteo_prep.split_bin.to_tf_raw import split_to_tf_raw


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("input", metavar="INPUT", help="a file of records; with --join, a folder that split-bin has made")
    add("output", metavar="OUTPUT", help="the folder to make; with --join, the file to make")
    add(
        "--slot_size_array",
        metavar="LIST",
        help='number of ids of each table, "[3, 20, ...]" (default: what the file next to INPUT says, else the largest '
        "id + 1 in INPUT)",
    )
    default = "(default: what the file next to INPUT says, else int32)"
    add("--label_type", choices=NUMBER_TYPES, help=f"dtype of the label {default}")
    add("--dense_type", choices=NUMBER_TYPES, help=f"dtype of dense numbers {default}")
    add("--category_type", choices=ID_TYPES, help=f"dtype of the ids {default}")
    add(
        "--dense_log",
        choices=("True", "False"),
        type=lambda text: text.capitalize(),
        help="whether dense numbers need log(x + 3): written into metadata.json for the trainer, and carried out with "
        "--layout tf_raw (default: what the file next to INPUT says, else True)",
    )
    add(
        "--hotness_per_table",
        metavar="LIST",
        help='ids of each table in a record, "[3, 2, 1, ...]" (default: what the file next to INPUT says, else 26 x 1)',
    )
    add("--layout", default="split_bin", choices=("split_bin", "tf_raw"), help="what to make (default: %(default)s)")
    add("--join", action="store_true", help="make the file of records from the folder")
    add(
        "--overwrite",
        action="store_true",
        help="replace an OUTPUT of this program when the new one is complete",
    )
    add("--quiet", action="store_true", help="show no progress")


def run(arguments: argparse.Namespace) -> int:
    if arguments.join:
        rows = join(arguments.input, arguments.output, overwrite=arguments.overwrite, quiet=arguments.quiet)
        print(f"{arguments.output}: {rows:,} records")
        return 0
    source = Path(arguments.input)
    known = known_form(source) if source.is_file() else None
    form, sizes = _form_and_sizes(arguments, known)
    _check_types(arguments, form, known)
    make = split_to_tf_raw if arguments.layout == "tf_raw" else split
    final_sizes = make(
        source,
        arguments.output,
        form=form,
        slot_sizes=sizes,
        overwrite=arguments.overwrite,
        quiet=arguments.quiet,
    )
    if sizes is None:
        print(f"vocab_sizes are the largest id + 1 found in {source}, not the sizes of a vocabulary: {final_sizes}")
    print(f"{arguments.output}: {arguments.layout}, {num_records(source, form):,} records")
    return 0


def _form_and_sizes(arguments: argparse.Namespace, known: KnownForm | None) -> tuple[RecordForm, list[int] | None]:
    """(form, slot sizes) by the flags and by the file next to INPUT. Raises SplitBinError where they disagree."""
    sizes = hotness = None
    if arguments.slot_size_array is not None:
        sizes = _integers("--slot_size_array", arguments.slot_size_array)
    if arguments.hotness_per_table is not None:
        hotness = tuple(_integers("--hotness_per_table", arguments.hotness_per_table))
    flags = {
        "label_type": arguments.label_type,
        "dense_type": arguments.dense_type,
        "category_type": arguments.category_type,
        "hotness": hotness,
    }
    given = {field: value for field, value in flags.items() if value is not None}
    stated = known.form if known else RecordForm()
    for field, value in given.items() if known else ():
        if value != (right := getattr(stated, field)):
            flag = "--hotness_per_table" if field == "hotness" else f"--{field}"
            shown, right = (list(v) if field == "hotness" else v for v in (value, right))
            raise SplitBinError(
                f"{flag} {shown}: {known.path} says {right} for {arguments.input}. Leave the flag out, or "
                "correct the file."
            )
    if arguments.dense_log is not None:
        given["dense_log"] = arguments.dense_log == "True"
    form = dataclasses.replace(stated, **given)
    if sizes is None and known:
        sizes = known.slot_sizes
    if sizes and len(sizes) != len(form.hotness):
        raise SplitBinError(f"--slot_size_array has {len(sizes)} sizes, a record has {len(form.hotness)} tables.")
    return form, sizes


def _check_types(arguments: argparse.Namespace, form: RecordForm, known: KnownForm | None) -> None:
    """Reports the types that a file next to INPUT states, and dense numbers that look like numbers of another type.

    Raises:
      SplitBinError: the dense numbers look like numbers of another type, and neither a flag nor a file says the type.
    """
    if known:
        print(
            f"{known.path} says: label {form.label_type}, dense {form.dense_type}, ids {form.category_type}, "
            f"{len(form.hotness)} tables; dense_log {form.dense_log}"
        )
    doubt = dense_type_doubt(Path(arguments.input), form)
    if doubt and not known and arguments.dense_type is None:
        raise SplitBinError(
            f"{arguments.input}: {doubt}. Give --dense_type float32, or --dense_type int32 if the numbers are right."
        )
    if doubt:
        print(f"{arguments.input}: {doubt}. Is the dense_type right?", file=sys.stderr)


def _integers(flag: str, text: str) -> list[int]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    return positive_integers(value, flag)


def main(argv: Sequence[str] | None = None, name: str = "python -m criteo_prep.split_bin") -> int:
    return run_program(name, __doc__, add_arguments=add_arguments, run=run, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
