"""How fast `criteo-prep preprocess --schema` is, next to polars' own group_by, join and write of the same ids.

    python bench/schema.py                     4 M rows of parquet: 8 columns of text, 8 of integers, 5 numericals
    python bench/schema.py --format csv

Both are processes, so both times include the start. Ours also checks every row, makes splits and vocabularies, computes
checksums of every file and forces them to the disk; polars keeps all rows in memory. The ids of both are compared.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from preprocess import timed
from result_file import ROOT, write_result

THRESHOLD = 3
RESULTS = {
    "parquet": ROOT / "bench" / "results" / "schema.json",
    "csv": ROOT / "bench" / "results" / "schema_csv.json",
}
SIZES = (10, 100, 1_000, 10_000, 100_000, 300_000, 1_000_000, 3_000_000)  # different values of the columns, at most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument("--format", choices=("parquet", "csv"), default="parquet")
    parser.add_argument("--repeat", type=int, default=3, help="runs of ours and of polars; the median counts (3)")
    parser.add_argument("--folder", help="where the temporary files go")
    parser.add_argument("--json", help="default: bench/results/schema.json, or schema_csv.json")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench_schema_", dir=arguments.folder))
    try:
        document = measure(arguments, folder)
    finally:
        shutil.rmtree(folder)
    write_result(arguments.json or RESULTS[arguments.format], document)


def measure(arguments: argparse.Namespace, folder: Path) -> dict:
    log = make_log(folder / f"log.{arguments.format}", arguments.rows)
    schema = write_schema(folder / "schema.yaml")
    print(f"input: {arguments.rows:,} rows, {log.stat().st_size / 1e9:.2f} GB of {arguments.format}")
    compile_kernels(folder, schema)
    runs = []
    for number in range(arguments.repeat):
        output, other = folder / "ours", folder / "polars"
        shutil.rmtree(output, ignore_errors=True)
        shutil.rmtree(other, ignore_errors=True)
        other.mkdir()
        command = [
            sys.executable,
            "-m",
            "criteo_prep",
            "preprocess",
            "--schema",
            schema,
            log,
            "--output",
            output,
            "--quiet",
        ]
        run = {"ours": timed([*map(str, command)]), "load": os.getloadavg()[0]}
        run["polars"] = timed([sys.executable, "bench/schema_polars.py", str(THRESHOLD), str(other), str(log)])
        runs.append(run)
        seconds = ", ".join(f"{name} {run[name]['seconds']:.1f} s" for name in ("ours", "polars"))
        print(f"run {number + 1} of {arguments.repeat}: {seconds}, load {run['load']:.1f}", flush=True)
    compare(folder / "ours", folder / "polars")
    ratio = statistics.median(run["polars"]["seconds"] / run["ours"]["seconds"] for run in runs)
    cpu = statistics.median(run["polars"]["cpu_seconds"] / run["ours"]["cpu_seconds"] for run in runs)
    for name in ("ours", "polars"):
        seconds = statistics.median(run[name]["seconds"] for run in runs)
        peak = max(run[name]["peak_bytes"] for run in runs)
        print(f"{name:8}{seconds:8.2f} s{arguments.rows / seconds:12,.0f} rows/s{peak / 1e9:8.2f} GB at most")
    print(f"speed of ours / speed of polars: {ratio:.2f}; by processor seconds {cpu:.2f}")
    return {"rows": arguments.rows, "input_bytes": log.stat().st_size, "runs": runs, "ratio": ratio, "cpu_ratio": cpu}


def compile_kernels(folder: Path, schema: Path) -> None:
    """A small run, so that the first measured run finds the machine code of the kernels on the disk."""
    log = make_log(folder / "small.parquet", 1000)
    timed([sys.executable, "-m", "criteo_prep", "preprocess", "--schema", str(schema), str(log), "--output",
           str(folder / "small"), "--quiet"])  # fmt: skip


def make_log(path: Path, num_rows: int) -> Path:
    """A log with columns of few to very many different values, a tenth of them missing."""
    rng, columns = np.random.default_rng(0), {}
    columns["clicked"] = pl.Series(rng.random(num_rows) < 0.2).replace_strict({True: "yes", False: "no"})
    for number in range(5):
        columns[f"x{number}"] = with_missing(pl.Series(np.round(rng.exponential(50, num_rows), 2)), rng)
    for number, size in enumerate(SIZES):
        ranks = (size ** rng.random(num_rows)).astype(np.int64)  # a power law
        columns[f"text_{number}"] = with_missing("value " + pl.Series(ranks * 7919).cast(pl.String), rng)
        columns[f"number_{number}"] = with_missing(pl.Series(ranks * 104729 - 500), rng)
    frame = pl.DataFrame(columns)
    frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_csv(path)
    return path


def with_missing(values: pl.Series, rng: np.random.Generator) -> pl.Series:
    return pl.select(pl.when(pl.Series(rng.random(len(values)) >= 0.1)).then(values)).to_series()


def write_schema(path: Path) -> Path:
    columns = [f"{kind}_{number}" for kind in ("text", "number") for number in range(len(SIZES))]
    path.write_text(
        'label: {column: clicked, positive: "yes"}\nnumerical:\n'
        + "".join(f"  x{number}: {{transform: log1p}}\n" for number in range(5))
        + "categorical:\n"
        + "".join(f"  {name}: {{threshold: {THRESHOLD}}}\n" for name in columns)
        + "split: {test_fraction: 0.1}\n"
    )
    return path


def compare(ours: Path, polars: Path) -> None:
    """Ends the program where an id of ours is another one than of polars."""
    for path in sorted(polars.glob("*_?.bin")):
        parts = [(ours / split / path.name).read_bytes() for split in ("train", "test")]
        if b"".join(parts) != path.read_bytes():
            sys.exit(f"{path.name}: the ids differ")


if __name__ == "__main__":
    main()
