"""AUC on teacher data with each optimizer, precision and number of ranks, in one table.

    python bench/training_auc.py [--samples 1000000] [--optimizers sgd,adam] [--ranks 1,2]

One pass over T15-shaped data with planted clicks, whose best AUC is known. Seed and samples are the same in every run,
so the AUCs of one optimizer should agree for all precisions and numbers of ranks. Two ranks need Horovod.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from programs import run
from result_file import write_result

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from criteo_prep.manifest import load_manifest
from criteo_prep.synthesize import Synthesis, synthesize

BATCH_SIZE = 1024
MODEL = f"""--cpu --embedding_dim 16 --bottom_mlp_dims 64,16 --top_mlp_dims 64,32,1 --batch_size {BATCH_SIZE}
    --valid_batch_size 65536 --warmup_steps 100 --seed 1""".split()
OPTIMIZERS = {
    "sgd": "--optimizer sgd --learning_rate 0.5".split(),
    "adagrad": "--optimizer adagrad --learning_rate 0.05".split(),
    "rowwise_adagrad": "--optimizer rowwise_adagrad --learning_rate 0.05".split(),
    "adam": "--optimizer adam --learning_rate 0.001".split(),
}
PRECISIONS = {
    "float32": [],
    "float32, XLA": ["--xla"],
    "bfloat16": ["--amp"],
    "bfloat16, XLA": ["--amp", "--xla"],
    "float16": ["--amp", "--amp_dtype", "float16", "--loss_scaling", "dynamic"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--optimizers", default=",".join(OPTIMIZERS))
    parser.add_argument("--ranks", default="1,2")
    parser.add_argument("--json", default=str(Path(__file__).parent / "results" / "training_auc.json"))
    arguments = parser.parse_args()
    ranks = [int(number) for number in arguments.ranks.split(",")]
    rows = []
    with tempfile.TemporaryDirectory(prefix="bench_training_auc_") as folder:
        request = Synthesis("criteo_t15", arguments.samples, scale=0.01, seed=1, labels="teacher")
        synthesize(request, Path(folder, "set"), quiet=True)
        best = load_manifest(Path(folder, "set"))["splits"]["test"]["best_auc"]
        print(f"best AUC that the labels allow: {best:.4f}")
        print(f"{'optimizer':16} {'precision':18}" + "".join(f"{number:6} ranks" for number in ranks), flush=True)
        for optimizer in arguments.optimizers.split(","):
            for precision in PRECISIONS:
                aucs = {number: auc(Path(folder), arguments.samples, optimizer, precision, number) for number in ranks}
                rows.append({"optimizer": optimizer, "precision": precision, "auc": aucs})
                print(f"{optimizer:16} {precision:18}" + "".join(f"{auc:12.5f}" for auc in aucs.values()), flush=True)
    for optimizer in arguments.optimizers.split(","):
        found = [auc for row in rows if row["optimizer"] == optimizer for auc in row["auc"].values()]
        print(f"{optimizer}: {min(found):.5f} to {max(found):.5f}, apart by {max(found) - min(found):.5f}")
    document = {
        "samples": arguments.samples,
        "flags": " ".join(MODEL),
        "best_auc": best,
        "rows": rows,
    }
    write_result(arguments.json, document)


def auc(folder: Path, samples: int, optimizer: str, precision: str, ranks: int) -> float:
    """The AUC after one pass."""
    return auc_of(folder, samples, [*OPTIMIZERS[optimizer], *PRECISIONS[precision]], ranks=ranks)


def auc_of(folder: Path, samples: int, flags: list[str], ranks: int = 1) -> float:
    """Trains for one pass over the dataset folder/set, with these flags too; returns the last AUC."""
    steps = -(-samples // BATCH_SIZE)
    schedule = ["--decay_start_step", str(max(100, steps // 2)), "--decay_steps", str(steps - steps // 2 + 1)]
    files = ["--dataset_path", str(folder / "set"), "--log_path", str(folder / "log.json")]
    run(["python", "-m", "dlrm_tf2.dlrm", *files, *MODEL, *schedule, *flags], ranks)
    return json.loads((folder / "log.json").read_text().splitlines()[-1])["auc"]


if __name__ == "__main__":
    main()
