"""The program: trains a published synthetic model and measures it, or prints where its tables would be.

python -m dlrm_tf2.synthetic_models --model tiny --optimizer adagrad --batch_size 65536
horovodrun -np 4 python -m dlrm_tf2.synthetic_models --model small --scale 0.1 --batch_size 65536
python -m dlrm_tf2.synthetic_models --model large --plan_only --world_size 128 --optimizer adagrad
"""

import sys
from collections.abc import Sequence

from dlrm_tf2.benchmarks import zoo_memory
from dlrm_tf2.benchmarks.zoo import MODELS
from dlrm_tf2.benchmarks.zoo_config import ZooConfig
from dlrm_tf2.config import ConfigError
from dlrm_tf2.flags import Parser, add_boolean, with_underscores
from dlrm_tf2.job.program import connected_ranks, run_program
from dlrm_tf2.runtime.process import Launch
from dlrm_tf2.sharding.optimizer_state import OPTIMIZERS
from dlrm_tf2.sharding.plan import STRATEGIES
from dlrm_tf2.sharding.tables import WEIGHT_BYTES

# Flags of the published program that this program does not have -> why, and what to use instead.
_REFUSED = {
    "use_model_fit": "there is no Keras model to fit. Leave it out: the program times its own loop, which is the "
    "published default",
    "embedding_device": "tables are in the memory of the GPU of their rank, or of the host with --cpu. Use --cpu, or "
    "leave it out",
    "embedding_api": "there is one embedding layer, DistributedEmbedding (published name: tfde). Leave it out; "
    "--embedding_op tensorflow computes with TensorFlow's ops",
}


def main(arguments: list[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    return run_program("synthetic_models", lambda: _parse(sys.argv[1:] if arguments is None else arguments), _run)


def _run(config: ZooConfig, launch: Launch) -> None:
    if config.plan_only:
        if launch.rank == 0:
            print(zoo_memory.plan_report(config, config.world_size or launch.world_size))
        return
    with connected_ranks(launch, config) as (device, comm):
        from dlrm_tf2.benchmarks import zoo_benchmark  # starts TensorFlow, which connected_ranks prepares

        zoo_benchmark.run(config, launch, device=device, comm=comm)


def _parse(arguments: Sequence[str]) -> ZooConfig:
    values, unknown = _parser().parse_known_args(with_underscores(arguments))
    for argument in unknown:
        name = argument.lstrip("-").partition("=")[0]
        why = _REFUSED.get(name) or _REFUSED.get(name.removeprefix("no"))
        if why:
            raise ConfigError(f"--{name} is a flag of the published program that this program does not have: {why}.")
        raise ConfigError(f"{argument!r} is not a flag of this program. See --help; flags cannot be abbreviated.")
    return ZooConfig(**vars(values))


def _parser() -> Parser:
    parser = Parser(
        prog="synthetic_models",
        usage="synthetic_models [--flag VALUE ...]",
        description="Trains the published synthetic models on synthetic data and measures a step, or plans them.",
        allow_abbrev=False,
    )

    def add(name: str, help_text: str, *, kind: type = str, choices: Sequence[str] | None = None) -> None:
        default = getattr(ZooConfig, name)
        if default is not None:
            help_text += " (default: %(default)s)"
        parser.add_argument(f"--{name}", type=kind, choices=choices, default=default, help=help_text, metavar=None)

    def add_switch(name: str, help_text: str) -> None:
        add_boolean(parser, name, default=getattr(ZooConfig, name), help_text=help_text)

    elements = "elements (rows * width)"
    add("model", "name of the published model", choices=tuple(MODELS))
    add("optimizer", "optimizer, with the published constants", choices=tuple(OPTIMIZERS))
    add("batch_size", "samples of a step, all ranks together; not given, 4, and 65536 with --plan_only", kind=int)
    add("alpha", "exponent of the power law that ids follow; 0: all ids equally often", kind=float)
    add("num_data_batches", "different batches, which the steps take in turn", kind=int)
    add("num_steps", "steps to measure", kind=int)
    add_switch("dp_input", "each rank reads all features of its samples; without it, the features of its tables")
    add_switch("amp", "compute in 16 bits: bfloat16 on a CPU, float16 on a GPU; vectors travel in 16 bits")
    add("scale", "factor of the rows of each table", kind=float)
    add("seed", "seed of the data and of the initial weights", kind=int)
    add_switch("cpu", "use no GPU")
    add_switch("plan_only", "print where the tables would be, and do not train")
    add("world_size", "ranks to plan for, with --plan_only; not given, the ranks that were started", kind=int)
    add("dist_strategy", "how tables are placed on the ranks", choices=STRATEGIES)
    add("column_slice_threshold", f"cut tables with more {elements} than this by columns", kind=int)
    add("row_slice_threshold", f"spread tables with at least this many {elements} by rows", kind=int)
    add("data_parallel_threshold", f"copy tables with at most this many {elements} to every rank", kind=int)
    add("table_dtype", "type of the tables' weights", choices=tuple(WEIGHT_BYTES))
    add("embedding_op", "implementation of lookups and updates", choices=("auto", "native", "tensorflow"))
    add("log_path", "file for the figures: one flat JSON object a line; a run appends to it")
    return parser


if __name__ == "__main__":
    sys.exit(main())
