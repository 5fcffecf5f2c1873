"""Raw records to a file for labels, one for dense numbers and one for ids; and back.

    python -m criteo_prep.split_bin train.bin train/ --slot_size_array "[39884406, 39043, ...]"
    python -m criteo_prep.split_bin --join train/ train.bin

A record has 4 bytes for each number: label, 13 dense numbers, 26 ids (160 bytes). With --hotness_per_table, each table
has as many ids as it says. OUTPUT gets label.bin, dense.bin, category.bin and metadata.json; with --layout tf_raw,
OUTPUT is a dataset to train on.

Source: split_bin.py of the DLRM benchmarks of HugeCTR's sparse operation kit: names, bytes and flags.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from criteo_prep.flags import run_program
from criteo_prep.schema import NUM_CATEGORICAL
from criteo_prep.split_bin.files import join, split
from criteo_prep.split_bin.metadata import positive_integers
from criteo_prep.split_bin.record import ID_TYPES, NUMBER_TYPES, RecordForm, SplitBinError, num_records
from criteo_prep.split_bin.to_tf_raw import split_to_tf_raw


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("input", metavar="INPUT", help="a file of records; with --join, a folder that split-bin has made")
    add("output", metavar="OUTPUT", help="the folder to make; with --join, the file to make")
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
        help="whether dense numbers need log(x + 3): written into metadata.json for the trainer, and carried out with "
        "--layout tf_raw (default: %(default)s)",
    )
    add("--hotness_per_table", metavar="LIST", help='ids of each table in a record, "[3, 2, 1, ...]" (default: 26 x 1)')
    add("--layout", default="split_bin", choices=("split_bin", "tf_raw"), help="what to make (default: %(default)s)")
    add("--join", action="store_true", help="make the file of records from the folder")
    add("--overwrite", action="store_true", help="replace an existing OUTPUT when the new one is complete")
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
    final_sizes = make(
        arguments.input,
        arguments.output,
        form=form,
        slot_sizes=sizes,
        overwrite=arguments.overwrite,
        quiet=arguments.quiet,
    )
    if sizes is None:
        print(
            f"vocab_sizes are the largest id + 1 found in {arguments.input}, not the sizes of a vocabulary: "
            f"{final_sizes}"
        )
    print(f"{arguments.output}: {arguments.layout}, {num_records(Path(arguments.input), form):,} records")
    return 0


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
