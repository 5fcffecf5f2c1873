"""Each layout's writer and reader: samples/s, and their speed as a share of a copy's speed.

    python bench/transcribe.py [--batches 48] [--rounds 5]      four minutes

The data are synthetic Criteo samples (13 numericals, 26 ids, T15 cardinalities) in batches of 65536. `write` is
tf_raw -> layout, `read` is layout -> tf_raw; both include reading, checking, writing, checksums, and the rename. Every
run is paired with a copy of as many bytes as the mean of its input and output. Both write new files, into page cache
that was just freed. A share is copy time / run time of one pair. All numbers are medians; the first round does not
count. csv, which is slower, gets an eighth of the samples. `memory` is the peak of a process that transcribes to the
layout and back, for all batches and for a quarter of them.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from result_file import write_result

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from criteo_prep.synthetic.presets import preset, published_spec
from criteo_prep.transcribe.layouts import WRITERS
from criteo_prep.transcribe.request import Request
from criteo_prep.transcribe.run import transcribe_dataset

ROOT = Path(__file__).resolve().parent.parent
BATCH = 65536
SHARE_OF_CSV = 8
PIECE = 8 << 20
MEASURE_PEAK = """
import json, sys
sys.path.insert(0, sys.argv[1])
from criteo_prep.transcribe.request import Request
from criteo_prep.transcribe.run import transcribe_dataset
for change in json.loads(sys.argv[2]):
    transcribe_dataset(Request(**change), quiet=True)
print(*(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--batches", type=int, default=48, help=f"batches of {BATCH} samples (48)")
    parser.add_argument("--rounds", type=int, default=5, help="measured pairs of each direction (5)")
    parser.add_argument("--layouts", nargs="+", default=[*WRITERS], help="(all)")
    parser.add_argument("--folder", help="where the temporary files go")
    parser.add_argument("--json", default=str(Path(__file__).parent / "results" / "transcribe.json"))
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench_transcribe_", dir=arguments.folder))
    rows = []
    try:
        raw = make_samples(folder, arguments.batches)
        make_copy_source(folder, 2 * size_of(raw))
        print(
            f"{'layout':16} {'write, M/s':>10} {'of copy':>8} {'read, M/s':>10} {'of copy':>8} "
            f"{'bytes a sample':>15} {'memory, MB':>11} {'of a quarter':>13}"
        )
        for layout in arguments.layouts:
            batches = arguments.batches if layout != "csv" else max(arguments.batches // SHARE_OF_CSV, 1)
            rows.append(measure(folder, raw, layout, batches, arguments.rounds))
            print(
                "{layout:16} {write:10.2f} {write_share:8.0%} {read:10.2f} {read_share:8.0%} {sample_bytes:15.0f} "
                "{peak_mb:11.0f} {peak_of_a_quarter_mb:13.0f}".format(**rows[-1]),
                flush=True,
            )
    finally:
        shutil.rmtree(folder)
    document = {
        "rows": rows,
    }
    write_result(arguments.json, document)


def make_samples(folder: Path, batches: int) -> Path:
    (folder / "shape").mkdir()
    published_spec(preset("criteo_t15_synthetic")).save(folder / "shape" / "feature_spec.yaml")
    request = Request(
        folder / "shape",
        "synthetic",
        dst_dataset_path=folder / "raw",
        dst_dataset_type="tf_raw",
        max_batches_train=batches,
        train_only=True,
    )
    transcribe_dataset(request, quiet=True)
    return folder / "raw"


def measure(folder: Path, raw: Path, layout: str, batches: int, rounds: int) -> dict:
    """One row of the table, from the first `batches` of the samples."""
    source, other, samples = folder / "source", folder / "other", batches * BATCH
    transcribe_dataset(request(raw, "tf_raw", source, "tf_raw", batches), quiet=True)
    transcribe_dataset(request(source, "tf_raw", other, layout), quiet=True)
    other_bytes = size_of(other)
    os.sync()  # or the disk still writes these files during the measurement
    pairs = {"write": [], "read": []}
    for number in range(rounds + 1):
        for name, way in (("write", (source, "tf_raw", layout)), ("read", (other, layout, "tf_raw"))):
            pair = measured(folder, *way)
            if number:
                pairs[name].append(pair)
    row = {"layout": layout, "samples": samples, "sample_bytes": other_bytes / samples, "pairs": pairs}
    for name, found in pairs.items():
        row[name] = samples / statistics.median(run for run, _ in found) / 1e6
        row[f"{name}_share"] = statistics.median(copied / run for run, copied in found)
    shutil.rmtree(other)
    shutil.rmtree(source)
    row["peak_mb"] = peak_mb(folder, raw, layout, batches)
    row["peak_of_a_quarter_mb"] = peak_mb(folder, raw, layout, max(batches // 4, 1))
    return row


def request(source: Path, source_layout: str, made: Path, layout: str, batches: int = -1) -> Request:
    return Request(source, source_layout, dst_dataset_path=made, dst_dataset_type=layout, max_batches_train=batches)


def measured(folder: Path, source: Path, source_layout: str, layout: str) -> tuple[float, float]:
    """(seconds of a transcription, seconds of a copy of as many bytes)."""
    made, file = folder / "made", folder / "copy"
    start = time.perf_counter()
    transcribe_dataset(request(source, source_layout, made, layout), quiet=True)
    seconds = time.perf_counter() - start
    num_bytes = (size_of(source) + size_of(made)) // 2
    shutil.rmtree(made)
    make_copy_source(folder, num_bytes)
    start = time.perf_counter()
    copy(folder / "copy_source", file, num_bytes)
    copied = time.perf_counter() - start
    file.unlink()
    return seconds, copied


def make_copy_source(folder: Path, num_bytes: int) -> None:
    """Writes a file of at least `num_bytes` bytes."""
    with open(folder / "copy_source", "ab") as file:
        while file.tell() < num_bytes:
            file.write(os.urandom(PIECE))


def copy(source: Path, destination: Path, num_bytes: int) -> None:
    with open(source, "rb") as reading, open(destination, "wb") as writing:
        for start in range(0, num_bytes, PIECE):
            writing.write(reading.read(min(PIECE, num_bytes - start)))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def peak_mb(folder: Path, raw: Path, layout: str, batches: int) -> float:
    other, back = str(folder / "peak"), str(folder / "peak_back")
    runs = [
        {
            "src_dataset_path": str(raw),
            "src_dataset_type": "tf_raw",
            "dst_dataset_path": other,
            "dst_dataset_type": layout,
            "max_batches_train": batches,
        },
        {"src_dataset_path": other, "src_dataset_type": layout, "dst_dataset_path": back, "dst_dataset_type": "tf_raw"},
    ]
    command = [sys.executable, "-c", MEASURE_PEAK, str(ROOT), json.dumps(runs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for made in (other, back):
        shutil.rmtree(made)
    return int(done.stdout.split()[1]) / 1024


if __name__ == "__main__":
    main()
