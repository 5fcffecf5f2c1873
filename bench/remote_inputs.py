"""How fast `criteo-prep preprocess` reads its inputs from a server on this machine, against the same files on the disk.

    python bench/remote_inputs.py                 1 M rows: local files, and the same files by http://
    python bench/remote_inputs.py --latency 0.03  each answer begins 30 ms later, as from a store far away

The server is Python's own with ranges, in a process of its own on the same processors, so it takes processor time from
the command. The parse stage alone is compared, and the bytes read alone through the same reader.
"""

import argparse
import http.server
import json
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from result_file import write_result

from criteo_prep.preprocess.locations import location_of, open_location

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=3, help="runs of each way; the median counts (3)")
    parser.add_argument("--latency", type=float, default=0.0, metavar="S", help="seconds before each answer (0)")
    parser.add_argument("--json", default=str(ROOT / "bench" / "results" / "remote_inputs.json"))
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench_remote_inputs_"))
    try:
        document = measure(arguments, folder)
    finally:
        shutil.rmtree(folder)
    write_result(arguments.json, document)


def measure(arguments: argparse.Namespace, folder: Path) -> dict:
    size, samples = make_input(arguments.rows, folder), arguments.rows
    ready = multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(folder / "days", arguments.latency, ready), daemon=True)
    server.start()
    address = f"http://127.0.0.1:{ready.get()}"
    ways = {"local": str(folder / "days"), "http": address}
    runs: list[dict] = []
    try:
        for _ in range(arguments.repeat):
            run = {name: parse_s(where, folder) for name, where in ways.items()}
            run |= {f"{name}_reading": reading_s(where) for name, where in ways.items()}
            runs.append({**run, "load": os.getloadavg()[0]})
    finally:
        server.terminate()
    print(f"{samples:,} rows, {size / 1e9:.2f} GB, latency {1000 * arguments.latency:.0f} ms")
    print(f"{'':16}{'seconds':>10}{'rows/s':>14}{'MB/s':>10}")
    for name in ("local", "http", "local_reading", "http_reading"):
        seconds = statistics.median(run[name] for run in runs)
        print(f"{name:16}{seconds:10.2f}{samples / seconds:14,.0f}{size / seconds / 1e6:10.0f}")
    ratio = statistics.median(run["http"] / run["local"] for run in runs)
    print(f"http / local, parse stage: {ratio:.2f}, median of the ratios within a run")
    return {"rows": samples, "input_bytes": size, "latency_s": arguments.latency, "runs": runs, "ratio": ratio}


def make_input(rows: int, folder: Path) -> int:
    """Two day files of synthetic rows. Returns their bytes."""
    command = [sys.executable, "-m", "criteo_prep", "synthesize", "--preset", "criteo_t15_synthetic", "--quiet"]
    command += ["--layout", "criteo_tsv", "--dst", str(folder / "days")]
    command += ["--num_samples", str(rows - rows // 20), "--num_test_samples", str(rows // 20)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return sum(path.stat().st_size for path in (folder / "days").glob("day_*"))


def parse_s(where: str, folder: Path) -> float:
    """Seconds of the parse stage of a whole command."""
    log, output = folder / "log.json", folder / "set"
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "criteo_prep", "preprocess", f"{where}/day_0", f"{where}/day_1"]
    command += ["--output", str(output), "--threshold", "15", "--quiet", "--log_json", str(log)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    shutil.rmtree(output)
    states = [json.loads(line) for line in log.read_text().splitlines()]
    return next(each["seconds"] for each in states if each["stage"] == "parse" and each["state"] == "done")


def reading_s(where: str) -> float:
    """Seconds to read the bytes alone."""
    start, buffer = time.perf_counter(), bytearray(4 << 20)
    for name in ("day_0", "day_1"):
        with open_location(location_of(f"{where}/{name}")) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - start


def serve(folder: Path, latency: float, ready) -> None:
    """Serves the files of a folder by ranges; puts the port into `ready`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            path, match = folder / Path(self.path).name, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
            size, first = path.stat().st_size, int(match[1])
            last = min(int(match[2]), size - 1)
            time.sleep(latency)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.send_header("Content-Length", str(last - first + 1))
            self.end_headers()
            with open(path, "rb") as file:
                done = first
                while done <= last:
                    done += os.sendfile(self.connection.fileno(), file.fileno(), done, last + 1 - done)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda request, address: None  # the command closes connections that it needs no more
    ready.put(server.server_address[1])
    server.serve_forever()


if __name__ == "__main__":
    main()
