"""TorchRec's DLRM on the CPU next to `python -m dlrm_tf2.torchrec_example`: the same files, batches, model and flags.

    python bench/torchrec_peer.py --peer PYTHON [--only speed|auroc] [--rounds 3] [--seeds 1,2,3]

PYTHON is a Python that has torch, torchrec, fbgemm-gpu-cpu and torchmetrics, in an environment of its own; without it
nothing is measured. The samples are day_N_{dense,sparse,labels}.npy with planted clicks: 26 tables of the MLPerf shape
at a hundredth of its cardinalities. Both programs get the same flags, one process and all processors.

`speed`: samples a second by the published formula, steps a second times the batch, without the first half of the steps;
and the seconds of the whole program, from its start over one batch of each evaluation to its end. The programs take
turns; a ratio compares the two runs of a round, and the medians count. `auroc`: one epoch with Adagrad, the AUROC over
the test split for each seed; the two libraries draw other initial weights from a seed. A part that is not measured
stays in the JSON as it was.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from preprocess import commit, hardware

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from criteo_prep.manifest import load_manifest
from criteo_prep.synthesize import Synthesis, synthesize
from criteo_prep.synthetic import presets

ROOT = Path(__file__).resolve().parent.parent
SCALE, TEST_SAMPLES = 0.01, 262_144
ROWS = [table.cardinality for table in presets.scaled(presets.preset("mlperf_40m"), SCALE).categorical]
MODEL = {
    "embedding_dim": 128,
    "dense_arch_layer_sizes": "512,256,128",
    "over_arch_layer_sizes": "1024,1024,512,256,1",
    "num_embeddings_per_feature": ",".join(map(str, ROWS)),
    "test_batch_size": 8192,
}
OPTIMIZERS = {"sgd": {"learning_rate": 0.1}, "adagrad": {"adagrad": True, "learning_rate": 0.01}}
AUROC_BATCH = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--peer", metavar="PYTHON", help="a Python that has TorchRec")
    parser.add_argument("--only", choices=("speed", "auroc"))
    parser.add_argument("--batch_sizes", default="2048,8192")
    parser.add_argument("--optimizers", default=",".join(OPTIMIZERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--speed_samples", type=int, default=196_608)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--samples", type=int, default=524_288, help="training samples of auroc")
    parser.add_argument("--json", default=str(ROOT / "bench" / "results" / "torchrec_peer.json"))
    arguments = parser.parse_args()
    if not arguments.peer:
        print("bench/torchrec_peer.py: --peer PYTHON names a Python that has TorchRec; nothing is measured.")
        return
    path = Path(arguments.json)
    document = json.loads(path.read_text()) if path.exists() else {}
    with tempfile.TemporaryDirectory(prefix="bench_torchrec_peer_") as folder:
        programs = Programs(arguments.peer, Path(folder))
        best = write_days(Path(folder), max(arguments.samples, arguments.speed_samples))
        for part, measure in (("speed", speed), ("auroc", auroc)):
            if arguments.only in (None, part):
                document[part] = measure(arguments, programs) | {
                    **hardware(),
                    "load_average": os.getloadavg(),
                    "commit": commit(),
                    "versions": programs.versions,
                    "command": " ".join(["bench/torchrec_peer.py", *sys.argv[1:]]).replace(arguments.peer, "PYTHON"),
                }
        document |= {"model": MODEL, "best_auroc": best}
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(f"written to {arguments.json}")


def write_days(folder: Path, samples: int) -> float:
    """day_0 for training and day_1 for evaluation, in folder/days. Returns the best AUROC that the labels allow."""
    request = Synthesis("mlperf_40m", samples, TEST_SAMPLES, scale=SCALE, seed=1, labels="teacher")
    synthesize(request, folder / "set", quiet=True)
    layout = ["--dst_dataset_path", str(folder / "npy"), "--dst_dataset_type", "criteo_npy"]
    run([sys.executable, "-m", "criteo_prep.transcribe", "--src_dataset_path", str(folder / "set"), *layout])
    (folder / "days").mkdir()
    for day, split in enumerate(("train", "test")):
        for part in ("dense", "sparse", "labels"):
            (folder / "npy" / split / f"day_0_{part}.npy").rename(folder / "days" / f"day_{day}_{part}.npy")
    return load_manifest(folder / "set")["splits"]["test"]["best_auc"]


class Programs:
    """The two programs on the files of folder/days.

    Attributes:
      versions: of the peer's packages, known after a run.
    """

    def __init__(self, peer: str, folder: Path):
        self._peer, self._folder = peer, folder
        self.versions: dict[str, str] = {}

    def ours(self, flags: dict, steps: int) -> dict:
        log = self._folder / "log.json"
        words = words_of({**flags, "log_path": log, "cpu": True, **self._files})
        seconds, _ = run([sys.executable, "-m", "dlrm_tf2.torchrec_example", *words])
        summary = json.loads(log.read_text().splitlines()[-1])
        assert summary["steps"] == steps
        return {
            "samples_per_s": flags["batch_size"] * 1e3 / summary["mean_step_time_ms"],
            "data_wait": summary["data_wait_ms"] / summary["mean_step_time_ms"],
            "test_auroc": summary["final_auc"],
            "program_s": seconds,
        }

    def torchrec(self, flags: dict, steps: int) -> dict:
        words = words_of({**flags, "warmup": steps // 2, **self._files})
        seconds, printed = run([self._peer, str(ROOT / "bench" / "peers" / "torchrec_dlrm.py"), *words])
        found = json.loads(printed.splitlines()[-1])
        assert found["steps"] == steps
        self.versions = found["versions"]
        return {key: found[key] for key in ("samples_per_s", "data_wait", "test_auroc")} | {"program_s": seconds}

    @property
    def _files(self) -> dict:
        return {"in_memory_binary_criteo_path": self._folder / "days"}


def speed(arguments: argparse.Namespace, programs: Programs) -> dict:
    runs: dict[str, dict[str, list[dict]]] = {}
    for _ in range(arguments.rounds):
        for batch in map(int, arguments.batch_sizes.split(",")):
            for optimizer in arguments.optimizers.split(","):
                steps = arguments.speed_samples // batch
                limits = {"limit_train_batches": steps, "limit_val_batches": 1, "limit_test_batches": 1}
                flags = {**MODEL, **OPTIMIZERS[optimizer], "batch_size": batch, "seed": 1, **limits}
                of_case = runs.setdefault(f"{optimizer}, batch {batch}", {"ours": [], "torchrec": []})
                of_case["torchrec"].append(programs.torchrec(flags, steps))
                of_case["ours"].append(programs.ours(flags, steps))
    print(f"{'':20}{'samples/s':>10}{'TorchRec':>10}{'ratio':>7}{'min':>7}{'max':>7}{'program s':>11}{'TorchRec':>10}")
    cases = {}
    for case, of_case in runs.items():
        columns = {
            side: {key: [one[key] for one in found] for key in found[0] if key != "test_auroc"}
            for side, found in of_case.items()
        }
        ratios = [a["samples_per_s"] / b["samples_per_s"] for a, b in zip(*of_case.values(), strict=True)]
        cases[case] = {**columns, "ratio": {"median": statistics.median(ratios), "all": ratios}}
        rates, seconds = (
            [statistics.median(columns[side][key]) for side in columns] for key in ("samples_per_s", "program_s")
        )
        print(
            f"{case:20}{rates[0]:10,.0f}{rates[1]:10,.0f}{statistics.median(ratios):7.2f}{min(ratios):7.2f}"
            f"{max(ratios):7.2f}{seconds[0]:11.1f}{seconds[1]:10.1f}"
        )
    return {"samples": arguments.speed_samples, "cases": cases}


def auroc(arguments: argparse.Namespace, programs: Programs) -> dict:
    steps = arguments.samples // AUROC_BATCH
    found: dict[str, list[float]] = {"ours": [], "torchrec": []}
    print(f"{'seed':>6}{'AUROC':>10}{'TorchRec':>10}{'difference':>12}")
    for seed in map(int, arguments.seeds.split(",")):
        flags = {
            **MODEL,
            **OPTIMIZERS["adagrad"],
            "batch_size": AUROC_BATCH,
            "seed": seed,
            "limit_train_batches": steps,
        }
        for side, run_one in (("ours", programs.ours), ("torchrec", programs.torchrec)):
            found[side].append(run_one(flags, steps)["test_auroc"])
        ours, theirs = found["ours"][-1], found["torchrec"][-1]
        print(f"{seed:6}{ours:10.5f}{theirs:10.5f}{ours - theirs:+12.5f}", flush=True)
    ours, theirs = (statistics.fmean(found[side]) for side in found)
    print(f"{'mean':>6}{ours:10.5f}{theirs:10.5f}{ours - theirs:+12.5f}")
    return {"samples": arguments.samples, "batch_size": AUROC_BATCH, "test_auroc": found, "difference": ours - theirs}


def words_of(flags: dict) -> list[str]:
    return [
        word
        for name, value in flags.items()
        for word in ([f"--{name}"] if value is True else [f"--{name}", str(value)])
    ]


def run(command: list[str]) -> tuple[float, str]:
    """The seconds of a program, and what it printed."""
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"bench/torchrec_peer.py: {' '.join(command)}\n{(done.stdout + done.stderr)[-3000:]}")
    return time.perf_counter() - start, done.stdout


if __name__ == "__main__":
    main()
