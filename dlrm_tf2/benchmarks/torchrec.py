"""TorchRec's DLRM example as data: its three published configurations, MLPerf's, and flags that are refused.

Source: facebookresearch/dlrm, torchrec_dlrm/README.MD and dlrm_main.py (commit 090956e); MLPerf's dlrm_dcnv2.
"""

import re
from collections.abc import Mapping

_REST = (
    "39060,17295,7424,20265,3,7122,1543,63,{},3067956,405282,10,2209,11938,155,4,976,14,{},{},{},590152,12973,108,36"
)
_MLPERF_ROWS = "40000000," + _REST.format(*[40000000] * 4)
_MLP_DIMS = {
    "embedding_dim": 128,
    "dense_arch_layer_sizes": "512,256,128",
    "over_arch_layer_sizes": "1024,1024,512,256,1",
}
_PUBLISHED = {**_MLP_DIMS, "learning_rate": 15.0}

# --preset -> (ranks of the published run, flag -> value).
PRESETS: Mapping[str, tuple[int, dict[str, object]]] = {
    "mlperf": (8, {**_PUBLISHED, "batch_size": 8192, "num_embeddings_per_feature": _MLPERF_ROWS}),
    "mlperfx2": (
        16,
        {
            **_PUBLISHED,
            "batch_size": 4096,
            "num_embeddings_per_feature": "80000000," + _REST.format(80000000, 80000000, 40790948, 80000000),
        },
    ),
    "full": (
        80,
        {
            **_PUBLISHED,
            "batch_size": 819,
            "num_embeddings_per_feature": "227605432," + _REST.format(130229467, 292775614, 40790948, 187188510),
        },
    ),
    "mlperf_dcnv2": (
        8,
        {
            **_MLP_DIMS,
            "batch_size": 8192,
            "num_embeddings_per_feature": _MLPERF_ROWS,
            "multi_hot_sizes": "3,2,1,2,6,1,1,1,1,7,3,8,1,6,9,5,1,1,1,12,100,27,10,3,1,1",
            "multi_hot_distribution_type": "uniform",
            "interaction_type": "dcn",
            "adagrad": True,
            "learning_rate": 0.004,
            "validation_freq_within_epoch": 3200,
            "validation_auroc": 0.80275,
        },
    ),
}

# Published flags that this program refuses -> the reason, and what to use instead.
REFUSED: Mapping[str, str] = {
    "undersampling_rate": "does nothing in the published program either. Leave it out.",
    "allow_tf32": "TensorFlow uses TF32 on every GPU that has it, and a CPU has none. Leave it out.",
    "shuffle_batches": "the order within a batch changes no loss, gradient or AUROC. Use --shuffle_training_set.",
    "collect_multi_hot_freqs_stats": "no statistics of ids are written. Count the ids of the .npy files with numpy.",
    "change_lr": "was removed from the published program. Use --lr_decay_start and --lr_decay_steps.",
    "lr_change_point": "was removed from the published program. Use --lr_decay_start.",
    "lr_after_change_point": "was removed from the published program. Use --lr_decay_steps.",
    "evaluate_on_epoch_end": "the validation set is always scored after an epoch. Leave it out.",
    "evaluate_on_training_end": "the test set is always scored after the training. Leave it out.",
    "print_progress": "progress is always printed. Leave it out.",
}

# Flag of the trainer -> published flag, where the names differ.
PUBLISHED_NAMES: Mapping[str, str] = {
    "batch_size": "batch_size x ranks",
    "valid_batch_size": "test_batch_size x ranks",
    "drop_last": "drop_last_training_batch",
    "bottom_mlp_dims": "dense_arch_layer_sizes",
    "top_mlp_dims": "over_arch_layer_sizes",
    "interaction": "interaction_type",
    "num_cross_layers": "dcn_num_layers",
    "cross_layer_projection_dim": "dcn_low_rank_dim",
    "projection_branch1_dims": "interaction_branch1_layer_sizes",
    "projection_branch2_dims": "interaction_branch2_layer_sizes",
    "warmup_steps": "lr_warmup_steps",
    "decay_start_step": "lr_decay_start",
    "decay_steps": "lr_decay_steps",
    "epsilon": "eps",
    "eval_every": "validation_freq_within_epoch",
    "auc_threshold": "validation_auroc",
}
INTERACTIONS = {"original": "dot", "dcn": "cross", "projection": "projection"}


def in_published_names(message: str) -> str:
    """A message of the trainer with the published names of its flags."""
    for ours, published in PUBLISHED_NAMES.items():
        dashes = "--" if ours in ("batch_size", "valid_batch_size", "interaction", "epsilon") else "(?:--)?"
        message = re.sub(rf"(?<![\w-])({dashes}){ours}\b", rf"\g<1>{published}", message)
    return message.replace("--interaction_type cross", "--interaction_type dcn")
