"""How fast `criteo-prep preprocess` is: rows/s of each stage, peak memory, how busy the cores are, and two comparisons.

    python bench/preprocess.py                                        5 M rows, T15-shaped, against polars
    python bench/preprocess.py --rows 50000000 --distinct 40000000 --preset criteo_t0_synthetic --threshold 0
    --no_polars

The comparisons: reading the input file once, and a straightforward polars pipeline (scan, hex to int, group_by, join).
Ours and polars are processes, so both times include the start. The input is synthetic; --distinct gives the first
categorical column that many different values, all about equally frequent. The input is read once before, so that it is
in the page cache if it fits.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from result_file import write_result

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from criteo_prep.machine import processors  # noqa: E402

ROWS_PER_PIECE = 4 << 20


def main() -> None:
    arguments = parse_arguments()
    folder = Path(tempfile.mkdtemp(prefix="bench_preprocess_", dir=arguments.folder))
    try:
        document = measure(arguments, folder)
    finally:
        shutil.rmtree(folder)
    write_result(arguments.json, document)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--preset", default="criteo_t15_synthetic")
    parser.add_argument("--threshold", default="15")
    parser.add_argument("--distinct", type=int, default=0, help="different values of cat_0 (default: as in the preset)")
    parser.add_argument("--repeat", type=int, default=3, help="runs of ours and of polars; the median counts (3)")
    parser.add_argument("--no_polars", action="store_true")
    parser.add_argument("--memory_limit", help="--memory_limit of criteo-prep preprocess")
    parser.add_argument("--folder", help="where the temporary files go")
    parser.add_argument("--json", default=str(ROOT / "bench" / "results" / "preprocess.json"))
    return parser.parse_args()


def measure(arguments: argparse.Namespace, folder: Path) -> dict:
    days = make_input(arguments, folder)
    size = sum(path.stat().st_size for path in days)
    print(f"input: {arguments.rows:,} rows, {size / 1e9:.2f} GB, {len(days)} files")
    runs = []
    for number in range(arguments.repeat):
        run = {"read": read_s(days), "ours": ours(arguments, days, folder), "load": os.getloadavg()[0]}
        if not arguments.no_polars:
            run["polars"] = polars(arguments, days, folder)
        runs.append(run)
        seconds = {name: f"{run[name]['seconds']:.1f} s" for name in ("ours", "polars") if name in run}
        print(f"run {number + 1} of {arguments.repeat}: {seconds}, load {run['load']:.1f}", flush=True)
    total = statistics.median(run["ours"]["seconds"] for run in runs)
    rows = [["whole command", total, max(run["ours"]["peak_bytes"] for run in runs)]]
    for stage in runs[0]["ours"]["stages"]:
        rows.append([f"  {stage}", statistics.median(run["ours"]["stages"][stage] for run in runs), None])
    rows.append(["reading the input", statistics.median(run["read"] for run in runs), None])
    ratio = None
    if not arguments.no_polars:
        peak = max(run["polars"]["peak_bytes"] for run in runs)
        rows.append(["polars pipeline", statistics.median(run["polars"]["seconds"] for run in runs), peak])
        ratio = statistics.median(run["polars"]["seconds"] / run["ours"]["seconds"] for run in runs)
    print(f"{'':20}{'seconds':>10}{'rows/s':>14}{'MB/s':>10}{'peak RSS':>12}")
    for name, seconds, peak in rows:
        rss = f"{peak / 1e9:.2f} GB" if peak else ""
        print(f"{name:20}{seconds:10.2f}{arguments.rows / seconds:14,.0f}{size / seconds / 1e6:10.0f}{rss:>12}")
    if ratio:
        print(f"polars / ours: {ratio:.2f}, median of the ratios within a run")
    names = [name for name in ("ours", "polars") if name in runs[0]]
    cpu = {name: statistics.median(run[name]["cpu_seconds"] for run in runs) for name in names}
    print("processor seconds, which other programs disturb less: " + ", ".join(f"{n} {s:.1f}" for n, s in cpu.items()))
    share = statistics.median(run["ours"]["cpu_seconds"] / run["ours"]["seconds"] for run in runs) / processors()
    row_ns = cpu["ours"] / arguments.rows * 1e9
    print(f"ours: {row_ns:.0f} processor nanoseconds a row, {share:.0%} of the cores worked")
    print(f"ours / reading: {statistics.median(run['ours']['seconds'] / run['read'] for run in runs):.1f}")
    return {
        "rows": arguments.rows,
        "input_bytes": size,
        "runs": runs,
        "polars_ratio": ratio,
        "processors": processors(),
        "processor_ns_per_row": row_ns,
        "share_of_cores": share,
    }


def make_input(arguments: argparse.Namespace, folder: Path) -> list[Path]:
    """Two day files of synthetic rows."""
    evaluation = max(1, arguments.rows // 20)
    command = [
        sys.executable,
        "-m",
        "criteo_prep",
        "synthesize",
        "--preset",
        arguments.preset,
        "--layout",
        "criteo_tsv",
        "--num_samples",
        str(arguments.rows - evaluation),
        "--num_test_samples",
        str(evaluation),
        "--quiet",
        "--dst",
        str(folder / "days"),
    ]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    days = sorted(folder.glob("days/day_*"))
    if arguments.distinct:
        first = 0
        for path in days:
            first += spread_first_values(path, first, arguments.distinct)
    return days


def spread_first_values(path: Path, first: int, distinct: int) -> int:
    """Overwrites cat_0, which is never missing in synthetic rows, with a hash of (row number mod distinct).

    Returns:
      The rows of the file.
    """
    text = np.memmap(path, np.uint8, "r+")
    rows = position = 0
    while position < len(text):
        piece = text[position : position + ROWS_PER_PIECE * 64]
        end = int(np.flatnonzero(piece == 10)[-1]) + 1
        piece = piece[:end]
        tabs = np.flatnonzero(piece == 9).reshape(-1, 39)
        numbers = (np.arange(first + rows, first + rows + len(tabs)) % distinct).astype(np.uint32)
        values = (numbers * np.uint32(0x9E3779B1)) ^ np.uint32(0x5BD1E995)  # one to one
        for digit in range(8):
            nibble = (values >> np.uint32(28 - 4 * digit)) & np.uint32(15)
            piece[tabs[:, 13] + 1 + digit] = np.frombuffer(b"0123456789abcdef", np.uint8)[nibble]
        rows += len(tabs)
        position += end
    text.flush()
    return rows


def read_s(days: list[Path]) -> float:
    """Seconds to read all input."""
    start = time.perf_counter()
    buffer = bytearray(8 << 20)
    for path in days:
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - start


def ours(arguments: argparse.Namespace, days: list[Path], folder: Path) -> dict:
    output, log = folder / "ours", folder / "log.jsonl"
    log.unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "criteo_prep",
        "preprocess",
        "--input",
        *map(str, days),
        "--output",
        str(output),
        "--threshold",
        arguments.threshold,
        "--quiet",
        "--log_json",
        str(log),
    ]
    if arguments.memory_limit:
        command += ["--memory_limit", arguments.memory_limit]
    result = timed(command)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    stages = {line["stage"]: line["seconds"] for line in lines if line["state"] == "done"}
    made = json.loads((output / "manifest.json").read_text())
    result |= {"stages": stages, "output_bytes": sum(entry["bytes"] for entry in made["files"].values())}
    shutil.rmtree(output)
    return result


def polars(arguments: argparse.Namespace, days: list[Path], folder: Path) -> dict:
    output = folder / "polars"
    output.mkdir()
    result = timed(
        [
            sys.executable,
            str(ROOT / "bench" / "polars_pipeline.py"),
            arguments.threshold.partition(",")[0],
            str(output),
            *map(str, days),
        ]
    )
    shutil.rmtree(output)
    return result


def timed(command: list[str]) -> dict:
    """Runs a command. Returns its seconds, start-up included, and its peak resident memory in bytes.

    The peak is asked for while it runs: what wait4 tells can be this process's own, from before the exec.
    """
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident_peak(process.pid))
        time.sleep(0.02)
    if process.returncode:
        raise RuntimeError(f"{command[:4]} exited with {process.returncode}")
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak}


def resident_peak(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return max([int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")], default=0)


if __name__ == "__main__":
    main()
