"""Each layout's writer and reader: samples/s, and the share of what copying the same bytes takes.

    python bench/transcribe.py [--batches 48] [--repeats 3] [--folder DIR] [--output bench/transcribe.json]

The data are synthetic Criteo samples (13 numericals, 26 ids, T15 cardinalities) in batches of 65536. `write` is
tf_raw -> layout, `read` is layout -> tf_raw, both whole: reading, checking, writing, checksums, renaming into place. A
copy of as many bytes as are read and written (half of their sum) is timed before each run; the share is copy time / run
time. The first round is left out: it pays for page cache that was never touched. `memory` is the peak of a process
that transcribes there and back, for the number of batches and for a quarter of them.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from criteo_prep.synthetic.presets import preset, published_spec  # noqa: E402
from criteo_prep.transcribe import WRITERS, Request, transcribe_dataset  # noqa: E402

BATCH = 65536
_MEASURE_PEAK = """
import json, resource, sys
sys.path.insert(0, sys.argv[1])
from criteo_prep.transcribe import Request, transcribe_dataset
for change in json.loads(sys.argv[2]):
    transcribe_dataset(Request(**change), quiet=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--batches", type=int, default=48, help=f"of {BATCH} samples (48)")
    parser.add_argument("--repeats", type=int, default=3, help="measured rounds, of which the median is taken (3)")
    parser.add_argument("--layouts", nargs="+", default=[name for name in WRITERS if name != "tf_raw"])
    parser.add_argument("--folder", help="where the temporary files go")
    parser.add_argument("--output", default=str(Path(__file__).with_suffix(".json")))
    arguments = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="bench_transcribe_", dir=arguments.folder))
    try:
        raw = make_samples(folder, arguments.batches)
        print(f"{'layout':16} {'write, M/s':>10} {'of copy':>8} {'read, M/s':>10} {'of copy':>8} "
              f"{'bytes a sample':>15} {'memory, MB':>11} {'of a quarter':>13}")  # fmt: skip
        rows = []
        for layout in arguments.layouts:
            rows.append(measure(folder, raw, layout, arguments))
            print("{layout:16} {write:10.2f} {write_share:8.0%} {read:10.2f} {read_share:8.0%} {sample_bytes:15.0f} "
                  "{peak_mb:11.0f} {peak_of_a_quarter_mb:13.0f}".format(**rows[-1]), flush=True)  # fmt: skip
    finally:
        shutil.rmtree(folder)
    document = {
        "command": " ".join(["python", "bench/transcribe.py", *(sys.argv[1:] if argv is None else argv)]),
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip(),
        "machine": {"cores": len(os.sched_getaffinity(0)), "processor": platform.machine(), "load": os.getloadavg()},
        "rows": rows,
    }
    Path(arguments.output).write_text(json.dumps(document, indent=1) + "\n")
    return 0


def make_samples(folder: Path, batches: int) -> Path:
    (folder / "shape").mkdir()
    published_spec(preset("criteo_t15_synthetic")).save(folder / "shape" / "feature_spec.yaml")
    request = Request(folder / "shape", "synthetic", dst_dataset_path=folder / "raw", dst_dataset_type="tf_raw",
                      max_batches_train=batches, train_only=True)  # fmt: skip
    transcribe_dataset(request, quiet=True)
    return folder / "raw"


def measure(folder: Path, raw: Path, layout: str, arguments: argparse.Namespace) -> dict:
    there, back = folder / layout, folder / "back"
    seconds: dict[str, list[float]] = {"write": [], "write_copy": [], "read": [], "read_copy": []}
    for _ in range(arguments.repeats + 1):
        for name, source, kind, destination, wanted in (
            ("write", raw, "tf_raw", there, layout),
            ("read", there, layout, back, "tf_raw"),
        ):
            request = Request(source, kind, dst_dataset_path=destination, dst_dataset_type=wanted, overwrite=True)
            start = time.perf_counter()
            transcribe_dataset(request, quiet=True)
            seconds[name].append(time.perf_counter() - start)
            seconds[f"{name}_copy"].append(copy_seconds(folder, (size_of(source) + size_of(destination)) // 2))
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    samples = arguments.batches * BATCH
    row = {
        "layout": layout,
        "write": samples / medians["write"] / 1e6,
        "write_share": medians["write_copy"] / medians["write"],
        "read": samples / medians["read"] / 1e6,
        "read_share": medians["read_copy"] / medians["read"],
        "sample_bytes": size_of(there) / samples,
        "peak_mb": peak_mb(folder, raw, layout, arguments.batches),
        "peak_of_a_quarter_mb": peak_mb(folder, raw, layout, max(arguments.batches // 4, 1)),
    }
    for made in (there, back):
        shutil.rmtree(made)
    return row


def copy_seconds(folder: Path, num_bytes: int) -> float:
    """Reads and writes a file of that size, in pieces of 8 MB."""
    source, copy = folder / "copy_source", folder / "copy"
    if not source.exists() or source.stat().st_size < num_bytes:
        with open(source, "wb") as file:
            for _ in range(num_bytes // (8 << 20) + 1):
                file.write(os.urandom(8 << 20))
    start = time.perf_counter()
    with open(source, "rb") as reading, open(copy, "wb") as writing:
        left = num_bytes
        while left:
            piece = reading.read(min(left, 8 << 20))
            writing.write(piece)
            left -= len(piece)
    return time.perf_counter() - start


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def peak_mb(folder: Path, raw: Path, layout: str, batches: int) -> float:
    there, back = str(folder / "peak"), str(folder / "peak_back")
    runs = [
        {"src_dataset_path": str(raw), "src_dataset_type": "tf_raw", "dst_dataset_path": there,
         "dst_dataset_type": layout, "max_batches_train": batches, "overwrite": True},
        {"src_dataset_path": there, "src_dataset_type": layout, "dst_dataset_path": back,
         "dst_dataset_type": "tf_raw", "overwrite": True},
    ]  # fmt: skip
    command = [sys.executable, "-c", _MEASURE_PEAK, str(ROOT), json.dumps(runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for made in (there, back):
        shutil.rmtree(made)
    return int(done.stdout) / 1024


if __name__ == "__main__":
    sys.exit(main())
