"""The stability test that NVIDIA publishes for DLRM: the final AUC of many seeds, by precision and number of ranks.

    python bench/stability.py [--seeds 16] [--ranks 1,2] [--max_runs 10]

Each run is one pass with Adagrad over T15-shaped data with planted clicks. The samples and their order are the same in
all runs; the seed draws the initial weights. Every finished run is a line of --runs, and a run with a line there is not
repeated, so the same command continues a stopped test. When no run is missing, the groups are compared, and matplotlib
draws their histograms.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from result_file import commit, write_result
from scipy.stats import mannwhitneyu, wilcoxon
from training_auc import MODEL, OPTIMIZERS, auc_of

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from criteo_prep.manifest import load_manifest
from criteo_prep.synthesize import Synthesis, synthesize
from dlrm_tf2.benchmarks.timing import markdown_table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PRECISIONS = {"float32": [], "amp": ["--amp"], "bfloat16 tables": ["--table_dtype", "bfloat16"]}
OPTIMIZER = OPTIMIZERS["adagrad"]
SIGNIFICANT = 0.05


class Run(NamedTuple):
    """One training of the test: `precision` is a key of PRECISIONS."""

    precision: str
    ranks: int
    seed: int

    @property
    def group(self) -> str:
        return f"{self.precision}, {self.ranks} {'rank' if self.ranks == 1 else 'ranks'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--seeds", type=int, default=16, help="seeds 1, 2, ... of each group")
    parser.add_argument("--ranks", default="1,2")
    parser.add_argument("--max_runs", type=int, help="runs of this call; the next call does the others")
    parser.add_argument("--runs", default=str(RESULTS / "stability_runs.jsonl"), help="a line for each finished run")
    parser.add_argument("--picture", default=str(ROOT / "docs" / "stability.svg"))
    parser.add_argument("--json", default=str(RESULTS / "stability.json"))
    arguments = parser.parse_args()
    ranks = [int(number) for number in arguments.ranks.split(",")]
    wanted = [Run(*run) for run in itertools.product(PRECISIONS, ranks, range(1, arguments.seeds + 1))]
    wanted.sort(key=lambda run: run.seed)  # a stopped test has about the same seeds in each group
    settings = {"samples": arguments.samples, "flags": " ".join([*MODEL, *OPTIMIZER])}
    with tempfile.TemporaryDirectory(prefix="bench_stability_") as folder:
        request = Synthesis("criteo_t15", arguments.samples, scale=0.01, seed=1, labels="teacher")
        synthesize(request, Path(folder, "set"), quiet=True)
        best = load_manifest(Path(folder, "set"))["splits"]["test"]["best_auc"]

        def train(run: Run) -> float:
            flags = [*OPTIMIZER, *PRECISIONS[run.precision], "--seed", str(run.seed)]
            return auc_of(Path(folder), arguments.samples, flags, ranks=run.ranks)

        aucs = finish(wanted, Path(arguments.runs), settings=settings, train=train, most=arguments.max_runs)
    if len(aucs) < len(wanted):
        print(f"{len(aucs)} of {len(wanted)} runs are finished. The same command does the others.")
        return
    groups = by_group(wanted, aucs)
    report(groups, best, arguments=arguments, settings=settings)
    draw(groups, Path(arguments.picture))


def finish(
    wanted: list[Run], file: Path, *, settings: dict, train: Callable[[Run], float], most: int | None = None
) -> dict[Run, float]:
    """Trains the runs that have no line in `file`, at most `most` of them, and appends their lines.

    Args:
      settings: what all runs have in common; it stands in each line.
      train: trains and returns the final AUC.

    Returns:
      The AUC of each wanted run that is finished.
    """
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    if any(line["settings"] != settings for line in lines):
        sys.exit(f"{file}: holds runs with other settings than {settings}. Name another file with --runs.")
    aucs = {Run(line["precision"], line["ranks"], line["seed"]): line["auc"] for line in lines}
    missing = [run for run in wanted if run not in aucs]
    file.parent.mkdir(parents=True, exist_ok=True)
    for run in missing[:most]:
        start = time.perf_counter()
        aucs[run] = train(run)
        line = run._asdict() | {"auc": aucs[run], "seconds": round(time.perf_counter() - start, 1), "commit": commit()}
        with file.open("a") as output:
            output.write(json.dumps(line | {"settings": settings}) + "\n")
        print(f"{run.group}, seed {run.seed}: AUC {aucs[run]:.5f}, {line['seconds']} s", flush=True)
    return {run: aucs[run] for run in wanted if run in aucs}


def by_group(wanted: list[Run], aucs: dict[Run, float]) -> dict[str, list[float]]:
    """Group -> AUCs, the seeds in the same order in each group."""
    groups: dict[str, list[float]] = {}
    for run in sorted(wanted, key=lambda run: (run.ranks, list(PRECISIONS).index(run.precision), run.seed)):
        groups.setdefault(run.group, []).append(aucs[run])
    return groups


def compare(groups: dict[str, list[float]]) -> list[dict]:
    """Compares each pair of groups, by two tests that assume no distribution.

    Args:
      groups: AUCs by group; AUCs at the same place belong to the same seed.

    Returns:
      For each pair: the mean of second - first, the Mann-Whitney U test, which takes the groups as independent, and
      Wilcoxon's signed-rank test of the differences with the same seed. `holm` are the p-values corrected for the
      number of pairs.
    """
    rows = []
    for (first, a), (second, b) in itertools.combinations(groups.items(), 2):
        differences = [y - x for x, y in zip(a, b, strict=True)]
        rows.append(
            {
                "first": first,
                "second": second,
                "mean_difference": statistics.mean(differences),
                "largest_difference": max(differences, key=abs),
                "mann_whitney": {"p": float(mannwhitneyu(a, b).pvalue)},
                "paired": {"p": float(wilcoxon(differences).pvalue)},
            }
        )
    for test in ("mann_whitney", "paired"):
        for row, corrected in zip(rows, holm([row[test]["p"] for row in rows]), strict=True):
            row[test]["holm"] = corrected
    return rows


def holm(p_values: list[float]) -> list[float]:
    """p-values corrected for their number: the smallest times n, the next times n - 1, ..., at most 1, never falling.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", 1979.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, number in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[number]))
        corrected[number] = largest
    return corrected


def summary(aucs: list[float]) -> dict[str, float]:
    return {
        "mean": statistics.mean(aucs),
        "standard_deviation": statistics.stdev(aucs),
        "min": min(aucs),
        "max": max(aucs),
    }


def report(groups: dict[str, list[float]], best: float, *, arguments: argparse.Namespace, settings: dict) -> None:
    """Prints the tables and writes the JSON."""
    summaries, pairs = {group: summary(aucs) for group, aucs in groups.items()}, compare(groups)
    print(f"best AUC that the labels allow: {best:.4f}; {arguments.seeds} seeds")
    rows = [[group, *(f"{value:.5f}" for value in values.values())] for group, values in summaries.items()]
    print(markdown_table(["group", "mean", "standard deviation", "min", "max"], rows))
    header = ["pair", "mean difference", "largest", "Mann-Whitney p", "Holm", "paired p", "Holm"]
    cells = [
        [
            f"{row['first']} / {row['second']}",
            f"{row['mean_difference']:+.5f}",
            f"{row['largest_difference']:+.5f}",
            *(f"{row[test][p]:.3f}" for test in ("mann_whitney", "paired") for p in ("p", "holm")),
        ]
        for row in pairs
    ]
    print(markdown_table(header, cells))
    for test in ("mann_whitney", "paired"):
        found = [row for row in pairs if row[test]["holm"] < SIGNIFICANT]
        print(f"{test}: {len(found)} of {len(pairs)} pairs differ significantly (Holm, {SIGNIFICANT})")
    document = {
        **settings,
        "best_auc": best,
        "seeds": arguments.seeds,
        "auc": groups,
        "summary": summaries,
        "pairs": pairs,
    }
    write_result(arguments.json, document)


def draw(groups: dict[str, list[float]], file: Path) -> None:
    """A histogram for each group, all with the same axes; the dashed line is the mean of the group."""
    import matplotlib.pyplot as plt  # from the extra dev; the runs and the tables need none

    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "stability", "font.size": 8})
    lowest, highest = min(map(min, groups.values())), max(map(max, groups.values()))
    columns = len(PRECISIONS)
    figure, axes = plt.subplots(
        len(groups) // columns, columns, sharex=True, sharey=True, squeeze=False, figsize=(7.5, 3.6)
    )
    for axis, (group, aucs) in zip(axes.flat, groups.items(), strict=True):
        axis.hist(aucs, bins=10, range=(lowest, highest), histtype="stepfilled", color="#1f5fbf")
        axis.axvline(statistics.mean(aucs), color="#c2500a", linestyle="--", linewidth=1)
        axis.set_title(group, fontsize=8)
        axis.locator_params(nbins=4, integer=True, axis="y")
        axis.locator_params(nbins=4, axis="x")
    figure.supxlabel("final AUC")
    figure.supylabel("runs")
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None, "Creator": None})
    print(f"written to {file}")


if __name__ == "__main__":
    main()
