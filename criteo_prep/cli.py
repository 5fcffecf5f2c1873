"""`criteo-prep <verb>`: flags in, one library call, a summary out.

Every verb is a function that takes its arguments, and imports what it needs only when it is called.
"""

import argparse
import contextlib
import gc
import sys
from collections.abc import Callable, Iterator, Sequence

import criteo_prep
from criteo_prep.flags import exit_code, with_underscores


def preprocess(argv: Sequence[str]) -> int:
    """Criteo's logs (TSV) -> a dataset to train on"""
    parser = _parser("preprocess", preprocess.__doc__)
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="PATH",
        help="a folder with files day_0, day_1, ..., or with a single file; or files. "
        "Text, plain, gzip or zstd, or parquet",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="the dataset folder to make")
    parser.add_argument(
        "--threshold",
        required=True,
        metavar="T",
        help="a value that occurs fewer than T times shares id 0 with missing ones; 0 keeps all. "
        "15,cat_0:3 sets it for a column apart",
    )
    parser.add_argument(
        "--max_cardinality", metavar="C", help="a column with more ids folds the highest ones (off; as --threshold)"
    )
    parser.add_argument("--days", metavar="LIST", help="the day files to take, such as 0-3,23 (all)")
    parser.add_argument(
        "--test_fraction",
        type=float,
        metavar="F",
        help="the last part of all rows to test on (default for a single file: 0.1). "
        "Day files need none: the last day is half test, half validation",
    )
    parser.add_argument("--test_file", metavar="FILE", help="its rows are the test rows; all others train")
    parser.add_argument(
        "--vocabulary_days",
        choices=("all", "train"),
        default="all",
        help="count the values of all rows (default; the published cardinalities do), or of the train rows only",
    )
    parser.add_argument(
        "--shuffle",
        choices=("none", "global"),
        default="none",
        help="train rows in file order (default), or in random order",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the random order (0)")
    parser.add_argument(
        "--keep_raw",
        action="store_true",
        help="keep the raw values, 104 bytes a row, to change the threshold at will later",
    )
    _add_preprocessing_flags(parser)
    args = parser.parse_args(argv)

    from criteo_prep.preprocess.rules import make_rules
    from criteo_prep.preprocess.run import preprocess as run

    rules = make_rules(
        args.threshold,
        args.max_cardinality,
        vocabulary_days=args.vocabulary_days,
        on_bad_row=args.on_bad_row,
        shuffle=args.shuffle,
        seed=args.seed,
    )
    return _preprocessed(
        args,
        lambda how: run(
            args.input,
            args.output,
            rules=rules,
            test_fraction=args.test_fraction,
            test_file=args.test_file,
            days=args.days,
            keep_raw=args.keep_raw,
            overwrite=args.overwrite,
            resources=how,
        ),
    )


def encode(argv: Sequence[str]) -> int:
    """new rows -> a dataset with the ids of one that is there"""
    parser = _parser("encode", encode.__doc__)
    parser.add_argument(
        "--vocabulary", required=True, metavar="DATASET", help="the dataset that preprocess made, whose ids are used"
    )
    parser.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="PATH",
        help="files or a folder; rows with labels (40 columns) or without (39)",
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="the dataset folder to make; its split is test")
    _add_preprocessing_flags(parser)
    args = parser.parse_args(argv)

    from criteo_prep.preprocess.new_rows import encode as run

    return _preprocessed(
        args,
        lambda how: run(
            args.vocabulary,
            args.input,
            destination=args.output,
            on_bad_row=args.on_bad_row,
            overwrite=args.overwrite,
            resources=how,
        ),
    )


def verify(argv: Sequence[str]) -> int:
    """whether a dataset is what its spec and its manifest say"""
    parser = _parser("verify", verify.__doc__)
    parser.add_argument("dataset", metavar="DATASET", help="the dataset folder")
    parser.add_argument("--workers", type=int, metavar="W", help="threads (all cores)")
    parser.add_argument("--quiet", action="store_true", help="show no progress, and of the table only what is wrong")
    args = parser.parse_args(argv)

    from criteo_prep.verify import verify as run

    report = run(args.dataset, args.workers, args.quiet)
    print(report.text(args.quiet))
    return 0 if report.good else 1


def _add_preprocessing_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that `preprocess` and `encode` share."""
    parser.add_argument(
        "--on_bad_row",
        choices=("error", "skip"),
        default="error",
        help="stop at a bad row (default), or leave bad rows out and count them",
    )
    parser.add_argument(
        "--memory_limit", metavar="SIZE", help="such as 8G (what the machine or its cgroup has, less a tenth)"
    )
    parser.add_argument("--workers", type=int, metavar="W", help="threads (all cores); the bytes do not depend on it")
    parser.add_argument("--overwrite", action="store_true", help="make it anew, and replace the output at the end")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument("--log_json", metavar="FILE", help="append progress to FILE as JSON, a line each (- is stderr)")


def _preprocessed(args: argparse.Namespace, run: Callable) -> int:
    """Calls `run` with a How of the shared flags, and says what came of it."""
    from criteo_prep.destination import DestinationError
    from criteo_prep.preprocess.run import DifferentDatasetError, unfinished
    from criteo_prep.preprocess.stages import Resources

    if args.workers is not None and args.workers < 1:
        raise ValueError(f"--workers {args.workers}: must be at least 1.")
    with contextlib.ExitStack() as stack:
        log = None
        if args.log_json:
            log = sys.stderr
            if args.log_json != "-":
                log = stack.enter_context(open(args.log_json, "a", encoding="utf-8"))
        try:
            outcome = run(Resources(args.workers, args.memory_limit, quiet=args.quiet, log=log))
        except (ValueError, OSError, KeyboardInterrupt) as error:
            begun = not isinstance(error, (DestinationError, DifferentDatasetError))
            if begun and (kept := unfinished(args.output)):
                print(
                    f"criteo-prep: what is done is kept in {kept}; the same command goes on from there. "
                    "Delete it to give up.",
                    file=sys.stderr,
                )
            if isinstance(error, KeyboardInterrupt):
                print("criteo-prep: interrupted", file=sys.stderr)
                return 130
            raise
    for warning in outcome.warnings:
        print(f"criteo-prep: {warning}", file=sys.stderr)
    print(outcome.summary())
    print(f"{args.output}: {'already complete' if outcome.already_complete else 'complete'}")
    return 0


def synthesize(argv: Sequence[str]) -> int:
    """a synthetic dataset with a known best AUC"""
    parser = _parser("synthesize", synthesize.__doc__)
    parser.add_argument("--preset", required=True, metavar="NAME", help="criteo_t15_synthetic, criteo_t3, ...")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="factor of the cardinalities (default 1)")
    parser.add_argument("--num_samples", type=int, required=True, metavar="N", help="training rows")
    parser.add_argument("--num_test_samples", type=int, metavar="M", help="test rows (default: a tenth of N)")
    parser.add_argument("--dst", required=True, metavar="DIR", help="the dataset folder to make")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="same seed, same bytes (default: 0)")
    parser.add_argument(
        "--labels",
        default="random",
        metavar="KIND",
        help="random, fair coins (default), or teacher, a click model to be learned, with its best AUC in the manifest",
    )
    parser.add_argument("--base_rate", type=float, metavar="P", help="mean click probability of the teacher (0.25)")
    parser.add_argument("--signal", type=float, metavar="X", help="standard deviation of the teacher's logit (1.4)")
    parser.add_argument(
        "--layout", default="tf_raw", metavar="KIND", help="tf_raw, to train on (default), or criteo_tsv, to preprocess"
    )
    parser.add_argument("--num_days", type=int, metavar="D", help="day files of criteo_tsv, the last to evaluate (2)")
    parser.add_argument("--workers", type=int, metavar="W", help="threads (all cores); the bytes do not depend on it")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at the destination, at the end")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    args = parser.parse_args(argv)

    from criteo_prep.synthesize import Synthesis
    from criteo_prep.synthesize import synthesize as run

    request = Synthesis(
        args.preset,
        args.num_samples,
        num_test_samples=args.num_test_samples,
        scale=args.scale,
        seed=args.seed,
        labels=args.labels,
        base_rate=args.base_rate,
        signal=args.signal,
        layout=args.layout,
        num_days=args.num_days,
        workers=args.workers,
    )
    for split, facts in run(request, args.dst, overwrite=args.overwrite, quiet=args.quiet).items():
        auc = "not defined" if facts["best_auc"] is None else f"{facts['best_auc']:.4f}"
        best = f"best AUC {auc}, best log loss {facts['best_log_loss']:.4f}"
        print(f"{split}: {facts['num_samples']:,} samples, {facts['num_clicks']:,} clicks, {best}")
    print(f"{args.dst}: complete")
    return 0


def transcribe(argv: Sequence[str]) -> int:
    """a dataset from one layout to another, same samples in the same order"""
    from criteo_prep.transcribe.__main__ import main as run

    return run(argv, "criteo-prep transcribe")


def split_bin(argv: Sequence[str]) -> int:
    """raw records into labels, dense numbers and ids, or a dataset to train on; and back"""
    from criteo_prep.split_bin.__main__ import main as run

    return run(argv, "criteo-prep split-bin")


def generate_feature_spec(argv: Sequence[str]) -> int:
    """the feature spec of a published synthetic dataset"""
    from criteo_prep.generate_feature_spec import main as run

    return run(argv, "criteo-prep generate-feature-spec")


VERBS = {
    "preprocess": preprocess,
    "encode": encode,
    "verify": verify,
    "synthesize": synthesize,
    "transcribe": transcribe,
    "split-bin": split_bin,
    "generate-feature-spec": generate_feature_spec,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb. Returns the exit code, see flags.exit_code; argparse exits 2."""
    if argv is None:
        with _whole_process():
            return main(sys.argv[1:])
    verb = _verb(argv[:1])
    return exit_code("criteo-prep", lambda: VERBS[verb](with_underscores(argv[1:])))


@contextlib.contextmanager
def _whole_process() -> Iterator[None]:
    """Makes a process that does nothing else start and end sooner, by more than half a second of one processor."""
    sys.modules.setdefault("scipy", None)  # numba would import it where it is installed, for what no kernel here needs
    gc.set_threshold(100_000)  # imports make few cycles and very many objects
    try:
        yield
    finally:
        gc.freeze()  # what is there now goes with the process; Python need not look through it


def _verb(argv: Sequence[str]) -> str:
    """The verb named by the first argument; help, version and a wrong one end the program here, as argparse does."""
    width = max(map(len, VERBS)) + 2
    verbs = "\n".join(f"  {verb:{width}}{function.__doc__.splitlines()[0]}" for verb, function in VERBS.items())
    parser = argparse.ArgumentParser(
        "criteo-prep",
        usage="criteo-prep VERB [flags]",
        description="Makes datasets for DLRM of Criteo's click logs.",
        epilog=f"verbs:\n{verbs}\n\ncriteo-prep VERB --help shows the flags of a verb.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", metavar="VERB", choices=[*VERBS], help="what to do, see below")
    parser.add_argument("--version", action="version", version=f"criteo-prep {criteo_prep.__version__}")
    return parser.parse_args(argv).verb


def _parser(verb: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(f"criteo-prep {verb}", description=description, allow_abbrev=False)
