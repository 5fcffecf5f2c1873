"""The program: TorchRec's DLRM example with its flags, on its files in place or on random samples.

python -m dlrm_tf2.torchrec_example [--in_memory_binary_criteo_path DIR] [--preset mlperf --scale 0.001] ...
horovodrun -np 2 python -m dlrm_tf2.torchrec_example ...
"""

import argparse
import sys
from dataclasses import dataclass

from dlrm_tf2 import torchrec_flags
from dlrm_tf2.benchmarks.torchrec import INTERACTIONS, PRESETS, in_published_names
from dlrm_tf2.config import ConfigError, TrainConfig, require
from dlrm_tf2.data.day_files import NUM_CATEGORICAL, FoldedIds
from dlrm_tf2.data.provided import ProvidedSpec
from dlrm_tf2.data.torchrec_data import RANDOM_BATCHES, DataRequest, provided_spec
from dlrm_tf2.job import planning
from dlrm_tf2.job.program import connected_ranks, run_program
from dlrm_tf2.logs.run_observer import RunObserver
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.runtime import terminal
from dlrm_tf2.runtime.process import Launch

PROGRAM = "torchrec_example"


@dataclass(frozen=True)
class Prepared:
    """A run: the flags, and what they mean to the trainer."""

    values: argparse.Namespace
    config: TrainConfig
    spec: ProvidedSpec
    model: ModelConfig
    folded: FoldedIds


def main(arguments: list[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    return run_program(PROGRAM, lambda: prepare(words, Launch.detect().world_size), _run)


def prepare(arguments: list[str], world_size: int) -> Prepared:
    """What a command line asks of a number of ranks.

    Raises:
      ValueError: a flag does not exist, has a wrong value, or contradicts another flag or the files.
    """
    values = torchrec_flags.parse(arguments, PROGRAM)
    require(0 < values.scale, f"--scale is {values.scale}; it must be positive.")
    if values.plan_only:
        world_size = values.world_size or (PRESETS[values.preset][0] if values.preset else world_size)
    try:
        config = _config(values, world_size)
    except ConfigError as error:
        raise ConfigError(in_published_names(str(error))) from None
    folded = FoldedIds()
    spec = provided_spec(_request(values, config), folded)
    return Prepared(values, config, spec=spec, model=ModelConfig.of(config, spec), folded=folded)


def _run(prepared: Prepared, launch: Launch) -> None:
    values, config, spec = prepared.values, prepared.config, prepared.spec
    if launch.rank == 0 and (values.plan_only or values.print_sharding_plan):
        world_size = config.batch_size // values.batch_size
        print(planning.report_of(config, prepared.model, spec=spec, world_size=world_size), flush=True)
    if values.plan_only:
        return
    if launch.rank == 0:
        if values.pin_memory:
            terminal.say("--pin_memory does nothing here: TensorFlow pins memory itself where a GPU is used")
        terminal.say(f"data: {spec.source}; {', '.join(f'{name} {rows}' for name, rows in spec.num_samples.items())}")
    with connected_ranks(launch, config) as (device, comm):
        from dlrm_tf2.job.start import RunContext, start_job  # starts TensorFlow, which connected_ranks prepares

        context = RunContext(config, spec, launch=launch, device=device, comm=comm, observers=(PublishedWords(),))
        try:
            summary = start_job(context, prepared.model).run()
        except ValueError as error:
            raise type(error)(in_published_names(str(error))) from None
        counts = comm.allgather_object(prepared.folded.counts, name="folded_ids")
    if launch.rank == 0:
        report(prepared, summary, counts=counts)


class PublishedWords(RunObserver):
    """Prints the result of an evaluation as TorchRec's example does."""

    def evaluated(self, split: str, auc: float | None, *, num_samples: int, epoch: float) -> None:
        stage = {"validation": "val", "test": "test"}[split]
        terminal.say(f"AUROC over {stage} set: {auc}.\nNumber of {stage} samples: {num_samples}")

    def scored_final_split(self, split: str, auc: float | None, num_samples: int) -> None:
        self.evaluated(split, auc, num_samples=num_samples, epoch=0.0)


def report(prepared: Prepared, summary: dict, *, counts: list[dict[str, tuple[int, int]]]) -> None:
    """Prints the throughput by the published formula, and which ids were taken modulo the rows of their table.

    Args:
      prepared: the run.
      summary: what the training returned.
      counts: FoldedIds.counts of every rank.
    """
    rate, local = 1e3 / summary["mean_step_time_ms"], prepared.values.batch_size
    ranks = prepared.config.batch_size // local
    terminal.say(
        f"throughput: {rate:.3f} it/s x {local} samples x {ranks} ranks = {rate * local * ranks:,.0f} samples/s"
    )
    for feature in prepared.spec.categorical:
        of_ranks = [count[feature.name] for count in counts if feature.name in count]
        folded, num_ids = (sum(numbers) for numbers in zip(*of_ranks, strict=True)) if of_ranks else (0, 0)
        if folded:
            terminal.say(
                f"{feature.name}: {folded} of {num_ids} ids read were not below {feature.cardinality}, and were taken "
                "modulo it"
            )


def _config(values: argparse.Namespace, world_size: int) -> TrainConfig:
    """The trainer's configuration."""
    return TrainConfig(
        dataset_path=values.in_memory_binary_criteo_path or values.synthetic_multi_hot_criteo_path or "random samples",
        epochs=values.epochs,
        seed=values.seed,
        cpu=values.cpu,
        batch_size=values.batch_size * world_size,
        valid_batch_size=(values.test_batch_size or values.batch_size) * world_size,
        drop_last=values.drop_last_training_batch,
        shuffle="full" if values.shuffle_training_set else "none",
        interaction=INTERACTIONS[values.interaction_type],
        bottom_mlp_dims=values.dense_arch_layer_sizes,
        top_mlp_dims=values.over_arch_layer_sizes,
        mlp_init="linear",
        num_cross_layers=values.dcn_num_layers,
        cross_layer_projection_dim=values.dcn_low_rank_dim,
        projection_branch1_dims=values.interaction_branch1_layer_sizes,
        projection_branch2_dims=values.interaction_branch2_layer_sizes,
        embedding_dim=values.embedding_dim,
        optimizer="adagrad" if values.adagrad else "sgd",
        epsilon=values.eps,
        learning_rate=values.learning_rate,
        lr_policy="torchrec",
        warmup_steps=values.lr_warmup_steps,
        decay_start_step=values.lr_decay_start,
        decay_steps=values.lr_decay_steps,
        eval_split="validation",
        final_split="test",
        eval_every=values.validation_freq_within_epoch,
        eval_within_epoch=values.validation_freq_within_epoch is not None,
        auc_threshold=values.validation_auroc,
        print_freq=1 if values.print_lr else TrainConfig.print_freq,
        log_path=values.log_path,
        mllog=values.mllog,
    )


def _request(values: argparse.Namespace, config: TrainConfig) -> DataRequest:
    """What the flags say about the samples."""
    files, multi_hot = values.in_memory_binary_criteo_path, values.synthetic_multi_hot_criteo_path
    both = "--in_memory_binary_criteo_path and --synthetic_multi_hot_criteo_path"
    require(not (files and multi_hot), f"{both}: the samples come from one folder. Leave one of them out.")
    require(
        not (multi_hot and values.multi_hot_sizes),
        "--multi_hot_sizes and --synthetic_multi_hot_criteo_path: these files hold several ids a sample already. Leave "
        "--multi_hot_sizes out.",
    )
    require(
        bool(values.multi_hot_sizes) == bool(values.multi_hot_distribution_type),
        "--multi_hot_sizes and --multi_hot_distribution_type are given together: uniform or pareto.",
    )
    kaggle = values.dataset_name == "criteo_kaggle"
    require(not (kaggle and multi_hot), "--dataset_name criteo_kaggle: there are no multi-hot files of these logs.")
    num_rows = values.num_embeddings_per_feature or (values.num_embeddings,) * NUM_CATEGORICAL
    for flag, list_of_26 in (("num_embeddings_per_feature", num_rows), ("multi_hot_sizes", values.multi_hot_sizes)):
        require(
            not list_of_26 or len(list_of_26) == NUM_CATEGORICAL,
            f"--{flag} has {len(list_of_26 or ())} numbers; the dataset has {NUM_CATEGORICAL} categorical features.",
        )
    limits = {"train": values.limit_train_batches, "validation": values.limit_val_batches}
    limits["test"] = values.limit_test_batches
    folder = files or multi_hot
    if folder is None:
        limits = {split: limit or RANDOM_BATCHES for split, limit in limits.items()}
    return DataRequest(
        folder,
        kaggle,
        multi_hot_files=bool(multi_hot),
        num_rows=tuple(max(1, int(rows * values.scale)) for rows in num_rows),
        bag_sizes=values.multi_hot_sizes or (),
        distribution=values.multi_hot_distribution_type or "uniform",
        in_memory=not values.mmap_mode,
        batch_sizes={split: config.batch_size if split == "train" else config.valid_batch_sizes[0] for split in limits},
        limits=limits,
        shuffled=values.shuffle_training_set,
    )


if __name__ == "__main__":
    sys.exit(main())
