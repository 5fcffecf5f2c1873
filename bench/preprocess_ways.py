"""How fast the other ways into and out of a dataset are: rows/s of each, one run, the start included.

    python bench/preprocess_ways.py [--rows 2000000] [--threshold 15]

The same synthetic T15-shaped rows as text, gzip, zstd and parquet; with shuffled training rows; with the raw columns
kept; encoded with the dataset's vocabularies; with a higher threshold derived from the ids, and a lower threshold
derived from the raw columns; and verified. All ways are compared with the first one, plain text.
"""

import argparse
import gzip
import shutil
import sys
import tempfile
from pathlib import Path

import zstandard
from preprocess import ROOT, make_input, timed
from result_file import write_result

COLUMNS = 40
COPY_BYTES = 16 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--preset", default="criteo_t15_synthetic")
    parser.add_argument("--threshold", type=int, default=15)
    parser.add_argument("--distinct", type=int, default=0, help="--distinct of preprocess.py")
    parser.add_argument("--folder", help="where the temporary files go")
    parser.add_argument("--json", default=str(ROOT / "bench" / "results" / "preprocess_ways.json"))
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench_ways_", dir=arguments.folder))
    try:
        ways = measure(arguments, folder)
    finally:
        shutil.rmtree(folder)
    print(f"{'':34}{'seconds':>9}{'rows/s':>12}{'of text':>9}{'processor s':>13}{'rows/s/core':>13}{'peak RSS':>10}")
    for name, way in ways.items():
        share = f"{ways['text']['seconds'] / way['seconds']:.2f}"
        rates = f"{way['seconds']:9.2f}{arguments.rows / way['seconds']:12,.0f}{share:>9}{way['cpu_seconds']:13.1f}"
        rates += f"{arguments.rows / way['cpu_seconds']:13,.0f}"
        print(f"{name:34}{rates}{way['peak_bytes'] / 1e9:7.2f} GB")
    write_result(arguments.json, {"rows": arguments.rows, "ways": ways})


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, dict]:
    """Name of each way -> the result of `timed`."""
    days, threshold = make_input(arguments, folder), arguments.threshold
    outputs = {name: folder / name for name in ("set", "kept", "other", "encoded")}
    preprocess = lambda files, output, t, *more: timed(  # noqa: E731
        command("preprocess", "--input", *files, "--output", outputs[output], "--threshold", t, "--quiet", *more)
    )
    ways = {"text": preprocess(days, "set", threshold)}
    for name, pack in (("gzip", to_gzip), ("zstd", to_zstd), ("parquet, values as text", to_parquet)):
        packed = [pack(day, folder / f"{name.partition(',')[0]}_{day.name}") for day in days]
        evaluation = ("--test_file", packed.pop())
        ways[name] = preprocess(packed, "other", threshold, *evaluation)
        assert_same(outputs["set"], outputs["other"])
        for path in (outputs["other"], *packed, evaluation[1]):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    ways["text, --shuffle global"] = preprocess(days, "other", threshold, "--shuffle", "global")
    ways["text, --keep_raw"] = preprocess(days, "kept", threshold, "--keep_raw")
    ways["lower threshold, of the raw columns"] = preprocess(days, "kept", max(0, threshold - 5))
    encode = ("encode", "--vocabulary", outputs["set"], "--input", *days, "--output", outputs["encoded"], "--quiet")
    ways["encode"] = timed(command(*encode))
    ways["verify"] = timed(command("verify", outputs["set"], "--quiet"))
    ways["higher threshold, of the ids"] = preprocess(days, "set", threshold + 5)
    return ways


def command(*words) -> list[str]:
    return [sys.executable, "-m", "criteo_prep", *map(str, words)]


def to_gzip(day: Path, path: Path) -> Path:
    with open(day, "rb") as text, gzip.open(path, "wb", 6) as packed:
        shutil.copyfileobj(text, packed, COPY_BYTES)
    return path


def to_zstd(day: Path, path: Path) -> Path:
    with open(day, "rb") as text, open(path, "wb") as packed:
        zstandard.ZstdCompressor(3).copy_stream(text, packed)
    return path


def to_parquet(day: Path, path: Path) -> Path:
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    names = [f"c{number}" for number in range(COLUMNS)]
    types = dict.fromkeys(names[:14], pyarrow.int64()) | dict.fromkeys(names[14:], pyarrow.string())
    rows = pyarrow.csv.open_csv(
        day,
        pyarrow.csv.ReadOptions(column_names=names),
        pyarrow.csv.ParseOptions(delimiter="\t"),
        pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=True),
    )
    with pyarrow.parquet.ParquetWriter(path, rows.schema) as writer:
        for batch in rows:
            writer.write_batch(batch)
    return path


def assert_same(one: Path, other: Path) -> None:
    """Checks that two forms of the same input gave the same ids."""
    for name in ("label", "numerical", "cat_0", "cat_25"):
        path = Path("train") / f"{name}.bin"
        assert (one / path).read_bytes() == (other / path).read_bytes(), path


if __name__ == "__main__":
    main()
