"""Flags without an effect are reported; flags that the published commands give in every mode are not."""

import dataclasses

import pytest

from dlrm_tf2.config import TrainConfig
from dlrm_tf2.unused_flags import unused_flags

EVAL = {"mode": "eval", "restore_checkpoint_path": "c"}


@pytest.mark.parametrize(
    "given, reported",
    [
        ({"predictions_path": "p"}, "only --mode eval and inference write predictions"),
        ({"world_size": 4}, "only --mode plan reads it; a job has one rank for each process"),
        ({"synthetic_dataset_train_batches": 4}, "only --dataset_type synthetic reads it"),
        ({"synthetic_dataset_valid_batches": 4}, "only --dataset_type synthetic reads it"),
        ({"shuffle_window": 9}, "only --shuffle window reads it"),
        ({"network_gbit": 10.0}, "only --data_parallel_input with --dedup_ids auto reads it"),
        ({"pipeline": "off"}, "only with --data_parallel_input do ids travel between the ranks"),
        ({"beta1": 0.8}, "only --optimizer adam reads it"),
        ({"beta2": 0.8}, "only --optimizer adam reads it"),
        ({"num_cross_layers": 2}, "only --interaction cross reads it"),
        ({"cross_layer_projection_dim": 2}, "only --interaction cross reads it"),
        ({"projection_branch1_dims": (128,)}, "only --interaction projection reads it"),
        ({"projection_branch2_dims": (128,)}, "only --interaction projection reads it"),
        ({"epsilon": 1e-3}, "sgd has no such constant"),
        ({"final_split": "test", **EVAL}, "only --mode train reads it"),
        ({"elastic": True, **EVAL}, "only a training resumes by itself"),
        ({"mllog": "m", **EVAL}, "only --mode train writes it"),
        ({"loss_scale": 8.0}, "only a run with --amp in float16 scales its loss"),
        ({"loss_scaling": "dynamic", "amp": True, "amp_dtype": "bfloat16"}, "only a run with --amp in float16"),
        ({"evals_per_epoch": 3, "eval_every": 9}, "--eval_every replaces it"),
        ({"evict": "lfu"}, "only --dynamic_capacity makes dynamic tables"),
        ({"admit_after": 2}, "only --dynamic_capacity makes dynamic tables"),
        ({"admission_counter": "sketch", "dynamic_capacity": 9}, "only --admit_after counts keys"),
        ({"admit_probability": 0.5}, "only --dynamic_capacity makes dynamic tables"),
        ({"expire_after_steps": 2}, "only --dynamic_capacity makes dynamic tables"),
        ({"evict_below_norm": 0.5}, "only --dynamic_capacity makes dynamic tables"),
        (
            {"evict_below_norm": 0.5, "dynamic_capacity": 9},
            "keys leave before a checkpoint, and only --save_checkpoint",
        ),
        ({"safe_check": "warn"}, "only --dynamic_capacity makes dynamic tables"),
        ({"profiled_rank": 1}, "only --profiler_start_step starts a profile"),
        ({"profiler_path": "p"}, "only --profiler_start_step starts a profile"),
        ({"profiler_start_step": 1, **EVAL}, "only --mode train can be profiled"),
    ],
)
def test_a_flag_without_an_effect_is_reported(given, reported):
    name = next(iter(given))
    (line,) = unused_flags(TrainConfig(dataset_path="d", **given))
    assert line.startswith(f"--{name} does nothing here: {reported}")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"predictions_path": "p", **EVAL},
        {"world_size": 4, "mode": "plan"},
        {"shuffle_window": 9, "shuffle": "window"},
        {"loss_scale": 8.0, "amp": True},
        {"pipeline": "off", "data_parallel_input": True},
        {"pipeline": "off", "dynamic_capacity": 9, "hbm_for_embeddings": 1.0, "embeddings_folder": "f"},
        # The published evaluation command: the training command and two more flags.
        {"save_checkpoint_path": "c", "learning_rate": 1.0, "xla": True, "epochs": 2, "keep_best": True, **EVAL},
    ],
)
def test_a_flag_with_an_effect_or_of_the_training_command_is_not_reported(given):
    assert unused_flags(TrainConfig(dataset_path="d", **given)) == []


def test_every_default_is_silent_in_every_mode():
    for mode in ("train", "plan", "eval", "inference"):
        assert unused_flags(dataclasses.replace(TrainConfig(dataset_path="d", **EVAL), mode=mode)) == []
