"""From one layout to another.

    python -m criteo_prep.transcribe --src_dataset_type synthetic --src_dataset_path . \\
        --dst_dataset_path DIR --dst_dataset_type tf_raw --max_batches_train 1000 --max_batches_test 100

Source: NVIDIA's dataloading.transcribe has these flags and defaults; --dense_log, --seed and --overwrite are new.
"""

import argparse
import sys
from collections.abc import Sequence

from criteo_prep.flags import run_program
from criteo_prep.transcribe.layouts import READERS, WRITERS
from criteo_prep.transcribe.request import SYNTHETIC_BATCHES, Request
from criteo_prep.transcribe.run import transcribe_dataset

_DEFAULT = Request()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--src_dataset_path", default=_DEFAULT.src_dataset_path, help="folder to read (default: %(default)s)")
    add(
        "--src_dataset_type",
        default=_DEFAULT.src_dataset_type,
        metavar="LAYOUT",
        help=f"layout of the source: {' or '.join(READERS)} (default: %(default)s)",
    )
    add(
        "--src_feature_spec",
        default=_DEFAULT.src_feature_spec,
        help="file name of the source's feature spec (default: %(default)s)",
    )
    add("--src_batch_size", type=int, default=_DEFAULT.src_batch_size, help="samples in a batch (default: %(default)s)")
    add(
        "--src_synthetic_dataset_use_feature_spec",
        action="store_true",
        help="accepted; the synthetic source always follows the feature spec",
    )
    add("--dst_dataset_path", default=_DEFAULT.dst_dataset_path, help="folder to make (default: %(default)s)")
    add(
        "--dst_prebatch_size",
        type=int,
        default=_DEFAULT.dst_prebatch_size,
        help="samples in a record of split_tfrecords (default: %(default)s)",
    )
    add(
        "--dst_feature_spec",
        default=_DEFAULT.dst_feature_spec,
        help="file name of the feature spec that is written (default: %(default)s)",
    )
    add(
        "--dst_dataset_type",
        default=_DEFAULT.dst_dataset_type,
        metavar="LAYOUT",
        help=f"layout to write: {' or '.join(WRITERS)} (default: %(default)s)",
    )
    add(
        "--max_batches_train",
        type=int,
        default=-1,
        help="batches of train to take; -1 is all "
        f"(of the synthetic source, which has no end: {SYNTHETIC_BATCHES['train']})",
    )
    add(
        "--max_batches_test",
        type=int,
        default=-1,
        help="batches of test, and of validation, to take; -1 is all "
        f"(of the synthetic source: {SYNTHETIC_BATCHES['test']})",
    )
    add("--train_only", action="store_true", help="leave test and validation out")
    add("--dense_log", action="store_true", help="take log(x + 3) of the numericals, for a source with raw integers")
    add("--seed", type=int, default=_DEFAULT.seed, help="seed of the synthetic source (default: %(default)s)")
    add("--overwrite", action="store_true", help="replace a destination that holds files")


def run(arguments: argparse.Namespace) -> int:
    request = Request(**{field: getattr(arguments, field) for field in Request.__dataclass_fields__})
    for note in _notes(arguments, request):
        print(note, file=sys.stderr)
    num_samples = transcribe_dataset(request, warn=lambda message: print(message, file=sys.stderr))
    counts = ", ".join(f"{split} {rows:,}" for split, rows in num_samples.items())
    print(f"{request.dst_dataset_path}: {request.dst_dataset_type}, samples: {counts}")
    return 0


def _notes(arguments: argparse.Namespace, request: Request) -> list[str]:
    """Messages about flags that have no effect here, or an effect that a user does not expect."""
    notes = []
    if arguments.src_synthetic_dataset_use_feature_spec:
        notes.append("--src_synthetic_dataset_use_feature_spec: no effect, the source always follows the spec.")
    if request.dst_prebatch_size != _DEFAULT.dst_prebatch_size and request.dst_dataset_type != "split_tfrecords":
        notes.append(f"--dst_prebatch_size: no effect, {request.dst_dataset_type} has no pre-batches.")
    if request.src_dataset_type == "synthetic":
        for split, batches in SYNTHETIC_BATCHES.items():
            if getattr(arguments, f"max_batches_{split}") == -1 and not (split == "test" and request.train_only):
                notes.append(f"--max_batches_{split} -1: the synthetic source has no end; {batches} batches are taken.")
    return notes


def main(argv: Sequence[str] | None = None, name: str = "python -m criteo_prep.transcribe") -> int:
    return run_program(name, __doc__, add_arguments=add_arguments, run=run, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
