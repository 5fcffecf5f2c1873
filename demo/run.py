"""`make demo`: the whole way from click logs to an evaluated model, small, with the commands that a user would type.

Makes day files in Criteo's form with planted clicks, preprocesses them, trains DLRM on two processes, evaluates the saved
checkpoint, measures inference, and sums up. Everything lands in demo_data/; data made before is used again.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
DATA = Path("demo_data")  # relative, so that the commands shown are those to type
NUM_PROCESSES = 2

SYNTHESIZE = """criteo-prep synthesize --layout criteo_tsv --preset criteo_t15_synthetic --scale 0.01 --num_samples 400000
    --num_days 3 --labels teacher --seed 1 --dst demo_data/days"""
PREPROCESS = "criteo-prep preprocess --input demo_data/days --output demo_data/dataset --threshold 3"
MODEL = """python -m dlrm_tf2.dlrm --cpu --dataset_path demo_data/dataset --embedding_dim 16 --bottom_mlp_dims 64,16
    --top_mlp_dims 64,32,1 --batch_size 2048 --valid_batch_size 8192 --seed 1"""
TRAIN = """--mode train --epochs 2 --learning_rate 1 --warmup_steps 20 --decay_start_step 200 --decay_steps 100 --print_freq 20
    --save_checkpoint_path demo_data/checkpoint --log_path demo_data/train.jsonl"""
EVALUATE = "--mode eval --restore_checkpoint_path demo_data/checkpoint --log_path demo_data/eval.jsonl"
INFERENCE = """--mode inference --max_steps 200 --restore_checkpoint_path demo_data/checkpoint
    --log_path demo_data/inference.jsonl"""


def main() -> None:
    """Runs every step; ends with the exit code of the first one that fails."""
    start = time.monotonic()
    os.chdir(ROOT)
    DATA.mkdir(exist_ok=True)
    several = launcher()
    remade = make("a synthetic log in Criteo's form, three days of it", SYNTHESIZE, DATA / "days")
    make("preprocessing it", PREPROCESS, DATA / "dataset", again=remade)
    remove(DATA / "checkpoint")
    run(f"training, {describe(several)}", f"{several} {MODEL} {TRAIN}")
    run("evaluating the saved checkpoint", f"{several} {MODEL} {EVALUATE}")
    run("measuring inference", f"{MODEL} {INFERENCE}")
    print(summary(several, time.monotonic() - start))


def launcher() -> str:
    """How several processes are started here, as set-up found out; empty where one has to do."""
    kind = (ROOT / ".venv" / "launcher").read_text().strip()
    return "" if kind == "none" else f"horovodrun -np {NUM_PROCESSES} -H localhost:{NUM_PROCESSES} --{kind}"


def describe(several: str) -> str:
    return f"{NUM_PROCESSES} processes" if several else "one process (Horovod was left out)"


def make(what: str, command: str, folder: Path, again: bool = False) -> bool:
    """Runs a command that writes `folder`, unless the same command has; returns whether it ran."""
    receipt = folder.with_suffix(".made_by")
    if not again and folder.is_dir() and receipt.is_file() and receipt.read_text() == command:
        print(f"\n== {what}: {folder} is there already", flush=True)
        return False
    receipt.unlink(missing_ok=True)
    remove(folder)
    run(what, command)
    receipt.write_text(command)
    return True


def remove(folder: Path) -> None:
    assert folder.parent == DATA
    shutil.rmtree(folder, ignore_errors=True)


def run(what: str, command: str) -> None:
    words = shlex.split(command)
    print(f"\n== {what}\n$ {shlex.join(words)}", flush=True)
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    if os.geteuid() == 0:  # without these Open MPI starts nothing for root
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    start = time.monotonic()
    code = subprocess.run(words, env=environment).returncode
    if code:
        sys.exit(f"demo: this command failed (exit code {code}): {shlex.join(words)}")
    print(f"   {time.monotonic() - start:.0f} s", flush=True)


def last_record(log: str, key: str) -> dict:
    """The last line of a log of the trainer that has `key`."""
    records = [json.loads(line) for line in (DATA / log).read_text().splitlines()]
    return [record for record in records if key in record][-1]


def summary(several: str, seconds: float) -> str:
    """The table at the end, from the files that the steps have left."""
    made, dataset = (json.loads((DATA / folder / "manifest.json").read_text()) for folder in ("days", "dataset"))
    rows = {split: entry["num_samples"] for split, entry in dataset["splits"].items()}
    trained, inference = last_record("train.jsonl", "throughput"), last_record("inference.jsonl", "mean_inference_throughput")
    lines = {
        "rows in": f"{sum(rows.values()):,} ({', '.join(f'{split} {count:,}' for split, count in rows.items())})",
        "trained on": describe(several),
        "training": f"{trained['throughput']:,.0f} samples/s, {trained['mean_step_time_ms']:.1f} ms a step",
        "inference": f"{inference['mean_inference_throughput']:,.0f} samples/s, one process",
        "AUC": f"{last_record('eval.jsonl', 'auc')['auc']:.4f} (best that can be reached: {made['best_auc']:.4f}; guessing: 0.5)",
        "files": "demo_data/: days, dataset, checkpoint, train.jsonl, eval.jsonl, inference.jsonl",
        "time": f"{seconds:.0f} s",
    }
    return "\n== the demo in short\n" + "\n".join(f"   {name:<14} {value}" for name, value in lines.items())


if __name__ == "__main__":
    main()
