"""The verbs that make datasets of logs: preprocess, encode and schema."""

import argparse
import sys
from collections.abc import Callable, Sequence

from criteo_prep.flags import check_workers, how_interrupted, verb_parser


def preprocess(argv: Sequence[str]) -> int:
    """Criteo's logs, or any click log with a schema -> a dataset to train on"""
    parser = verb_parser("preprocess", preprocess.__doc__)
    _add_input(
        parser,
        "a folder with files day_0, day_1, ..., or with a single file; or several files; paths, or URLs such as "
        "s3://bucket/criteo/. "
        "The files are text (plain, gzip or zstd) or parquet; with --schema, files, folders or patterns of parquet, "
        "CSV, JSON lines or Arrow IPC",
    )
    parser.add_argument(
        "--schema", metavar="FILE", help="what the columns of the log are; criteo-prep schema FILES writes a first one"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="the dataset folder to make")
    parser.add_argument(
        "--threshold",
        metavar="T",
        help="required, except with --ids raw or --schema: a value that occurs fewer than T times shares id 0 with "
        "missing values; 0 keeps all values. 15,cat_0:3 sets another threshold for column cat_0",
    )
    parser.add_argument(
        "--ids",
        choices=("vocabulary", "raw"),
        default="vocabulary",
        help="ids by a vocabulary of each column (default), or the values themselves as 64-bit keys",
    )
    parser.add_argument(
        "--max_cardinality",
        metavar="C",
        help="in a column with more than C ids, the highest ids are folded onto the others (default: no limit). "
        "Written like --threshold",
    )
    parser.add_argument("--days", metavar="LIST", help="the day files to read, such as 0-3,23 (default: all)")
    parser.add_argument(
        "--test_fraction",
        type=float,
        metavar="F",
        help="the share of rows at the end that become the test split (default for a single file: 0.1). "
        "Day files need no share: the last day becomes half test, half validation",
    )
    parser.add_argument(
        "--test_file", metavar="FILE", help="the file whose rows become the test split; all other rows train"
    )
    parser.add_argument(
        "--vocabulary_days",
        choices=("all", "train"),
        help="count values in all rows (default, as in the published datasets), or in the train rows only",
    )
    parser.add_argument(
        "--shuffle",
        choices=("none", "global"),
        default="none",
        help="train rows in file order (default), or in random order",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the random order (default: 0)")
    parser.add_argument(
        "--keep_raw",
        action="store_true",
        help="keep the raw values (104 bytes a row), so that any other threshold needs no parsing later",
    )
    _add_preprocessing_flags(parser)
    args = _with_inputs(parser, argv)
    if args.schema is not None:
        return _preprocess_table(args)
    if args.threshold is None and args.ids == "vocabulary":
        parser.error("the following arguments are required: --threshold (or --ids raw, which needs no threshold)")

    from criteo_prep.preprocess.rules import make_rules
    from criteo_prep.preprocess.run import preprocess as run

    rules = make_rules(
        args.threshold,
        args.max_cardinality,
        vocabulary_days=args.vocabulary_days,
        on_bad_row=args.on_bad_row,
        on_truncated=args.on_truncated,
        shuffle=args.shuffle,
        seed=args.seed,
        ids=args.ids,
    )
    return _preprocessed(
        args,
        lambda resources: run(
            args.input,
            args.output,
            rules=rules,
            test_fraction=args.test_fraction,
            test_file=args.test_file,
            days=args.days,
            keep_raw=args.keep_raw,
            overwrite=args.overwrite,
            resources=resources,
        ),
    )


def encode(argv: Sequence[str]) -> int:
    """new rows -> a dataset with the ids of an existing dataset"""
    parser = verb_parser("encode", encode.__doc__)
    parser.add_argument(
        "--vocabulary",
        required=True,
        metavar="DATASET",
        help="a dataset that preprocess made; its ids or keys are used",
    )
    _add_input(
        parser,
        "files or a folder; rows with labels (40 columns) or without (39). Of a log with a schema, files, folders or "
        "patterns, with or without the column of labels",
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="the dataset folder to make; all rows are its test split"
    )
    parser.add_argument(
        "--labelled",
        choices=("yes", "no"),
        help="whether rows begin with a label (default: found by the first rows of the files)",
    )
    _add_preprocessing_flags(parser)
    args = _with_inputs(parser, argv)

    from criteo_prep.preprocess.new_rows import encode as run
    from criteo_prep.table.finished import has_schema

    if has_schema(args.vocabulary):
        return _encode_table(args)

    return _preprocessed(
        args,
        lambda resources: run(
            args.vocabulary,
            args.input,
            destination=args.output,
            labelled=None if args.labelled is None else args.labelled == "yes",
            on_bad_row=args.on_bad_row,
            on_truncated=args.on_truncated,
            overwrite=args.overwrite,
            resources=resources,
        ),
    )


def schema(argv: Sequence[str]) -> int:
    """looks at a click log and writes a first schema of it, for preprocess --schema"""
    parser = verb_parser("schema", schema.__doc__)
    _add_input(parser, "files, folders or patterns of parquet, CSV, JSON lines or Arrow IPC")
    parser.add_argument("--output", "-o", metavar="FILE", help="the schema to write (default: it is printed)")
    parser.add_argument("--delimiter", metavar="CHARACTER", help="delimiter of CSV (default: found in the first line)")
    args = _with_inputs(parser, argv)

    from criteo_prep.table.first_schema import write_first_schema

    text, path = write_first_schema(args.input, args.output, delimiter=args.delimiter)
    print(text if path is None else f"{path}: complete", end="" if path is None else "\n")
    return 0


def _preprocess_table(args: argparse.Namespace) -> int:
    """`preprocess --schema`. Raises ValueError for flags whose place is in the schema, or that need Criteo's form."""
    from criteo_prep.table.run import preprocess_table

    in_schema = {"threshold": "a threshold for each column", "max_cardinality": "max_cardinality for each column",
                 "test_fraction": "split", "test_file": "split", "days": "split"}  # fmt: skip
    for flag, place in in_schema.items():
        if getattr(args, flag) is not None:
            raise ValueError(f"--{flag}: leave it out; with --schema, the schema says it ({place}).")
    if args.ids == "raw" or args.keep_raw or args.on_truncated == "keep":
        flag = "--ids raw" if args.ids == "raw" else "--keep_raw" if args.keep_raw else "--on_truncated keep"
        raise ValueError(f"{flag}: is for Criteo's logs without a schema. Leave it out.")
    options = {
        "vocabulary_days": args.vocabulary_days or "all",
        "skip_bad_rows": args.on_bad_row == "skip",
        "seed": args.seed if args.shuffle == "global" else None,
    }
    return _preprocessed(
        args,
        lambda resources: preprocess_table(
            args.input,
            args.output,
            schema=args.schema,
            options=options,
            overwrite=args.overwrite,
            resources=resources,
        ),
    )


def _encode_table(args: argparse.Namespace) -> int:
    """`encode` with a dataset of a log with a schema."""
    from criteo_prep.table.new_rows import encode_table

    return _preprocessed(
        args,
        lambda resources: encode_table(
            args.vocabulary,
            args.input,
            destination=args.output,
            labelled=None if args.labelled is None else args.labelled == "yes",
            skip_bad_rows=args.on_bad_row == "skip",
            overwrite=args.overwrite,
            resources=resources,
        ),
    )


def _add_input(parser: argparse.ArgumentParser, text: str) -> None:
    """The input files: by --input, or without a flag before the other flags."""
    parser.add_argument("paths", nargs="*", metavar="PATH", help="the same as --input PATH")
    parser.add_argument("--input", nargs="+", metavar="PATH", help=text)


def _with_inputs(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """The parsed flags; `input` has all input files."""
    args = parser.parse_args(argv)
    args.input = [*args.paths, *(args.input or ())]
    if not args.input:
        parser.error("the following arguments are required: --input")
    return args


def _add_preprocessing_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that `preprocess` and `encode` share."""
    parser.add_argument(
        "--on_bad_row",
        choices=("error", "skip"),
        default="error",
        help="stop at a bad row (default), or skip bad rows and count them",
    )
    parser.add_argument(
        "--on_truncated",
        choices=("error", "keep"),
        default="error",
        help="stop at a gzip or zstd file that ends early (default), or keep its whole rows and count what is lost",
    )
    parser.add_argument(
        "--memory_limit",
        metavar="SIZE",
        help="most memory to use, such as 8G (default: nine tenths of the available memory)",
    )
    parser.add_argument(
        "--workers", type=int, metavar="W", help="threads (default: one per core); they do not change the bytes"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="make the dataset again, and replace the output when it is complete"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument("--log_json", metavar="FILE", help="append progress to FILE as JSON lines (- is stderr)")


def _preprocessed(args: argparse.Namespace, run: Callable) -> int:
    """Calls `run` with the Resources of the shared flags, and prints the outcome."""
    from criteo_prep.guard import DestinationError
    from criteo_prep.preprocess.request import Resources
    from criteo_prep.preprocess.run import DifferentDatasetError, unfinished_of
    from criteo_prep.progress import progress_log

    check_workers(args.workers)
    with progress_log(args.log_json or None) as log:
        try:
            outcome = run(Resources(args.workers, args.memory_limit, quiet=args.quiet, log=log))
        except (ValueError, OSError, KeyboardInterrupt) as error:
            begun = not isinstance(error, (DestinationError, DifferentDatasetError))
            if begun and (kept := unfinished_of(args.output)):
                print(
                    f"criteo-prep: the finished part of the work is kept in {kept}. Run the same command to resume it, "
                    "or delete the folder to give up.",
                    file=sys.stderr,
                )
            if isinstance(error, KeyboardInterrupt):
                end, code = how_interrupted(error)
                print(f"criteo-prep: {end}", file=sys.stderr)
                return code
            raise
    for warning in outcome.warnings:
        print(f"criteo-prep: {warning}", file=sys.stderr)
    print(outcome.summary())
    print(f"{args.output}: {'already complete' if outcome.already_complete else 'complete'}")
    return 0
