"""AUC and hit rate of trainings on raw keys, by capacity, eviction and admission, next to trainings on ids.

    python bench/dynamic_training.py [--samples 300000] [--scale 0.01] [--threshold 2] [--capacities 1,1/2,1/10]

Day files with planted clicks become two kinds of datasets of the same rows: with ids, after a pass that counts the
values (`preprocess --threshold`), and with raw keys, without it. Each training makes one pass with the same flags. A
capacity is a share of the keys that the training split has in each column. The hit rate is the share of the keys of the
test split that are stored at the end, over all columns.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
from learning import ROOT
from result_file import write_result

sys.path.insert(0, str(ROOT))

from criteo_prep.feature_spec import FeatureSpec

FLAGS = """--cpu --embedding_dim 16 --bottom_mlp_dims 64,16 --top_mlp_dims 64,32,1 --batch_size 1024
    --valid_batch_size 16384 --optimizer adagrad --learning_rate 0.05 --warmup_steps 50 --print_freq 50""".split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--samples", type=int, default=300_000)
    parser.add_argument("--scale", type=float, default=0.01)
    parser.add_argument("--threshold", type=int, default=2, help="of the ids and of --admit_after")
    parser.add_argument("--capacities", default="1,1/2,1/10", help="shares of the keys of each column")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--json", default=str(Path(__file__).parent / "results" / "dynamic_training.json"))
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench_dynamic_training_") as name:
        folder = Path(name)
        best = make_datasets(folder, arguments)
        num_keys = keys_of(folder / "keys")
        print(f"best AUC that the labels allow: {best:.4f}; {sum(num_keys)} keys in {len(num_keys)} columns")
        print(f"{'rows for':>10} {'capacity':>8} {'evict':>6} {'counted':>8} {'AUC':>8} {'hit rate':>9}", flush=True)

        def train(dataset: str, *more: str, **columns: object) -> None:
            result = trained(folder, dataset, [*more, "--seed", arguments.seed])
            rows.append({"rows_for": dataset.split("_")[0], **columns, **result})
            cells = [str(columns.get(key, "")) for key in ("capacity", "evict", "threshold")]
            rate = "" if result["hit_rate"] is None else f"{result['hit_rate']:.4f}"
            print("{:>10} {:>8} {:>6} {:>8}".format(rows[-1]["rows_for"], *cells), end=" ")
            print(f"{result['auc']:8.4f} {rate:>9}", flush=True)

        for threshold in (1, arguments.threshold):
            train(f"ids_{threshold}", threshold=threshold)
        for capacity in arguments.capacities.split(","):
            capacities = ",".join(str(math.ceil(number * Fraction(capacity))) for number in num_keys)
            for evict in ("lru", "lfu"):
                for threshold in (1, arguments.threshold):
                    flags = ["--dynamic_capacity", capacities, "--evict", evict, "--admit_after", str(threshold)]
                    # A batch may have more keys of a column than its smallest table has rows.
                    train("keys", *flags, "--safe_check", "count", capacity=capacity, evict=evict, threshold=threshold)
    document = {
        "samples": arguments.samples,
        "scale": arguments.scale,
        "flags": " ".join(FLAGS),
        "best_auc": best,
        "num_keys": sum(num_keys),
        "rows": rows,
    }
    write_result(arguments.json, document)


def make_datasets(folder: Path, arguments: argparse.Namespace) -> float:
    """Makes ids_1, ids_<threshold> and keys in the folder. Returns the best AUC of the evaluation day."""
    days = ["--layout", "criteo_tsv", "--num_samples", str(arguments.samples), "--scale", str(arguments.scale)]
    prep("synthesize", "--preset", "criteo_t15", *days, "--labels", "teacher", "--seed", "1", "--dst", folder / "days")
    logs = sorted((folder / "days").glob("day_*"))
    for threshold in {1, arguments.threshold}:
        rules = ["--threshold", threshold, "--vocabulary_days", "train"]
        prep("preprocess", "--input", *logs, "--output", folder / f"ids_{threshold}", *rules)
    prep("preprocess", "--input", *logs, "--output", folder / "keys", "--ids", "raw")
    manifest = json.loads((folder / "days" / "manifest.json").read_text())
    return manifest["splits"]["test"]["best_auc"]


def keys_of(dataset: Path) -> list[int]:
    """Different keys of the training split in each column."""
    names = FeatureSpec.load(dataset / "feature_spec.yaml").channels["categorical"]
    return [len(np.unique(np.fromfile(dataset / "train" / f"{name}.bin", np.int64))) for name in names]


def trained(folder: Path, dataset: str, flags: list[str]) -> dict[str, float | None]:
    """AUC and hit rate on the test split after a pass over a dataset."""
    log = folder / "log.json"
    log.unlink(missing_ok=True)
    spec = FeatureSpec.load(folder / dataset / "feature_spec.yaml")
    steps = (spec.root / "train" / "label.bin").stat().st_size // 1024
    schedule = ["--decay_start_step", str(max(50, steps // 2)), "--decay_steps", str(steps - steps // 2 + 2)]
    run("dlrm_tf2.dlrm", "--dataset_path", folder / dataset, *FLAGS, *schedule, *flags, "--log_path", log)
    records = [json.loads(line) for line in log.read_text().splitlines()]
    rates = [record["test_hit_rate"] for record in records if "test_hit_rate" in record]
    return {"auc": records[-1]["auc"], "hit_rate": float(np.mean(rates[-1])) if rates else None}


def prep(*arguments: object) -> None:
    run("criteo_prep", *arguments, "--quiet")


def run(module: str, *arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"bench/dynamic_training.py: {done.stderr[-2000:]}")


if __name__ == "__main__":
    main()
