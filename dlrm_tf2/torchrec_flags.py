"""The command line of torchrec_example: the published flags with their defaults, and a few of ours."""

import argparse
from collections.abc import Callable, Sequence

from dlrm_tf2.benchmarks.torchrec import INTERACTIONS, PRESETS, REFUSED
from dlrm_tf2.config import ConfigError
from dlrm_tf2.data.torchrec_data import DISTRIBUTIONS
from dlrm_tf2.flags import Parser, with_underscores


def parse(arguments: Sequence[str], program: str) -> argparse.Namespace:
    """The values of all flags; a preset decides the flags that are not given.

    Raises:
      ConfigError: a flag does not exist, is refused, or has a value that is not allowed.
      SystemExit: after --help.
    """
    words = with_underscores(arguments)
    for word in words:
        name = word.partition("=")[0].removeprefix("--")
        if word.startswith("--") and name in REFUSED:
            raise ConfigError(f"--{name}: {REFUSED[name]}")
    parser = _parser(program)
    first, unknown = parser.parse_known_args(words)
    if unknown:
        raise ConfigError(f"{unknown[0]} is not a flag of this program. See --help; flags cannot be abbreviated.")
    if first.preset:
        preset = dict(PRESETS[first.preset][1])
        if first.synthetic_multi_hot_criteo_path:  # these files hold the bags that the preset would make
            preset.pop("multi_hot_sizes", None)
            preset.pop("multi_hot_distribution_type", None)
        parser.set_defaults(**preset)
    return parser.parse_args(words)


def _parser(program: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog=program,
        description="TorchRec's DLRM example: trains, validates and tests a DLRM on Criteo's logs or random samples.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_data(parser.add_argument_group("data"))
    _add_model(parser.add_argument_group("model"))
    _add_training(parser.add_argument_group("training"))
    _add_run(parser.add_argument_group("the run"))
    return parser


def _add_data(group: argparse._ArgumentGroup) -> None:
    positive, widths = _at_least(1), _numbers(1)
    add = group.add_argument
    add(
        "--in_memory_binary_criteo_path",
        metavar="DIR",
        help="folder of the .npy files; without it random samples",
    )
    add("--synthetic_multi_hot_criteo_path", metavar="DIR", help="folder whose ids are multi-hot, in .npz files")
    add(
        "--dataset_name",
        choices=("criteo_1t", "criteo_1tb", "criteo_kaggle"),
        default="criteo_1t",
        help="logs of several days, or Kaggle's in one piece",
    )
    add("--pin_memory", action="store_true", help="no effect: TensorFlow pins memory itself where a GPU is used")
    add("--mmap_mode", action="store_true", help="read samples from the files, and do not hold them in memory")
    add("--shuffle_training_set", action="store_true", help="permute the training samples, again for each epoch")
    add("--batch_size", type=positive, default=32, help="samples of a training step on each rank")
    add("--test_batch_size", type=positive, help="samples of a validation or test batch on each rank; None: batch_size")
    add("--drop_last_training_batch", action="store_true", help="leave out the samples after the last whole batch")
    for split in ("train", "val", "test"):
        add(f"--limit_{split}_batches", type=positive, help="most batches of a pass; 10 for random samples")
    add("--num_embeddings", type=positive, default=100_000, help="rows of each table")
    add("--num_embeddings_per_feature", type=widths, help="rows of the 26 tables; ids are taken modulo these")
    add("--multi_hot_sizes", type=widths, help="ids that replace one id, for each of the 26 features")
    add("--multi_hot_distribution_type", choices=DISTRIBUTIONS, help="how these ids are drawn")


def _add_model(group: argparse._ArgumentGroup) -> None:
    positive, widths = _at_least(1), _numbers(1)
    add = group.add_argument
    add("--embedding_dim", type=positive, default=64, help="width of all tables")
    add("--dense_arch_layer_sizes", type=widths, default="512,256,64", help="widths of the bottom MLP")
    add("--over_arch_layer_sizes", type=widths, default="512,512,256,1", help="widths of the top MLP")
    add("--interaction_type", choices=tuple(INTERACTIONS), default="original", help="how the vectors are combined")
    add("--interaction_branch1_layer_sizes", type=widths, default="2048,2048", help="first MLP of projection")
    add("--interaction_branch2_layer_sizes", type=widths, default="2048,2048", help="second MLP of projection")
    add("--dcn_num_layers", type=positive, default=3, help="cross layers of dcn")
    add("--dcn_low_rank_dim", type=positive, default=512, help="rank of their matrices")


def _add_training(group: argparse._ArgumentGroup) -> None:
    positive, from_0 = _at_least(1), _at_least(0)
    add = group.add_argument
    add("--epochs", type=positive, default=1, help="passes over the training samples")
    add("--learning_rate", type=float, default=15.0, help="base learning rate")
    add("--adagrad", action="store_true", help="Adagrad; without it SGD")
    add("--eps", type=float, default=1e-8, help="constant of Adagrad, added to the square root")
    add("--lr_warmup_steps", type=from_0, default=0, help="steps of a linear warm-up")
    add("--lr_decay_start", type=from_0, default=0, help="first step of a decay with power 2")
    add("--lr_decay_steps", type=from_0, default=0, help="steps of the decay; 0 for none")
    add("--print_lr", action="store_true", help="print the learning rate of each step")
    add("--validation_freq_within_epoch", type=positive, help="steps between two validations of an epoch")
    add("--validation_auroc", type=float, help="stop when a validation reaches this AUROC")
    add("--seed", type=from_0, help="seed of weights, shuffle and random samples; None: drawn, and printed in the log")


def _add_run(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--print_sharding_plan", action="store_true", help="print which table is on which rank")
    add("--preset", choices=tuple(PRESETS), help="flags of a published run, which given flags replace")
    add("--scale", type=float, default=1.0, help="factor of the rows of all tables, so that a preset fits")
    add("--plan_only", action="store_true", help="print the plan, and do not train")
    add("--world_size", type=_at_least(1), help="ranks of --plan_only; None: of the preset, or those started")
    add("--cpu", action="store_true", help="use no GPU")
    add("--log_path", metavar="FILE", help="file for the log, one JSON object a line")
    add("--mllog", metavar="FILE", help="new file for the log in the format of MLPerf")


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return number


def _numbers(least: int) -> Callable[[str], tuple[int, ...]]:
    """A list such as 512,256,64; older scripts put it in quotes."""

    def numbers(text: str) -> tuple[int, ...]:
        parts = [part.strip() for part in text.strip("\"' ").split(",")]
        if not all(part.isdigit() and int(part) >= least for part in parts):
            raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers of at least {least}")
        return tuple(map(int, parts))

    return numbers
