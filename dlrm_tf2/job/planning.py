"""The sharding plan that the trainer's flags ask for. No TensorFlow."""

from dataclasses import replace

from criteo_prep.feature_spec import FeatureSpec
from dlrm_tf2.config import TrainConfig
from dlrm_tf2.data.provided import ProvidedSpec
from dlrm_tf2.job import preflight
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.sharding.cost import Step, offloaded
from dlrm_tf2.sharding.plan import ShardingPlan, make_plan
from dlrm_tf2.sharding.plan_report import plan_text

_GB = 10**9
_PUBLISHED_COLUMN_SLICE_THRESHOLD = 5 * 10**9  # elements. Source: the default of NVIDIA's DLRM


def plan_of(config: TrainConfig, model: ModelConfig, *, spec: FeatureSpec, world_size: int) -> ShardingPlan:
    """The plan of a run: the same on every rank and in every mode, so an evaluation places tables as training does."""
    column_slice_threshold = config.column_slice_threshold
    if config.dist_strategy != "balanced" and config.optimizer != "rowwise_adagrad" and column_slice_threshold is None:
        column_slice_threshold = _PUBLISHED_COLUMN_SLICE_THRESHOLD
    plan = make_plan(
        model.tables,
        world_size,
        strategy=config.dist_strategy,
        hotness=hotness_of(spec),
        optimizer=config.optimizer,
        batch_size=config.batch_size,
        column_slice_threshold=column_slice_threshold,
        row_slice_threshold=config.row_slice_threshold,
        data_parallel_threshold=config.data_parallel_threshold,
        table_dtype=config.table_dtype,
    )
    if config.cpu_offloading_threshold_gb is None:
        return plan
    return replace(plan, on_host=offloaded(plan, model.tables, config.cpu_offloading_threshold_gb * _GB))


def hotness_of(spec: FeatureSpec) -> dict[str, int]:
    """Feature -> ids per sample; for a ragged feature the hotness in its spec."""
    return {feature.name: feature.hotness for feature in spec.categorical}


def data_shape_of(config: TrainConfig, spec: FeatureSpec) -> preflight.DataShape:
    """Hotness of the features, and samples of each split whose files exist, by the size of the files of the label.

    Files with headers count a few samples too many.
    """
    if isinstance(spec, ProvidedSpec):
        return preflight.DataShape(
            hotness_of(spec), spec.num_samples, held_bytes=spec.held_bytes, label=spec.label.name, advice=spec.advice
        )
    num_samples = {}
    for split in ("train", config.eval_split) if config.dataset_type == "tf_raw" else ():
        try:
            chunk = spec.chunk_of(split, spec.label.name)
            num_bytes = sum((spec.root / file).stat().st_size for file in chunk.files)
            num_samples[split] = num_bytes // spec.sample_bytes(chunk)
        except (OSError, ValueError):
            pass  # opening the split reports it
    return preflight.DataShape(hotness_of(spec), num_samples)


def report_of(config: TrainConfig, model: ModelConfig, *, spec: FeatureSpec, world_size: int) -> str:
    """The text that mode plan prints."""
    plan = plan_of(config, model, spec=spec, world_size=world_size)
    step = Step(
        config.batch_size,
        hotness_of(spec),
        optimizer=config.optimizer,
        wire_bytes=2 if config.amp else 4,
        data_parallel_input=config.data_parallel_input,
    )
    kind = preflight.StepKind.of(config, step.hotness, training=True)
    activations = [
        config.batch_size * preflight.batch_bytes(model, plan, rank=rank, step=kind) for rank in range(world_size)
    ]
    offloading_bytes = None
    if config.cpu_offloading_threshold_gb is not None:
        offloading_bytes = config.cpu_offloading_threshold_gb * _GB
    title = f"plan: {config.dist_strategy}, {world_size} ranks, batch {config.batch_size}, {config.optimizer}"
    table = plan_text(plan, model.tables, step=step, activation_bytes=activations, offloading_bytes=offloading_bytes)
    return f"{title}\n{table}"


def offloading_note(config: TrainConfig, plan: ShardingPlan, device: str) -> str | None:
    """A line about --cpu_offloading_threshold_gb for the log; None without the flag."""
    if config.cpu_offloading_threshold_gb is None:
        return None
    if device == "cpu":
        return "--cpu_offloading_threshold_gb: no GPU is used, all tables are in host memory"
    if not plan.on_host:
        return "--cpu_offloading_threshold_gb: no table exceeds it, so all tables stay on the GPU"
    num_bytes = plan.num_bytes(plan.on_host)
    return f"--cpu_offloading_threshold_gb: {len(plan.on_host)} shards ({num_bytes} bytes) stay in host memory"
