"""A checkpoint in the folders of NVIDIA's DLRM: `sparse/` and `dense/`, each with its config.json. No TensorFlow.

    sparse/config.json         the published keys
    sparse/feature_<i>.npy     float32 [rows, width] of the i-th categorical feature: what the published trainer loads
    dense/config.json          the published keys
    dense/<name>.npy           the MLPs' variables. NVIDIA's trainer has a TensorFlow checkpoint of Keras objects here,
                               named after its own classes; this program cannot make one

Source: the loader of NVIDIA's DLRM of 2023 (TensorFlow2/Recommendation/DLRM_and_DCNv2).
"""

import json
from pathlib import Path

from dlrm_tf2.checkpoint.manifest import Manifest
from dlrm_tf2.export.npy import write_dense, write_tables
from dlrm_tf2.model.config import ModelConfig

# Defaults of the published trainer.
_COLUMN_SLICE_THRESHOLD = 5_000_000_000
_ROW_SLICE_THRESHOLD = 10_000_000_000
_CPU_OFFLOADING_THRESHOLD_GB = 75


def write_published_form(folder: Path, manifest: Manifest, *, shape: ModelConfig, output: Path) -> dict:
    """Writes the two folders into `output`.

    Returns:
      The files of the tables ("features") and of the variables ("dense"), and lines for the user ("notes").

    Raises:
      CheckpointError: the checkpoint is damaged.
    """
    (output / "sparse").mkdir()
    features = write_tables(folder, manifest, output / "sparse")
    dense = write_dense(folder, manifest, output)
    flags = manifest.document.get("config", {})
    _write(output / "sparse", sparse_config(shape, flags))
    _write(output / "dense", dense_config(shape, flags))
    notes = ["the published trainer loads sparse/; the weights of its dense/ are Keras objects, these are .npy files"]
    if shape.hotness:
        notes.append("the published trainer of 2023 has no combiner for features with several ids a sample")
    if not shape.num_numerical:
        notes.append("the published models have a bottom MLP; this model has no numerical features and no bottom MLP")
    features = [entry | {"file": f"sparse/{entry['file']}"} for entry in features]
    return {"features": features, "dense": dense, "notes": notes}


def sparse_config(shape: ModelConfig, flags: dict) -> dict:
    """The content of sparse/config.json; `flags` are the flags of the training."""
    column_slice, row_slice = flags.get("column_slice_threshold"), flags.get("row_slice_threshold")
    return {
        "use_mde_embeddings": True,
        "embedding_dim": _embedding_dim(shape),
        "column_slice_threshold": _COLUMN_SLICE_THRESHOLD if column_slice is None else column_slice,
        "embedding_zeros_initializer": False,
        "embedding_trainable": True,
        "categorical_cardinalities": list(shape.cardinalities),
        "concat_embedding": False,
        "cpu_offloading_threshold_gb": _CPU_OFFLOADING_THRESHOLD_GB,
        "data_parallel_input": bool(flags.get("data_parallel_input")),
        "row_slice_threshold": _ROW_SLICE_THRESHOLD if row_slice is None else row_slice,
        "data_parallel_threshold": flags.get("data_parallel_threshold"),
    }


def dense_config(shape: ModelConfig, flags: dict) -> dict:
    """The content of dense/config.json; `flags` are the flags of the training."""
    return {
        "embedding_dim": _embedding_dim(shape),
        # The published CUDA op is wrong for few vectors. Its TensorFlow twin is right for any number.
        "interaction": "cross" if shape.interaction == "cross" else "dot_tensorflow",
        "bottom_mlp_dims": list(shape.bottom_mlp_dims),
        "top_mlp_dims": list(shape.top_mlp_dims),
        "num_numerical_features": shape.num_numerical,
        "categorical_cardinalities": list(shape.cardinalities),
        "transpose": False,
        "num_cross_layers": shape.num_cross_layers,
        "cross_layer_projection_dim": shape.cross_layer_projection_dim,
        "batch_size": flags.get("batch_size", 65536),
    }


def _embedding_dim(shape: ModelConfig) -> int | list[int]:
    return list(shape.embedding_dims) or shape.embedding_dim


def _write(folder: Path, config: dict) -> None:
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
