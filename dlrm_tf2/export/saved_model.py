"""A checkpoint as a TensorFlow SavedModel, which answers in any process that has TensorFlow, without this package.

    numerical_features       float32 [batch, numericals], as the dataset stores them: log(x + 3)
    categorical_features     int32 [batch, ids]: ids of all features with a fixed number of ids, side by side
    feature_<i>_ids          int32 [n]: ids of the i-th feature, if its number of ids varies
    feature_<i>_row_lengths  int32 [batch]: number of ids of each sample, for the same features
    -> logits, probability   float32 [batch]

It computes in float32 on the device on which it is loaded. An id outside its table is an error. So is
a numerical that is nan or infinite: a ReLU may turn it into 0, and the answer would look like a probability.
"""

from pathlib import Path

import tensorflow as tf

from dlrm_tf2.checkpoint import restore_tables
from dlrm_tf2.checkpoint.files import CheckpointError, read_array
from dlrm_tf2.checkpoint.manifest import Manifest
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.model.dlrm import ComputeSettings, Dlrm
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.plan import make_plan

CATEGORICAL, NUMERICAL = "categorical_features", "numerical_features"


def write_saved_model(folder: Path, manifest: Manifest, *, shape: ModelConfig, output: Path) -> dict:
    """Writes the model of a checkpoint into the folder `output`.

    Memory: the tables once, and a few blocks of rows.

    Returns:
      The inputs of the signature: name -> {"dtype", "shape", "features"}.

    Raises:
      CheckpointError: the checkpoint is damaged, or its model has another shape.
      OSError: TensorFlow cannot write, such as on a full disk.
    """
    plan = make_plan(shape.tables, 1)
    # TensorFlow's ops: a server has no others.
    settings = ComputeSettings(training=False, initialize_tables=False, embedding_op="tensorflow")
    model = Dlrm(shape, plan, comm=SingleProcess(), seed=0, settings=settings)
    restore_tables(folder, manifest, embedding=model.embedding)
    for variable in model.dense_variables:
        name = variable.name.removesuffix(":0")
        if name not in manifest.dense:
            raise CheckpointError(f"{folder}: has no dense variable {name!r}, which its model needs.")
        variable.assign(read_array(folder, manifest.dense[name]))
    inputs = _inputs(shape)
    served = tf.Module()
    served.function = tf.function(_answer_of(model)).get_concrete_function(
        **{name: tf.TensorSpec(entry["shape"], entry["dtype"], name) for name, entry in inputs.items()}
    )
    served.weights = list(served.function.graph.variables)  # a SavedModel keeps what its root refers to
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    try:
        tf.saved_model.save(served, str(output), signatures={"serving_default": served.function}, options=options)
    except tf.errors.OpError as error:
        reason = error.message.splitlines()[0].rpartition("}} ")[2].partition(" [Op:")[0]  # without the trace
        raise OSError(f"the SavedModel cannot be written: {reason}") from error
    return inputs


def _inputs(shape: ModelConfig) -> dict[str, dict]:
    """The inputs by name; a dimension of any size is None."""
    fixed = {feature: hotness for feature, hotness in shape.hotness_of.items() if hotness is not None}
    inputs = {NUMERICAL: {"dtype": "float32", "shape": [None, shape.num_numerical]}}
    if fixed:
        inputs[CATEGORICAL] = {"dtype": "int32", "shape": [None, sum(fixed.values())], "features": list(fixed)}
    for number, feature in enumerate(shape.features):
        if feature not in fixed:
            for name in _ragged_names(number):
                inputs[name] = {"dtype": "int32", "shape": [None], "features": [feature]}
    return inputs


def _ragged_names(number: int) -> tuple[str, str]:
    return f"feature_{number}_ids", f"feature_{number}_row_lengths"


def _answer_of(model: Dlrm):
    """The served function, which takes the inputs by name."""

    def answer(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        ids, column = {}, 0
        for number, (feature, hotness) in enumerate(model.config.hotness_of.items()):
            if hotness is None:
                ids[feature] = tuple(inputs[name] for name in _ragged_names(number))
            else:
                ids[feature] = inputs[CATEGORICAL][:, column : column + hotness]
                column += hotness
        numerical = tf.debugging.check_numerics(inputs[NUMERICAL], f"{NUMERICAL}: a number is not finite")
        lookup = model.lookup(model.embedding.ids(ids, ids, global_batch=tf.shape(numerical)[0]))
        logits = model.logits(numerical, lookup)
        logits = tf.debugging.check_numerics(logits, "logits: a number is not finite; the numericals are too large")
        return {"logits": logits, "probability": tf.sigmoid(logits)}

    return answer
