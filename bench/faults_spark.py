"""Fault runs of `criteo-prep preprocess --engine spark` on a standalone cluster of two workers with one core each.

    python bench/faults_spark.py [--rows 10000000] [--folder DIR] [--output bench/results/faults_spark.json]

The logs are synthetic, three days. The local engine makes the dataset; then Spark makes the dataset undisturbed; then
with duplicate tasks (speculation), and two executors and one worker killed by kill -9; then with the driver killed
twice, in the parse and in the columns, and resumed. Every file of every dataset is compared with the local engine's,
byte for byte.
"""

import argparse
import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from result_file import ROOT, write_result

sys.path.insert(0, str(ROOT / "tests"))
from support.spark_cluster import (  # noqa: E402
    SparkProcesses,
    kill,
    kill_tree,
    settings_as_flags,
    start_preprocess,
    wait_for_files,
)

PARTS, COLUMNS = "work/parts-*/split-*", "work/finished-*/*.json"
RULES = ("--threshold", "3", "--shuffle", "global", "--seed", "1")
SPECULATION = {
    "spark.speculation": "true",
    "spark.speculation.interval": "20ms",
    "spark.speculation.multiplier": "1.05",
    "spark.speculation.quantile": "0.25",
    "spark.speculation.minTaskRuntime": "1ms",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of all days together")
    parser.add_argument("--only", choices=[*RUNS], help="do only this run; the others of the JSON file are kept")
    parser.add_argument("--folder", help="where logs and the local engine's dataset are kept for another --only")
    parser.add_argument("--output", default="bench/results/faults_spark.json", help="the JSON file to write")
    arguments = parser.parse_args()
    folder = Path(arguments.folder or tempfile.mkdtemp(prefix="faults_spark_"))
    names = [arguments.only] if arguments.only else [*RUNS]
    results = {}
    if arguments.only and Path(arguments.output).exists():
        results = {result["run"]: result for result in json.loads(Path(arguments.output).read_text())["runs"]}
    try:
        days = make_days(folder / "logs", arguments.rows)
        with SparkProcesses(folder / "cluster", seconds_to_live=3600) as cluster:
            for name in names:
                results[name] = {"run": name, **RUNS[name](cluster, days, folder)}
                print(results[name], flush=True)
        input_bytes = sum(day.stat().st_size for day in days)
    finally:
        if arguments.folder is None:
            shutil.rmtree(folder)
    document = {"rows": arguments.rows, "input_bytes": input_bytes, "workers": 2, "cores_per_worker": 1}
    write_result(arguments.output, {**document, "rules": RULES, "runs": [*results.values()]})
    sys.exit(not all(result["same_bytes"] for result in results.values()))


def make_days(folder: Path, rows: int) -> list[Path]:
    if (folder / "manifest.json").exists():
        return sorted(folder.glob("day_*"))
    command = ["synthesize", "--preset", "criteo_t15_synthetic", "--layout", "criteo_tsv", "--num_days", "3", "--quiet"]
    command += ["--num_samples", str(rows - rows // 10), "--num_test_samples", str(rows // 10), "--dst", str(folder)]
    subprocess.run([sys.executable, "-m", "criteo_prep", *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return sorted(folder.glob("day_*"))


def local(cluster: SparkProcesses, days: list[Path], folder: Path) -> dict:
    start = time.perf_counter()
    finish(start_preprocess(days, folder / "local", *RULES))
    return {"seconds": round(time.perf_counter() - start, 1), "same_bytes": True}


def undisturbed(cluster: SparkProcesses, days: list[Path], folder: Path) -> dict:
    start = time.perf_counter()
    finish(start_preprocess(days, folder / "set", *RULES, *cluster.flags()))
    return result(folder, start=start)


def lost_machines(cluster: SparkProcesses, days: list[Path], folder: Path) -> dict:
    """Two executors and a worker are killed; Spark starts duplicates of slow tasks."""
    events = folder / "events"
    events.mkdir(exist_ok=True)
    for file in events.iterdir():
        file.unlink()
    settings = SPECULATION | {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": str(events),
        "spark.eventLog.compress": "false",
        "spark.eventLog.rolling.enabled": "false",
    }
    start = time.perf_counter()
    process = start_preprocess(days, folder / "set", *RULES, *cluster.flags(), *settings_as_flags(settings))
    killed: set[int] = set()
    for pattern, number in ((PARTS, 4), (COLUMNS, 2)):
        wait_for_files(process, folder / ".set.partial", pattern, number=number)
        if new := [pid for pid in cluster.executors() if pid not in killed]:
            kill(new[0])
            killed.add(new[0])
        if pattern == PARTS:
            wait_for_files(process, folder / ".set.partial", pattern, number=12)
            kill_tree(cluster.workers[0].pid)
            cluster.add_worker(len(cluster.workers))
    finish(process)
    facts = {"executors_killed": len(killed), "workers_killed": 1, **task_facts(events)}
    return result(folder, start=start, **facts)


def task_facts(events: Path) -> dict:
    """How many tasks ran, of which Spark started a duplicate, and how many failed, by Spark's log of events."""
    lines = [json.loads(line) for file in events.iterdir() for line in file.read_text().splitlines()]
    starts = [line for line in lines if line["Event"] == "SparkListenerTaskStart"]
    ends = [line["Task End Reason"]["Reason"] for line in lines if line["Event"] == "SparkListenerTaskEnd"]
    return {
        "tasks_started": len(starts),
        "duplicate_tasks": sum(line["Task Info"]["Speculative"] for line in starts),
        "tasks_that_did_not_succeed": {why: ends.count(why) for why in sorted(set(ends)) if why != "Success"},
    }


def killed_driver(cluster: SparkProcesses, days: list[Path], folder: Path) -> dict:
    """The driver is killed in the parse and in the columns; then the same command ends."""
    start, staging, kept = time.perf_counter(), folder / ".set.partial", []
    for pattern, number in ((PARTS, 12), (COLUMNS, 2)):
        process = start_preprocess(days, folder / "set", *RULES, *cluster.flags())
        wait_for_files(process, staging, pattern, number=number)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        kept.append(len([*staging.glob(pattern)]))
    parts = {path: path.stat().st_mtime_ns for path in staging.glob(PARTS)}
    process = start_preprocess(days, folder / "set", *RULES, *cluster.flags())
    wait_for_files(process, staging, COLUMNS, number=kept[1] + 1)
    again = sum(path.stat().st_mtime_ns != parts.get(path) for path in staging.glob(PARTS))
    finish(process)
    facts = {"drivers_killed": 2, "parts_kept": kept[0], "columns_kept": kept[1], "parts_made_again_at_the_end": again}
    return result(folder, start=start, **facts)


def finish(process: subprocess.Popen) -> None:
    _, error = process.communicate()
    assert process.returncode == 0, error


def result(folder: Path, *, start: float, **facts: object) -> dict:
    """The facts of a run whose dataset is in folder/set, which is deleted."""
    seconds = round(time.perf_counter() - start, 1)
    equal = same(folder / "local", folder / "set")
    shutil.rmtree(folder / "set")
    return {"seconds": seconds, "same_bytes": equal, **facts}


def same(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files with the same bytes."""
    files = sorted(str(path.relative_to(one)) for path in one.rglob("*") if path.is_file())
    others = sorted(str(path.relative_to(other)) for path in other.rglob("*") if path.is_file())
    return files == others and all(filecmp.cmp(one / file, other / file, shallow=False) for file in files)


RUNS = {"local": local, "undisturbed": undisturbed, "lost_machines": lost_machines, "killed_driver": killed_driver}

if __name__ == "__main__":
    main()
