"""Flags that a user gave and that have no effect next to the other flags. They are reported, not refused.

Training flags in mode eval are not reported: the published evaluation command is the training command and two more
flags. No TensorFlow.
"""

import dataclasses

from dlrm_tf2.config import TrainConfig

# The flags of dynamic tables besides --dynamic_capacity, without which there are none.
DYNAMIC = (
    "evict", "admit_after", "admission_counter", "admit_probability", "expire_after_steps", "evict_below_norm",
    "safe_check", "hbm_for_embeddings", "embeddings_folder", "caching",
)  # fmt: skip


def unused_flags(config: TrainConfig) -> list[str]:
    """One line for each flag that has another value than its default, and no effect."""
    is_float16 = config.amp and config.amp_dtype != "bfloat16"
    scaling = (is_float16, "only a run with --amp in float16 scales its loss")
    has_dynamic = config.dynamic_capacity is not None
    profile = (config.profiler_start_step is not None, "only --profiler_start_step starts a profile")
    # Flag -> (whether it has an effect, the reason if it has none).
    effects = {
        "admission_counter": (config.admit_after > 1, "only --admit_after counts keys"),
        "evict_below_norm": (
            config.mode != "train" or config.save_checkpoint_path is not None,
            "keys leave before a checkpoint, and only --save_checkpoint_path saves one",
        ),
        **({} if has_dynamic else dict.fromkeys(DYNAMIC, (False, "only --dynamic_capacity makes dynamic tables"))),
        "predictions_path": (config.mode in ("eval", "inference"), "only --mode eval and inference write predictions"),
        "world_size": (config.mode == "plan", "only --mode plan reads it; a job has one rank for each process"),
        "synthetic_dataset_train_batches": _needs(config, "dataset_type", "synthetic"),
        "synthetic_dataset_valid_batches": _needs(config, "dataset_type", "synthetic"),
        "epsilon": (config.optimizer != "sgd", "sgd has no such constant"),
        "final_split": (config.mode == "train", "only --mode train reads it"),
        "elastic": (config.mode == "train", "only a training resumes by itself"),
        "mllog": (config.mode == "train", "only --mode train writes it"),
        "shuffle_window": _needs(config, "shuffle", "window"),
        "network_gbit": (
            config.data_parallel_input and config.dedup_ids == "auto",
            "only --data_parallel_input with --dedup_ids auto reads it",
        ),
        "pipeline": (
            config.data_parallel_input or config.hbm_for_embeddings is not None,
            "only with --data_parallel_input do ids travel between the ranks",
        ),
        "beta1": _needs(config, "optimizer", "adam"),
        "beta2": _needs(config, "optimizer", "adam"),
        "num_cross_layers": _needs(config, "interaction", "cross"),
        "cross_layer_projection_dim": _needs(config, "interaction", "cross"),
        "projection_branch1_dims": _needs(config, "interaction", "projection"),
        "projection_branch2_dims": _needs(config, "interaction", "projection"),
        "loss_scale": scaling,
        "loss_scaling": scaling,
        "evals_per_epoch": (config.eval_every is None, "--eval_every replaces it"),
        "profiler_start_step": (config.mode == "train", "only --mode train can be profiled"),
        "profiled_rank": profile,
        "profiler_path": profile,
    }
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    return [
        f"--{name} does nothing here: {reason}"
        for name, (has_effect, reason) in effects.items()
        if not has_effect and getattr(config, name) != defaults[name]
    ]


def _needs(config: TrainConfig, flag: str, value: str) -> tuple[bool, str]:
    return getattr(config, flag) == value, f"only --{flag} {value} reads it"
