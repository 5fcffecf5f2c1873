"""TorchRec's DLRM on the CPU next to `python -m dlrm_tf2.torchrec_example`: the same files, batches, model and flags.

    python bench/torchrec_peer.py --peer PYTHON [--only speed|auroc] [--rounds 3] [--seeds 1,2,3]

PYTHON is a Python that has torch, torchrec, fbgemm-gpu-cpu and torchmetrics, in an environment of its own; without it
nothing is measured. The samples are day_N_{dense,sparse,labels}.npy with planted clicks, and 26 tables with a hundredth
of the rows of MLPerf's. Both programs get the same flags, one process and all processors.

`speed`, with the model of the published runs: samples a second by the published formula, steps a second times the
batch, without the first half of the steps; and the seconds of the whole program, with one batch of each evaluation.
The programs take turns, a ratio compares the two runs of a round, and the medians count. `auroc`, with the model of
the example's defaults: the AUROC over the test split after one epoch, for each seed; the libraries draw other initial
weights from the same distributions, but for the first layer, which has a bound for 16 inputs here and for 13 inputs
there. `torch.optim` is TorchRec's model with PyTorch's own tables and optimizers instead of FBGEMM's fused ones. The
JSON keeps the cases and seeds that a run does not measure.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from result_file import about_run

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from criteo_prep.manifest import load_manifest
from criteo_prep.synthesize import Synthesis, synthesize
from criteo_prep.synthetic import presets

ROOT = Path(__file__).resolve().parent.parent
SCALE, TEST_SAMPLES = 0.01, 262_144
ROWS = [table.cardinality for table in presets.scaled(presets.preset("mlperf_40m"), SCALE).categorical]
TABLES = {"num_embeddings_per_feature": ",".join(map(str, ROWS))}
PUBLISHED = {
    "embedding_dim": 128,
    "dense_arch_layer_sizes": "512,256,128",
    "over_arch_layer_sizes": "1024,1024,512,256,1",
}
DEFAULT = {"embedding_dim": 64, "dense_arch_layer_sizes": "512,256,64", "over_arch_layer_sizes": "512,512,256,1"}
OPTIMIZERS = {"sgd": {"learning_rate": 0.1}, "adagrad": {"adagrad": True, "learning_rate": 0.01}}
AUROC_BATCH = 2048


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--peer", metavar="PYTHON", help="a Python that has TorchRec")
    parser.add_argument("--only", choices=("speed", "auroc"))
    parser.add_argument("--optimizers", default=",".join(OPTIMIZERS))
    parser.add_argument("--batch_sizes", default="2048,8192", help="of speed")
    parser.add_argument("--rounds", type=int, default=3, help="of speed")
    parser.add_argument("--speed_samples", type=int, default=98_304, help="training samples of speed")
    parser.add_argument("--seeds", default="1,2,3", help="of auroc")
    parser.add_argument("--samples", type=int, default=524_288, help="training samples of auroc")
    parser.add_argument("--json", default=str(ROOT / "bench" / "results" / "torchrec_peer.json"))
    arguments = parser.parse_args()
    if not arguments.peer:
        print("bench/torchrec_peer.py: --peer PYTHON names a Python that has TorchRec; nothing is measured.")
        return
    path = Path(arguments.json)
    document = json.loads(path.read_text()) if path.exists() else {"speed": {}, "auroc": {}}
    about = about_run()
    with tempfile.TemporaryDirectory(prefix="bench_torchrec_peer_") as folder:
        programs = Programs(arguments.peer, Path(folder))
        document["best_auroc"] = write_days(Path(folder), samples_of(arguments))
        if arguments.only != "auroc":
            for case, found in speed(arguments, programs).items():
                document["speed"][case] = {**found, **about, "versions": programs.versions}
        if arguments.only != "speed":
            for case, found in auroc(arguments, programs).items():
                of_seeds = document["auroc"].setdefault(case, {"test_auroc": {}})["test_auroc"] | found
                document["auroc"][case] = {"test_auroc": of_seeds, **about, "versions": programs.versions}
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(f"written to {arguments.json}")


def samples_of(arguments: argparse.Namespace) -> int:
    """Training samples that the measurements need."""
    return max(
        arguments.speed_samples if arguments.only != "auroc" else 0,
        arguments.samples if arguments.only != "speed" else 0,
    )


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
        summary: dict = {}  # the last value of each key: of this run, which is the last one in the log
        for line in log.read_text().splitlines():
            summary |= json.loads(line)
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
    """Case -> what was measured in it; prints a line for each case."""
    runs: dict[str, dict[str, list[dict]]] = {}
    for _ in range(arguments.rounds):
        for optimizer in arguments.optimizers.split(","):
            for batch in map(int, arguments.batch_sizes.split(",")):
                steps = arguments.speed_samples // batch
                limits = {"limit_train_batches": steps, "limit_val_batches": 1, "limit_test_batches": 1}
                flags = {**PUBLISHED, **TABLES, **OPTIMIZERS[optimizer], **limits, "seed": 1}
                flags |= {"batch_size": batch, "test_batch_size": batch}
                of_case = runs.setdefault(f"{optimizer}, batch {batch}", {"ours": [], "torchrec": []})
                of_case["torchrec"].append(programs.torchrec(flags, steps))
                of_case["ours"].append(programs.ours(flags, steps))
    print(f"{'':20}{'samples/s':>10}{'TorchRec':>10}{'ratio':>7}{'min':>7}{'max':>7}{'program s':>11}{'TorchRec':>10}")
    cases = {}
    for case, of_case in runs.items():
        measured = {
            side: {key: [one[key] for one in of_side] for key in ("samples_per_s", "data_wait", "program_s")}
            for side, of_side in of_case.items()
        }
        rates, seconds = ([measured[side][key] for side in of_case] for key in ("samples_per_s", "program_s"))
        ratios = [ours / theirs for ours, theirs in zip(*rates, strict=True)]
        cases[case] = {**measured, "ratio": ratios, "ratio_median": statistics.median(ratios)}
        ours, theirs = map(statistics.median, rates)
        whole, whole_theirs = map(statistics.median, seconds)
        print(
            f"{case:20}{ours:10,.0f}{theirs:10,.0f}{statistics.median(ratios):7.2f}{min(ratios):7.2f}{max(ratios):7.2f}"
            f"{whole:11.1f}{whole_theirs:10.1f}"
        )
    return cases


def auroc(arguments: argparse.Namespace, programs: Programs) -> dict:
    """Optimizer -> seed -> AUROC of both programs; prints a line for each seed."""
    steps = arguments.samples // AUROC_BATCH
    found: dict[str, dict] = {}
    print(f"{'':10}{'seed':>6}{'AUROC':>10}{'torch.optim':>13}{'difference':>12}{'fused':>10}{'difference':>12}")
    for optimizer in arguments.optimizers.split(","):
        of_seeds = found[f"{optimizer}, batch {AUROC_BATCH}, {arguments.samples} samples"] = {}
        for seed in map(int, arguments.seeds.split(",")):
            flags = {**DEFAULT, **TABLES, **OPTIMIZERS[optimizer], "limit_train_batches": steps, "seed": seed}
            flags |= {"batch_size": AUROC_BATCH, "test_batch_size": 8192}
            ours = programs.ours(flags, steps)["test_auroc"]
            unfused = programs.torchrec({**flags, "unfused": True}, steps)["test_auroc"]
            fused = programs.torchrec(flags, steps)["test_auroc"]
            of_seeds[str(seed)] = {"ours": ours, "torch_optim": unfused, "torchrec": fused}
            print(
                f"{optimizer:10}{seed:6}{ours:10.5f}{unfused:13.5f}{ours - unfused:+12.5f}{fused:10.5f}"
                f"{ours - fused:+12.5f}",
                flush=True,
            )
    return found


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
