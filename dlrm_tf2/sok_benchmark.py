"""The program: the DLRM benchmark of HugeCTR's sparse operation kit (SOK), on the files that split-bin writes.

python -m dlrm_tf2.sok_benchmark --data_dir DATA --global_batch_size 65536 --xla --compress --custom_interact
horovodrun -np 8 examples/hvd_wrapper.sh python3 -m dlrm_tf2.sok_benchmark --data_dir DATA --global_batch_size 65536 ...

DATA/train and DATA/test hold label.bin, dense.bin and category.bin, and DATA/train holds metadata.json. The published
flags are below; every other flag of dlrm can be given too, such as --seed or --save_checkpoint_path.
"""

import argparse
import dataclasses
import json
import math
import sys
from typing import TYPE_CHECKING, NamedTuple

from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.split_bin import dataset_spec
from dlrm_tf2 import flags
from dlrm_tf2.benchmarks.timing import markdown_table
from dlrm_tf2.config import TrainConfig, require
from dlrm_tf2.job.planning import data_shape_of
from dlrm_tf2.job.program import connected_ranks, run_program
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.runtime.process import Launch, Runtime

if TYPE_CHECKING:
    from dlrm_tf2.job.start import Job
    from dlrm_tf2.runtime.comm import Comm

_PUBLISHED_BATCH = 55296
_PUBLISHED_STEPS = {"warmup_steps": 2750, "decay_start_step": 49315, "decay_steps": 27772}  # at _PUBLISHED_BATCH
_EVALUATIONS_PER_EPOCH = 20  # one every 5 % of an epoch: 3793 steps of _PUBLISHED_BATCH on the published data
_SYNTHETIC_STEPS = 30
_LOSS_SCALE = 1024.0

# Flag of dlrm -> the flag that decides it here.
_DECIDED_BY = {
    "dataset_path": "data_dir",
    "feature_spec": "data_dir",
    "dataset_type": "use_synthetic_dataset",
    "synthetic_dataset_train_batches": "early_stop",
    "synthetic_dataset_valid_batches": "early_stop",
    "batch_size": "global_batch_size",
    "max_steps": "early_stop",
    "learning_rate": "lr",
    "dedup_ids": "compress",
    "interaction": "custom_interact",
    "interaction_op": "custom_interact",
    "eval_every": "eval_in_last",
    "evals_per_epoch": "eval_in_last",
    "optimizer_name": "optimizer",
}
_HEADER = (
    "batch size", "exit criteria", "frequent of evaluation", "xla", "custom interact", "amp", "compress",
    "training time (minutes)", "evaluating time (minutes)", "total time (minutes)", "average time of iteration (ms)",
    "throughput(samples/second)",
)  # fmt: skip


class Benchmark(NamedTuple):
    """A run of the benchmark.

    Attributes:
      published: the published flags, by name.
      config: the run.
      spec: feature spec of the data.
      model: the shape of the model.
      auc_exit: the AUC above which training ends; None where only the end is evaluated.
    """

    published: argparse.Namespace
    config: TrainConfig
    spec: FeatureSpec
    model: ModelConfig
    auc_exit: float | None


def main(arguments: list[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    return run_program("sok_benchmark", lambda: prepare(sys.argv[1:] if arguments is None else arguments), _run)


def prepare(arguments: list[str]) -> Benchmark:
    """Reads the command line and metadata.json.

    Raises:
      ConfigError: a flag does not exist, or its value is not allowed.
      ValueError: the data is missing, or contradicts itself.
    """
    published, others = _parser().parse_known_args(flags.with_underscores(arguments))
    for name in (word.lstrip("-").partition("=")[0] for word in others if word.startswith("--")):
        require(name not in _DECIDED_BY, f"--{name}: --{_DECIDED_BY.get(name)} decides this here. Leave it out.")
        require(
            name != "auc_threshold" or not published.eval_in_last,
            "--auc_threshold and --eval_in_last: only the end is evaluated. Leave one of them out.",
        )
    _check(published)
    spec = _spec_of(published)
    config = flags.parse(others, "sok_benchmark", _defaults_of(published))
    require(config.mode == "train", f"--mode {config.mode}: this program trains. Use dlrm for the other modes.")
    auc_exit = None if published.eval_in_last else config.auc_threshold
    is_default_scale = config.loss_scale == TrainConfig.loss_scale
    config = dataclasses.replace(
        config,
        loss_scale=_LOSS_SCALE if config.amp and is_default_scale else config.loss_scale,
        # Training ends above the threshold, not at it.
        auc_threshold=None if auc_exit is None else math.nextafter(auc_exit, 1.0),
        eval_every=_steps_between_evaluations(published, config, spec),
    )
    return Benchmark(published, config, spec, model=ModelConfig.of(config, spec), auc_exit=auc_exit)


def _run(benchmark: Benchmark, launch: Launch) -> None:
    with connected_ranks(launch, benchmark.config) as (device, comm):
        measure(benchmark, launch, device=device, comm=comm)


def measure(benchmark: Benchmark, launch: Launch, *, device: Runtime, comm: "Comm") -> "Job":
    """Trains, and prints the row of the published table. Returns the trained job."""
    from dlrm_tf2.job.start import RunContext, start_job  # starts TensorFlow, which connected_ranks prepares

    context = RunContext(benchmark.config, benchmark.spec, launch=launch, device=device, comm=comm)
    job = start_job(context, benchmark.model)
    for line in _notes(benchmark, comm.size):
        job.log.say(line)
    record = _record(benchmark, job.run(), ranks=comm.size, device=device.device)
    job.log.say(markdown_table(_HEADER, [_row(record)]))
    job.log.say(json.dumps(record))
    return job


def _check(published: argparse.Namespace) -> None:
    size, stop = published.global_batch_size, published.early_stop
    require(published.data_dir, "--data_dir is missing. Name the folder with train/metadata.json.")
    require(size is not None, "--global_batch_size is missing. Give the samples of a step, all ranks together.")
    require(size >= 1, f"--global_batch_size is {size}; it must be at least 1.")
    require(stop == -1 or stop >= 1, f"--early_stop is {stop}; use -1 for no limit, or at least 1.")
    require(published.lr > 0, f"--lr is {published.lr}; it must be positive.")
    require(
        not (published.use_splited_dataset and published.use_synthetic_dataset),
        "--use_splited_dataset and --use_synthetic_dataset: the data is one or the other. Leave one of them out.",
    )


def _spec_of(published: argparse.Namespace) -> FeatureSpec:
    if published.use_synthetic_dataset:
        return dataset_spec.spec_of_sizes(published.data_dir, alpha=0.0)
    if published.use_splited_dataset:
        return dataset_spec.spec_of_files_per_table(published.data_dir)
    return dataset_spec.spec_of_columns(published.data_dir)


def _defaults_of(published: argparse.Namespace) -> dict[str, object]:
    """The flags of dlrm that the published flags decide, and the defaults of this program."""
    size, stop, synthetic = published.global_batch_size, published.early_stop, {}
    if published.use_synthetic_dataset:
        steps = stop if stop > 0 else _SYNTHETIC_STEPS
        synthetic = {f"synthetic_dataset_{split}_batches": steps for split in ("train", "valid")}
        synthetic["dataset_type"] = "synthetic"
    return {
        **synthetic,
        "dataset_path": published.data_dir,
        "batch_size": size,
        "valid_batch_size": size,
        "drop_last": True,
        "epochs": 1,
        "max_steps": stop,
        "learning_rate": published.lr,
        **{name: int(steps * _PUBLISHED_BATCH / size) for name, steps in _PUBLISHED_STEPS.items()},
        "lr_policy": "published",
        "data_parallel_input": True,
        "dedup_ids": "on" if published.compress else "off",
        "interaction_op": "native" if published.custom_interact else "tensorflow",
        "auc_thresholds": 8000,
        "auc_threshold": 0.8025,
        "log_path": None,
        "print_freq": 1000,
    }


def _steps_between_evaluations(published: argparse.Namespace, config: TrainConfig, spec: FeatureSpec) -> int:
    """Steps of 5 % of an epoch; more than any run has where only the end is evaluated."""
    synthetic_samples = config.synthetic_dataset_train_batches * config.batch_size
    num_samples = data_shape_of(config, spec).num_samples.get("train", synthetic_samples)
    require(
        num_samples >= config.batch_size,
        f"{published.data_dir}/train: holds {num_samples} samples, fewer than --global_batch_size {config.batch_size}. "
        "Lower it.",
    )
    if published.eval_in_last:
        return 1 << 62
    return max(1, num_samples // config.batch_size // _EVALUATIONS_PER_EPOCH)


def _notes(benchmark: Benchmark, num_ranks: int) -> list[str]:
    """What this program does otherwise than the published one, as lines for the user."""
    config, published = benchmark.config, benchmark.published
    convention = "gradients: of the mean loss over the global batch, tables included; "
    if config.sok_gradients:
        convention = f"gradients: {num_ranks} times larger in the tables (--sok_gradients); "
    notes = [
        convention + "in the published benchmark tables learn world_size times faster, which --sok_gradients does",
        f"learning rate: published schedule for batch {config.batch_size}: {config.warmup_steps} steps of warm-up, "
        f"decay from step {config.decay_start_step} in {config.decay_steps} steps, then 0 (published: it rises again)",
        "first weights: as in dlrm, tables uniform in +-sqrt(1/rows) (published: +-0.05)",
    ]
    if published.compress and num_ranks == 1:
        notes.append("--compress does nothing here: with one rank no ids travel")
    return notes


def _record(benchmark: Benchmark, summary: dict, *, ranks: int, device: str) -> dict:
    """The row of the published table in numbers, and what it does not say."""
    config, published, steps = benchmark.config, benchmark.published, summary["steps"]
    training_s = summary["total_s"] - summary["evaluating_s"]
    return {
        "batch_size": config.batch_size,
        "exit_criterion": _exit_criterion(benchmark, summary),
        "eval_every": None if published.eval_in_last else config.eval_every,
        "xla": config.xla,
        "custom_interact": published.custom_interact,
        "amp": config.amp,
        "compress": published.compress,
        "training_min": training_s / 60,
        "evaluating_min": summary["evaluating_s"] / 60,
        "total_min": summary["total_s"] / 60,
        "iteration_ms": 1e3 * training_s / max(1, steps),
        "samples_per_s": steps * config.batch_size / training_s,
        "iterations": steps,
        "auc": summary.get("auc"),
        "sok_gradients": config.sok_gradients,
        "ranks": ranks,
        "device": device,
    }


def _exit_criterion(benchmark: Benchmark, summary: dict) -> str:
    config = benchmark.config
    if benchmark.auc_exit is not None:
        reached = (summary.get("auc") or 0.0) > benchmark.auc_exit
        return f"AUC > {benchmark.auc_exit:g}" + ("" if reached else " (not reached)")
    if summary["steps"] == config.max_steps:
        return f"{config.max_steps} iterations"
    return f"{config.epochs} epoch" + ("s" if config.epochs != 1 else "")


def _row(record: dict) -> list[str]:
    """The cells of the published table."""
    samples_per_s = record["samples_per_s"]
    return [
        str(record["batch_size"]),
        record["exit_criterion"],
        f"every {record['eval_every']} steps" if record["eval_every"] else "at end",
        *("yes" if record[flag] else "no" for flag in ("xla", "custom_interact", "amp", "compress")),
        *(f"{record[minutes]:.2f}" for minutes in ("training_min", "evaluating_min", "total_min")),
        f"{record['iteration_ms']:.2f}",
        f"{samples_per_s / 1e6:.2f}M" if samples_per_s >= 1e5 else f"{samples_per_s:.0f}",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = flags.Parser(prog="sok_benchmark", description=__doc__, allow_abbrev=False,
                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = parser.add_argument
    add("--data_dir", help="folder with train/ and test/")
    add("--global_batch_size", type=int, help="samples of a step, all ranks together")
    add("--compress", action="store_true", help="each rank fetches every row once a step, however often its ids repeat")
    add("--custom_interact", action="store_true", help="the native op of the dot interaction; without it TensorFlow's")
    add("--eval_in_last", action="store_true", help="evaluate after the last step only, and never end early")
    add("--early_stop", type=int, default=-1, help="steps after which training ends; -1 for no limit")
    add("--use_splited_dataset", action="store_true", help="read category_0.bin, category_1.bin, ...")
    add(
        "--use_synthetic_dataset",
        action="store_true",
        help=f"make {_SYNTHETIC_STEPS} steps of samples, or as many as --early_stop says, by the sizes in "
        "metadata.json",
    )
    add("--lr", type=float, default=24.0, help="learning rate after the warm-up (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
