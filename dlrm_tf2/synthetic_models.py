"""The program: how the tables of a published synthetic model would be placed on ranks.

python -m dlrm_tf2.synthetic_models --model large --plan_only --world_size 128 --optimizer adagrad
"""

import argparse
import sys

from dlrm_tf2.benchmarks.zoo import MODELS, ZooModel
from dlrm_tf2.flags import with_underscores
from dlrm_tf2.job.preflight import StepKind, looked_up_bytes
from dlrm_tf2.job.program import run_alone
from dlrm_tf2.sharding.cost import Step
from dlrm_tf2.sharding.optimizer_state import DEFAULT_OPTIMIZER, OPTIMIZERS
from dlrm_tf2.sharding.plan import STRATEGIES, ShardingPlan, make_plan
from dlrm_tf2.sharding.plan_report import plan_text
from dlrm_tf2.sharding.plan_rules import DEFAULT_STRATEGY
from dlrm_tf2.sharding.tables import DEFAULT_TABLE_DTYPE, WEIGHT_BYTES

_FLOAT_BYTES = 4


def main(arguments: list[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    parser = _parser()
    values = parser.parse_args(with_underscores(sys.argv[1:] if arguments is None else arguments))
    if not values.plan_only:
        parser.error("--plan_only is missing: this version plans the models and does not train them")
    return run_alone("synthetic_models", lambda: print(_plan_report(values)))


def _plan_report(values: argparse.Namespace) -> str:
    """The text that the program prints.

    Raises:
      PlanError: two flags contradict each other.
    """
    model = MODELS[values.model]
    plan = make_plan(
        model.tables,
        values.world_size,
        strategy=values.dist_strategy,
        hotness=model.hotness,
        optimizer=values.optimizer,
        batch_size=values.batch_size,
        column_slice_threshold=values.column_slice_threshold,
        row_slice_threshold=values.row_slice_threshold,
        data_parallel_threshold=values.data_parallel_threshold,
        table_dtype=values.table_dtype,
    )
    step = Step(
        values.batch_size,
        model.hotness,
        optimizer=values.optimizer,
        wire_bytes=2 if values.amp else 4,
        data_parallel_input=values.dp_input,
    )
    activations = [_activation_bytes(model, plan, rank=rank, step=step) for rank in range(values.world_size)]
    title = (
        f"{values.model}: {values.dist_strategy}, {values.world_size} ranks, batch {values.batch_size}, "
        f"{values.optimizer}; {len(model.hotness)} features, {sum(model.hotness.values())} ids a sample"
    )
    return f"{title}\n{plan_text(plan, model.tables, step=step, activation_bytes=activations)}"


def _activation_bytes(model: ZooModel, plan: ShardingPlan, *, rank: int, step: Step) -> float:
    """Bytes that a training step needs on a rank besides weights and state, counted as in preflight.batch_bytes."""
    share = model.output_width * (1 if plan.world_size == 1 else 3) + 2 * (model.mlp_input_width + sum(model.mlp_dims))
    kind = StepKind(True, step.optimizer, step.hotness, data_parallel_input=step.data_parallel_input)
    looked_up = looked_up_bytes(plan, rank, tables=model.tables, step=kind)
    return step.batch_size * (looked_up + _FLOAT_BYTES * share / plan.world_size)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="synthetic_models",
        description="Plans the published synthetic models: which table is on which rank, and what that costs.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    positive, elements = _at_least(1), "elements (rows * width)"
    parser.add_argument("--model", choices=tuple(MODELS), default="tiny", help="name of the published model")
    parser.add_argument("--plan_only", action="store_true", help="print the plan, and do not train")
    parser.add_argument("--world_size", type=positive, default=1, help="ranks to plan for")
    parser.add_argument("--batch_size", type=positive, default=65536, help="samples of a step, all ranks together")
    parser.add_argument(
        "--optimizer", choices=tuple(OPTIMIZERS), default=DEFAULT_OPTIMIZER, help="optimizer whose state tables need"
    )
    parser.add_argument(
        "--dist_strategy", choices=STRATEGIES, default=DEFAULT_STRATEGY, help="how tables are placed on the ranks"
    )
    parser.add_argument(
        "--column_slice_threshold", type=positive, help=f"cut tables with more {elements} than this by columns"
    )
    parser.add_argument(
        "--row_slice_threshold", type=positive, help=f"spread tables with at least this many {elements} by rows"
    )
    parser.add_argument(
        "--data_parallel_threshold",
        type=_at_least(0),
        help=f"copy tables with at most this many {elements} to every rank",
    )
    parser.add_argument(
        "--table_dtype", choices=tuple(WEIGHT_BYTES), default=DEFAULT_TABLE_DTYPE, help="type of the tables' weights"
    )
    parser.add_argument("--dp_input", action="store_true", help="each rank reads all features of its samples")
    parser.add_argument("--amp", action="store_true", help="vectors travel in 16 bits")
    return parser


def _at_least(least: int):
    def number(text: str) -> int:
        if not text.isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return number


if __name__ == "__main__":
    sys.exit(main())
