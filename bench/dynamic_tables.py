"""Dynamic tables on the CPU: dynamicemb's published grid next to our static tables, and TFRA's training step.

    python bench/dynamic_tables.py [--num_iterations 10] [--rows 8388608] [--peer_python PYTHON]

Runs `dlrm_tf2.dynamic_benchmark tables` for each batch and optimizer; keys by a power law with exponent 1.05, width
128. With --peer_python, a Python that has TFRA (bench/peers/dynamic_tables.py says which versions), TFRA makes the same
training steps on the same keys, at the first of the batches. Prints two tables and writes one JSON, after every
configuration.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from result_file import commit, hardware

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dlrm_tf2.benchmarks.dynamic_config import TablesConfig
from dlrm_tf2.benchmarks.dynamic_keys import tables_batch

ROOT = Path(__file__).resolve().parent.parent
PHASES = ("eval", "forward", "backward", "train")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--num_iterations", type=int, default=10)
    parser.add_argument("--rows", type=int, default=8 << 20)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[65536, 1048576])
    parser.add_argument("--optimizers", nargs="+", default=["sgd", "adam"])
    parser.add_argument("--peer_python", metavar="PYTHON", help="a Python that has TFRA")
    parser.add_argument("--json", default=str(ROOT / "bench" / "results" / "dynamic_tables.json"))
    arguments = parser.parse_args()
    document: dict = {"grid": [], "tfra": [], **hardware(), "commit": commit(),
                      "command": command_line(arguments)}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for batch_size in arguments.batch_sizes:
            for optimizer in arguments.optimizers:
                config = TablesConfig(
                    batch_size=batch_size, rows=arguments.rows, num_iterations=arguments.num_iterations,
                    optimizer_type=optimizer, feature_distribution="pow-law", json=str(Path(folder) / "run.json"),
                )  # fmt: skip
                document["grid"].append(measure(config))
                if arguments.peer_python and batch_size == arguments.batch_sizes[0]:
                    document["tfra"].append(next_to(config, document["grid"][-1], arguments.peer_python))
                Path(arguments.json).write_text(json.dumps(document, indent=1) + "\n")
    print(f"written to {arguments.json}")


def command_line(arguments: argparse.Namespace) -> str:
    """The command, without the path of the peer's Python."""
    return " ".join(["bench/dynamic_tables.py", *sys.argv[1:]]).replace(str(arguments.peer_python), "PYTHON")


def measure(config: TablesConfig) -> dict:
    """The record of a run of the program, in a process of its own; prints its milliseconds."""
    flags = [f"--{name}={getattr(config, name)}" for name in (
        "batch_size", "rows", "num_iterations", "optimizer_type", "feature_distribution", "json",
    )]  # fmt: skip
    run([sys.executable, "-m", "dlrm_tf2.dynamic_benchmark", "tables", *flags])
    record = json.loads(Path(config.json).read_text()) | {"load_average": os.getloadavg()}
    del record["json"]  # a path of this machine
    print(f"batch {config.batch_size}, {config.num_rows} rows, {config.optimizer_type}: p50 in ms")
    for phase in PHASES:
        static, dynamic = (record["ms"][table][phase]["p50_ms"] for table in ("static", "dynamic"))
        print(f"{phase:9} static {static:9.2f}  dynamic {dynamic:9.2f}  keys/s of static's {static / dynamic:6.2f}")
    return record


def next_to(config: TablesConfig, record: dict, peer_python: str) -> dict:
    """TFRA's training steps on the same keys: milliseconds, and how many times ours is as fast."""
    keys_file = Path(config.json).with_suffix(".npz")
    np.savez(keys_file, *(tables_batch(config, number) for number in range(config.num_iterations)))
    words = [str(keys_file), config.optimizer_type, str(config.embedding_dim), str(config.num_rows)]
    printed = run([peer_python, str(ROOT / "bench" / "peers" / "dynamic_tables.py"), *words], TF_USE_LEGACY_KERAS="1")
    theirs = {name: statistics.median(ms) for name, ms in json.loads(printed.splitlines()[-1]).items()}
    ours = record["ms"]["dynamic"]
    found = {"batch_size": config.batch_size, "rows": config.num_rows, "optimizer_type": config.optimizer_type,
             "train_ms": theirs["train"], "lookup_ms": theirs["lookup"],
             "train_ratio": theirs["train"] / ours["train"]["p50_ms"],
             "lookup_ratio": theirs["lookup"] / ours["eval"]["p50_ms"]}  # fmt: skip
    print(f"TFRA, {config.optimizer_type}: training step {found['train_ms']:.1f} ms, {found['train_ratio']:.1f} times "
          f"ours; lookup {found['lookup_ms']:.1f} ms, {found['lookup_ratio']:.1f} times ours")  # fmt: skip
    return found


def run(command: list[str], **environment: str) -> str:
    """Standard output of a command; the end of this program if it fails."""
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench/dynamic_tables.py: {' '.join(command)}\n{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
