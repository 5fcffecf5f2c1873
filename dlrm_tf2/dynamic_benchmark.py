"""The program: dynamicemb's two benchmarks, with dynamic tables of this library next to its static tables.

python -m dlrm_tf2.dynamic_benchmark tables --batch_size 65536 --num_embeddings_per_feature 8 --optimizer_type sgd \\
    --feature_distribution pow-law
python -m dlrm_tf2.dynamic_benchmark collection --use_index_dedup --use_dynamic_embedding --batch_size 8192
horovodrun -np 2 python -m dlrm_tf2.dynamic_benchmark collection ...
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from dlrm_tf2.benchmarks.dynamic import REFUSED
from dlrm_tf2.benchmarks.dynamic_config import OPTIMIZERS, PRECISIONS, SCORES, CollectionConfig, TablesConfig
from dlrm_tf2.config import ConfigError, require
from dlrm_tf2.flags import Parser, add_boolean, with_underscores
from dlrm_tf2.job.program import connected_ranks, run_program
from dlrm_tf2.runtime.process import Launch
from dlrm_tf2.sharding.tables import WEIGHT_BYTES

PROGRAM = "dynamic_benchmark"
_CONFIGS = {"tables": TablesConfig, "collection": CollectionConfig}


def main(arguments: list[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    return run_program(PROGRAM, lambda: parse(sys.argv[1:] if arguments is None else arguments), _run)


def parse(arguments: Sequence[str]) -> TablesConfig | CollectionConfig:
    """Reads the command line: a verb, and its flags.

    Raises:
      ConfigError: the verb or a flag does not exist, is refused, or its value is not allowed.
    """
    parser = _parser()
    verb, words = next(iter(arguments), ""), with_underscores(arguments)
    for word in words:
        name = word.partition("=")[0].removeprefix("--")
        if word.startswith("--") and name in REFUSED.get(verb, {}):
            raise ConfigError(f"--{name}: {REFUSED[verb][name]}")
    values, unknown = parser.parse_known_args(words)
    if unknown:
        raise ConfigError(f"{unknown[0]} is not a flag of {verb}. See --help; flags cannot be abbreviated.")
    fields = vars(values)
    return _CONFIGS[fields.pop("verb")](**fields)


def _run(config: TablesConfig | CollectionConfig, launch: Launch) -> None:
    if isinstance(config, TablesConfig):
        require(launch.world_size == 1, f"tables runs on one rank; found {launch.world_size}. Start it without -np.")
    with connected_ranks(launch, config) as (device, comm):
        # These start TensorFlow, which connected_ranks prepares.
        from dlrm_tf2.benchmarks import dynamic_collection, dynamic_tables

        if isinstance(config, TablesConfig):
            record = dynamic_tables.run(config)
        else:
            record = dynamic_collection.run(config, launch, comm=comm)
    if config.json is not None and launch.rank == 0:
        Path(config.json).write_text(json.dumps(record | {"threads": device.threads}, indent=1) + "\n")


def _parser() -> Parser:
    parser = Parser(prog=PROGRAM, description=__doc__.splitlines()[0], allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="{tables,collection}")
    _add_tables(verbs.add_parser("tables", allow_abbrev=False, help="one static and one dynamic table, on one rank"))
    _add_collection(verbs.add_parser("collection", allow_abbrev=False, help="26 features, on any number of ranks"))
    return parser


def _add_tables(parser: argparse.ArgumentParser) -> None:
    add = _adder(parser, TablesConfig)
    add("batch_size", "keys of a step", type=int)
    add("num_embeddings_per_feature", "rows of the table, in units of 2**20", type=int)
    add("rows", "rows of the table, in place of --num_embeddings_per_feature", type=int)
    add("feature_distribution", "how keys are drawn from the table's", choices=("random", "pow-law"))
    add("alpha", "exponent of pow-law", type=float)
    tables = tuple(name for name, dtype in PRECISIONS.items() if dtype in WEIGHT_BYTES)
    add("emb_precision", "type of the weights", choices=tables)
    add("output_dtype", "type of the vectors", choices=tuple(PRECISIONS))
    add("cache_algorithm", "which keys a full dynamic table forgets", choices=tuple(SCORES))
    _add_shared(add)


def _add_collection(parser: argparse.ArgumentParser) -> None:
    add = _adder(parser, CollectionConfig)
    add("batch_size", "samples of a step, all ranks together", type=int)
    add("num_embeddings_per_feature", "rows of each feature", type=_numbers)
    add("multi_hot_sizes", "ids a sample of each feature", type=_numbers)
    add("scale", "factor of all rows; without it 1, 1/2, 1/4, ..., the largest that fits in memory", type=float)
    add("fwd_a2a_precision", "type in which vectors and gradients travel", choices=tuple(PRECISIONS))
    for name, help_text in (
        ("use_index_dedup", "each rank requests a row once, however often its id repeats"),
        ("use_dynamic_embedding", "one dynamic table for all features; without it a static table for each"),
        ("print_sharding_plan", "print which rank has which rows"),
    ):
        add_boolean(parser, name, default=getattr(CollectionConfig, name), help_text=help_text)
    _add_shared(add)


def _add_shared(add) -> None:
    add("num_iterations", "timed steps", type=int)
    add("embedding_dim", "width of the tables", type=int)
    add("optimizer_type", "optimizer", choices=tuple(OPTIMIZERS))
    add("learning_rate", "learning rate", type=float)
    add("beta1", "constant of adam", type=float)
    add("beta2", "constant of adam", type=float)
    add("eps", "constant of all optimizers but sgd", type=float)
    add("seed", "seed of keys and first weights", type=int)
    add("json", "file for the figures", metavar="FILE")
    for name in ("intra_op_parallelism", "inter_op_parallelism"):
        add(name, "threads; not given, this process's share of the cores", type=int)


def _adder(parser: argparse.ArgumentParser, config: type):
    """A function that adds the flag of a field of a configuration."""

    def add(name: str, help_text: str, **settings) -> None:
        default = getattr(config, name)
        shown = "" if default is None or isinstance(default, tuple) else " (default: %(default)s)"
        parser.add_argument(f"--{name}", default=default, help=help_text + shown, **settings)

    return add


def _numbers(text: str) -> tuple[int, ...]:
    """A list such as 10,10,10."""
    try:
        return tuple(int(number) for number in text.strip("\"' ").split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 10,10,10") from None


if __name__ == "__main__":
    sys.exit(main())
