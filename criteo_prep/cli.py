"""`criteo-prep <verb>`: parses flags, makes one library call, prints a summary.

Every verb is a function of its arguments. It imports the libraries only when it is called.
"""

import argparse
import contextlib
import gc
import sys
from collections.abc import Iterator, Sequence

import criteo_prep
from criteo_prep.flags import check_workers, exit_code, verb_parser, with_underscores
from criteo_prep.preprocess_verbs import encode, preprocess, schema


def verify(argv: Sequence[str]) -> int:
    """checks a dataset against its spec and its manifest"""
    parser = verb_parser("verify", verify.__doc__)
    parser.add_argument("dataset", metavar="DATASET", help="the dataset folder")
    parser.add_argument("--workers", type=int, metavar="W", help="threads (default: one per core)")
    parser.add_argument("--quiet", action="store_true", help="show no progress, and only the failed checks")
    args = parser.parse_args(argv)

    from criteo_prep.verify import verify as run

    check_workers(args.workers)
    report = run(args.dataset, args.workers, args.quiet)
    print(report.text(args.quiet))
    return 0 if report.good else 1


def report(argv: Sequence[str]) -> int:
    """a dataset as one HTML page: labels, thresholds, skew, drift, sizes of tables"""
    parser = verb_parser("report", report.__doc__)
    parser.add_argument("dataset", metavar="DATASET", help="the dataset folder")
    parser.add_argument("-o", "--output", default="card.html", metavar="FILE", help="the page to write (card.html)")
    parser.add_argument(
        "--embedding_dim", type=int, default=128, metavar="D", help="width of the tables, for their bytes (128)"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    args = parser.parse_args(argv)

    from criteo_prep.pages.card import write_card

    write_card(args.dataset, args.output, embedding_dim=args.embedding_dim, quiet=args.quiet)
    print(f"{args.output}: written")
    return 0


def synthesize(argv: Sequence[str]) -> int:
    """a synthetic dataset with a known best AUC"""
    parser = verb_parser("synthesize", synthesize.__doc__)
    parser.add_argument("--preset", required=True, metavar="NAME", help="criteo_t15_synthetic, criteo_t3, ...")
    parser.add_argument(
        "--scale", type=float, default=1.0, metavar="X", help="factor of the cardinalities (default: 1)"
    )
    parser.add_argument("--num_samples", type=int, required=True, metavar="N", help="training rows")
    parser.add_argument("--num_test_samples", type=int, metavar="M", help="test rows (default: a tenth of N)")
    parser.add_argument("--dst", required=True, metavar="DIR", help="the dataset folder to make")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="same seed, same bytes (default: 0)")
    parser.add_argument(
        "--labels",
        default="random",
        metavar="KIND",
        help="random: fair coins (default); teacher: clicks that a model can learn, with the best AUC in the manifest",
    )
    parser.add_argument(
        "--base_rate", type=float, metavar="P", help="mean click probability of the teacher (default: 0.25)"
    )
    parser.add_argument(
        "--signal", type=float, metavar="X", help="standard deviation of the teacher's logit (default: 1.4)"
    )
    parser.add_argument(
        "--layout", default="tf_raw", metavar="KIND", help="tf_raw: to train on (default); criteo_tsv: to preprocess"
    )
    parser.add_argument(
        "--ids",
        default="vocabulary",
        metavar="KIND",
        help="vocabulary: ids below the cardinalities (default); raw: a 64-bit key in place of each id",
    )
    parser.add_argument(
        "--num_days", type=int, metavar="D", help="day files of criteo_tsv; the last day is for evaluation (default: 2)"
    )
    parser.add_argument(
        "--workers", type=int, metavar="W", help="threads (default: one per core); they do not change the bytes"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the dataset at the destination when the new one is complete"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    args = parser.parse_args(argv)

    from criteo_prep.synthesize import Synthesis
    from criteo_prep.synthesize import synthesize as run

    check_workers(args.workers)
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
        ids=args.ids,
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
    """copies a dataset from one layout to another: the same samples in the same order"""
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
    "schema": schema,
    "encode": encode,
    "verify": verify,
    "report": report,
    "synthesize": synthesize,
    "transcribe": transcribe,
    "split-bin": split_bin,
    "generate-feature-spec": generate_feature_spec,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb. Returns the exit code, see flags.exit_code. Wrong flags end the program with exit code 2."""
    if argv is None:
        with _whole_process():
            return main(sys.argv[1:])
    verb = _verb(argv[:1])
    return exit_code("criteo-prep", lambda: VERBS[verb](with_underscores(argv[1:])))


@contextlib.contextmanager
def _whole_process() -> Iterator[None]:
    """Makes a process that runs only this program start and end sooner, by more than half a second of one processor."""
    for unused in ("scipy", "cffi"):  # numba imports them where they are installed, and no kernel here uses them
        sys.modules.setdefault(unused, None)
    gc.set_threshold(100_000)  # imports make very many objects and few cycles
    try:
        yield
    finally:
        gc.freeze()  # all objects end with the process, so Python need not search them for cycles


def _verb(argv: Sequence[str]) -> str:
    """The verb that the first argument names. Help, version and an unknown verb end the program, as argparse does."""
    width = max(map(len, VERBS)) + 2
    verbs = "\n".join(f"  {verb:{width}}{function.__doc__.splitlines()[0]}" for verb, function in VERBS.items())
    parser = argparse.ArgumentParser(
        "criteo-prep",
        usage="criteo-prep VERB [flags]",
        description="Makes datasets for DLRM from click logs.",
        epilog=f"verbs:\n{verbs}\n\ncriteo-prep VERB --help shows the flags of a verb.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("verb", metavar="VERB", choices=[*VERBS], help="one of the verbs below")
    parser.add_argument("--version", action="version", version=f"criteo-prep {criteo_prep.__version__}")
    return parser.parse_args(argv).verb
