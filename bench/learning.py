"""Does DLRM learn? Its AUC on teacher data whose best AUC is known, next to logistic regression and shuffled labels.

    python bench/learning.py [--samples 4000000] [--scale 0.01]

The data are T15-shaped with planted clicks. Each model makes one pass from random initial weights, on the CPU. The
logistic regression (scikit-learn, one-hot ids and numericals, averaged SGD) reaches what a sum over columns can
express; it runs with three learning rates, and the best AUC on the test split counts, which favours it. The third model
is the same DLRM on the same rows with shuffled labels: it must learn nothing.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from result_file import write_result
from scipy.sparse import csr_matrix
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss, roc_auc_score

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from criteo_prep.batch import Batch
from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.manifest import load_manifest
from criteo_prep.synthesize import Synthesis, synthesize
from criteo_prep.transcribe.tf_raw import Reader

ROOT = Path(__file__).resolve().parent.parent
DLRM = """--cpu --embedding_dim 16 --bottom_mlp_dims 64,16 --top_mlp_dims 64,32,1 --batch_size 2048
    --valid_batch_size 65536 --optimizer adagrad --learning_rate 0.05 --warmup_steps 100 --seed 1""".split()
BATCH_SIZE = 2048
RATES = (0.003, 0.01, 0.03)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--samples", type=int, default=4_000_000)
    parser.add_argument("--scale", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", help="where the temporary files go")
    parser.add_argument("--json", default=str(Path(__file__).parent / "results" / "learning.json"))
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench_learning_", dir=arguments.folder))
    try:
        request = Synthesis(
            "criteo_t15", arguments.samples, scale=arguments.scale, seed=arguments.seed, labels="teacher"
        )
        synthesize(request, folder / "set", quiet=True)
        best = load_manifest(folder / "set")["splits"]["test"]
        rows = {"the teacher itself": (best["best_auc"], best["best_log_loss"], 0.0)}
        rows["DLRM"] = dlrm(folder / "set", folder, arguments.samples)
        rows["logistic regression"] = logistic_regression(folder / "set")
        shuffle_labels(folder / "set")
        rows["DLRM, labels shuffled"] = dlrm(folder / "set", folder, arguments.samples)
    finally:
        shutil.rmtree(folder)
    print(f"{'model':24} {'AUC':>8} {'below best':>11} {'log loss':>9} {'seconds':>8}")
    for name, (auc, loss, seconds) in rows.items():
        print(f"{name:24} {auc:8.4f} {best['best_auc'] - auc:11.4f} {loss:9.4f} {seconds:8.1f}")
    document = {
        "samples": arguments.samples,
        "scale": arguments.scale,
        "flags": " ".join(DLRM),
        "models": {name: {"auc": auc, "log_loss": loss, "seconds": s} for name, (auc, loss, s) in rows.items()},
    }
    write_result(arguments.json, document)


def dlrm(dataset: Path, folder: Path, samples: int) -> tuple[float, float, float]:
    """One pass. Returns AUC and log loss on the test split, and seconds from the program's start to its end."""
    steps = -(-samples // BATCH_SIZE)
    schedule = ["--decay_start_step", str(max(100, steps // 2)), "--decay_steps", str(steps - steps // 2 + 1)]
    command = [
        sys.executable,
        "-m",
        "dlrm_tf2.dlrm",
        "--dataset_path",
        str(dataset),
        *DLRM,
        *schedule,
        "--log_path",
        str(folder / "log.json"),
    ]
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"bench/learning.py: {done.stderr[-2000:]}")
    summary = json.loads((folder / "log.json").read_text().splitlines()[-1])
    return summary["auc"], summary["validation_loss"], seconds


def logistic_regression(dataset: Path) -> tuple[float, float, float]:
    """One pass of SGD over one-hot ids and numericals. Returns as dlrm does, with the time for one learning rate."""
    spec = FeatureSpec.load(dataset / "feature_spec.yaml")
    starts = np.cumsum([len(spec.numerical), *(feature.cardinality for feature in spec.categorical)])
    with Reader(dataset, spec, split="test") as reader:
        test = reader.read(0, reader.num_samples)
    models = [
        SGDClassifier(loss="log_loss", penalty=None, learning_rate="constant", eta0=rate, average=True, random_state=0)
        for rate in RATES
    ]
    start = time.perf_counter()
    with Reader(dataset, spec, split="train") as reader:
        for batch in reader.batches(1 << 18):
            features = one_hot(batch, starts)
            for model in models:
                model.partial_fit(features, batch.label, classes=[False, True])
    seconds = (time.perf_counter() - start) / len(models)
    features = one_hot(test, starts)
    scores = [model.predict_proba(features)[:, 1] for model in models]
    auc, loss = max((roc_auc_score(test.label, score), log_loss(test.label, score)) for score in scores)
    return auc, loss, seconds


def one_hot(batch: Batch, starts: np.ndarray) -> csr_matrix:
    """Numericals (uniform on [0, 1), shifted to mean 0), then one column per id."""
    rows, numericals = batch.numerical.shape
    ids = [column.values + start for column, start in zip(batch.categorical.values(), starts[:-1], strict=True)]
    columns = np.concatenate([np.tile(np.arange(numericals), (rows, 1)), np.stack(ids, axis=1)], axis=1)
    values = np.ones(columns.shape)
    values[:, :numericals] = batch.numerical.astype(np.float64) - 0.5
    places = np.arange(0, columns.size + 1, columns.shape[1])
    return csr_matrix((values.reshape(-1), columns.reshape(-1), places), shape=(rows, int(starts[-1])))


def shuffle_labels(dataset: Path) -> None:
    """Gives every row of both splits the label of a random row."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        path = dataset / split / "label.bin"
        generator.permutation(np.fromfile(path, np.bool_)).tofile(path)


if __name__ == "__main__":
    main()
