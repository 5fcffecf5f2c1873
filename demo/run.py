"""`make demo`: the whole way from click logs to an evaluated model, small, with the commands that a user would type.

Makes day files in Criteo's form with planted clicks, preprocesses them, trains DLRM on two processes, evaluates the
saved checkpoint, measures inference, and prints a summary. All files are in demo_data/; existing data is used again.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from criteo_prep.feature_spec import FeatureSpec

ROOT = Path(__file__).resolve().parent.parent
DATA = Path("demo_data")  # relative, so that the commands shown are those to type
NUM_PROCESSES = 2

SYNTHESIZE = """criteo-prep synthesize --layout criteo_tsv --preset criteo_t15_synthetic --scale 0.01
    --num_samples 1000000 --num_test_samples 200000 --num_days 3 --labels teacher --seed 1 --dst demo_data/days"""
PREPROCESS = "criteo-prep preprocess --input demo_data/days --output demo_data/dataset --threshold 3"
# The published widths and schedule are for hours of training; these are for one minute.
DLRM = """python -m dlrm_tf2.dlrm --cpu --dataset_path demo_data/dataset --embedding_dim 16 --bottom_mlp_dims 64,16
    --top_mlp_dims 64,32,1 --batch_size 1024 --valid_batch_size 8192 --seed 1"""
TRAIN = """--epochs 2 --learning_rate 2 --warmup_steps 100 --decay_start_step 1100 --decay_steps 854 --print_freq 200
    --save_checkpoint_path demo_data/checkpoint --log_path demo_data/train.jsonl"""
EVALUATE = "--mode eval --restore_checkpoint_path demo_data/checkpoint --log_path demo_data/eval.jsonl"
INFERENCE = "--mode inference --restore_checkpoint_path demo_data/checkpoint --log_path demo_data/inference.jsonl"


def main() -> None:
    """Runs every step; exits when a step fails."""
    start = time.monotonic()
    os.chdir(ROOT)
    DATA.mkdir(exist_ok=True)
    several = launcher()
    remade = make("a synthetic click log in Criteo's form, three days of it", SYNTHESIZE, DATA / "days")
    make("preprocessing it", PREPROCESS, DATA / "dataset", again=remade)
    remove(DATA / "checkpoint")
    run(f"training on {describe(several)}", f"{several} {DLRM} {TRAIN}")
    run("evaluating the saved checkpoint", f"{several} {DLRM} {EVALUATE}")
    run("measuring inference", f"{DLRM} {INFERENCE}")
    print(summary(several, time.monotonic() - start))


def launcher() -> str:
    """The first words of a command that starts several processes, as set-up chose them; "" for one process."""
    kind = (ROOT / ".venv" / "launcher").read_text().strip()
    return "" if kind == "none" else f"horovodrun -np {NUM_PROCESSES} -H localhost:{NUM_PROCESSES} --{kind}"


def describe(several: str) -> str:
    """The processes that the launcher starts, in words."""
    return f"{NUM_PROCESSES} processes ({several.split('--')[-1]})" if several else "one process (Horovod was left out)"


def make(what: str, command: str, folder: Path, again: bool = False) -> bool:
    """Runs a command that writes `folder`, unless the same command has written it; returns whether it ran."""
    receipt = folder.with_suffix(".made_by")
    if not again and folder.is_dir() and receipt.is_file() and receipt.read_text() == command:
        print(f"\n== {what}: {folder} exists", flush=True)
        return False
    receipt.unlink(missing_ok=True)
    remove(folder)
    run(what, command)
    receipt.write_text(command)
    return True


def remove(folder: Path) -> None:
    """Removes a folder of an earlier demo."""
    assert folder.parent == DATA, folder
    shutil.rmtree(folder, ignore_errors=True)


def run(what: str, command: str) -> None:
    """Shows a command, runs it with the programs of .venv, and says how long it took; ends the demo if it fails."""
    words = shlex.split(command)
    print(f"\n== {what}\n$ {shlex.join(words)}", flush=True)
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}"}
    start = time.monotonic()
    if words[0] == "horovodrun":
        code = run_without_tags(words, environment)
    else:
        code = subprocess.run(words, env=environment).returncode
    if code:
        sys.exit(f"demo: this command failed (exit code {code}): {shlex.join(words)}")
    print(f"   {time.monotonic() - start:.0f} s", flush=True)


def run_without_tags(words: list[str], environment: dict[str, str]) -> int:
    """Runs a launcher and removes its `[1,0]<stdout>:` from the lines; returns the exit code."""
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(words, env=environment, stdout=pipe, stderr=both, text=True) as launched:
        for line in launched.stdout:
            print(re.sub(r"\[[\d,]+\]<std(out|err)>: ?", "", line), end="", flush=True)
    return launched.returncode


def record(log: str, key: str) -> dict:
    """The last record with `key` in a log of the trainer."""
    lines = [json.loads(line) for line in (DATA / log).read_text().splitlines()]
    return [line for line in lines if key in line][-1]


def summary(several: str, seconds: float) -> str:
    """The table at the end, made from the files of the steps."""
    days, dataset = (json.loads((DATA / folder / "manifest.json").read_text()) for folder in ("days", "dataset"))
    rows = {split: entry["num_samples"] for split, entry in dataset["splits"].items()}
    spec = FeatureSpec.load(DATA / "dataset" / "feature_spec.yaml")
    cardinalities = [feature.cardinality for feature in spec.categorical]
    trained, inferred = record("train.jsonl", "throughput"), record("inference.jsonl", "mean_inference_throughput")
    best_auc = days["splits"]["test"]["best_auc"]
    lines = {
        "rows in": f"{sum(rows.values()):,} ({', '.join(f'{split} {count:,}' for split, count in rows.items())})",
        "cardinalities": f"{' '.join(str(rows) for rows in cardinalities)} (in all {sum(cardinalities):,})",
        "training": f"{trained['throughput']:,.0f} samples/s on {describe(several)}, "
        f"{trained['mean_step_time_ms']:.1f} ms a step",
        "inference": f"{inferred['mean_inference_throughput']:,.0f} samples/s on one process, "
        f"{1e3 * inferred['mean_inference_latency']:.1f} ms a batch",
        "AUC": f"{record('eval.jsonl', 'auc')['auc']:.4f} (best possible {best_auc:.4f}, guessing 0.5)",
        "files": ", ".join(str(path) for path in sorted(DATA.iterdir()) if path.suffix != ".made_by"),
        "time": f"{seconds:.0f} s",
    }
    return "\n== the demo in short\n" + "\n".join(f"   {name:<14} {value}" for name, value in lines.items())


if __name__ == "__main__":
    main()
