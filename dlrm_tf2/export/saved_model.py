"""A checkpoint as a TensorFlow SavedModel, which answers in any process that has TensorFlow, without this package.

    numerical_features       float32 [batch, numericals], as the dataset stores them: log(x + 3)
    categorical_features     int32 [batch, ids]: ids of all features with a fixed number of ids, side by side; int64 if
                             raw keys are among them
    feature_<i>_ids          int32 [n]: ids of the i-th feature, if its number of ids varies; int64 if they are keys
    feature_<i>_row_lengths  int32 [batch]: number of ids of each sample, for the same features
    -> logits, probability   float32 [batch]

It computes in float32 on the device on which it is loaded; 16-bit tables stay in 16 bits. A key that the table has not
stored has a vector of zeros, as in training. An id outside its table is an error. So is a numerical that is nan or
infinite: a ReLU may turn it into 0, and the answer would look like a probability.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from dlrm_tf2.checkpoint import restore_tables
from dlrm_tf2.checkpoint.files import CheckpointError, read_array
from dlrm_tf2.checkpoint.manifest import Manifest
from dlrm_tf2.embedding.layer import DistributedEmbedding
from dlrm_tf2.embedding.slab import WEIGHTS
from dlrm_tf2.export.sorted_keys import SortedKeys
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.model.dlrm import ComputeSettings, Dlrm
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.plan import Shard, make_plan

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
    settings = ComputeSettings(
        training=False, initialize_tables=False, embedding_op="tensorflow", table_dtype=manifest.table_dtype
    )
    model = Dlrm(shape, plan, comm=SingleProcess(), seed=0, settings=settings)
    tables = _ServedTables(model.embedding, manifest.dynamic_tables)
    restore_tables(folder, manifest, embedding=tables)
    keys = {name: tf.Variable(table.keys, trainable=False) for name, table in tables.dynamic_tables.items()}
    for variable in model.dense_variables:
        name = variable.name.removesuffix(":0")
        if name not in manifest.dense:
            raise CheckpointError(f"{folder}: has no dense variable {name!r}, which its model needs.")
        variable.assign(read_array(folder, manifest.dense[name]))
    inputs = _inputs(shape, keys)
    served = tf.Module()
    served.function = tf.function(_answer_of(model, keys)).get_concrete_function(
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


class _ServedTables:
    """The tables of a served model in the role of DistributedEmbedding towards checkpoints.

    Args:
      embedding: a layer of one rank, in which a dynamic table has a row for each of its keys, and the last row for all
        other keys.
      dynamic: the dynamic tables.

    Attributes:
      dynamic_tables: name -> its keys.
    """

    def __init__(self, embedding: DistributedEmbedding, dynamic: Sequence[str]):
        self.tables, self.plan, self.rank = embedding.tables, embedding.plan, embedding.rank
        self.read_rows, self.write_rows = embedding.read_rows, embedding.write_rows
        self.dynamic_tables = dict[str, SortedKeys]()
        for name in dynamic:
            (shard,) = embedding.plan.of_table(name)
            last, zeros = shard.num_rows - 1, np.zeros((1, shard.num_columns), np.float32)
            embedding.write_rows(shard, WEIGHTS, start=last, values=zeros)
            self.dynamic_tables[name] = SortedKeys(_writer(embedding, shard))


def _writer(embedding: DistributedEmbedding, shard: Shard) -> Callable[[np.ndarray, np.ndarray], None]:
    """A function (rows, values) that writes weights of a shard."""
    return lambda rows, values: embedding.write_rows_at(shard, WEIGHTS, rows=rows, values=values)


def _rows_of(keys: tf.Variable, asked: tf.Tensor) -> tf.Tensor:
    """The row of each asked key, int64 of any shape, among ascending keys; without one, the row after theirs."""
    num_keys = keys.shape[0]
    if not num_keys:
        return tf.zeros_like(asked)
    places = tf.reshape(tf.searchsorted(keys, tf.reshape(asked, [-1]), out_type=tf.int64), tf.shape(asked))
    found = tf.gather(keys, tf.minimum(places, num_keys - 1)) == asked
    return tf.where(found, places, tf.constant(num_keys, tf.int64))


def _inputs(shape: ModelConfig, keys: Collection[str]) -> dict[str, dict]:
    """The inputs by name; a dimension of any size is None. The features in `keys` have keys."""
    fixed = {feature: hotness for feature, hotness in shape.hotness_of.items() if hotness is not None}
    inputs = {NUMERICAL: {"dtype": "float32", "shape": [None, shape.num_numerical]}}
    if fixed:
        dtype = "int64" if any(feature in keys for feature in fixed) else "int32"
        inputs[CATEGORICAL] = {"dtype": dtype, "shape": [None, sum(fixed.values())], "features": list(fixed)}
    for number, feature in enumerate(shape.features):
        if feature not in fixed:
            for name, dtype in zip(
                _ragged_names(number), ("int64" if feature in keys else "int32", "int32"), strict=True
            ):
                inputs[name] = {"dtype": dtype, "shape": [None], "features": [feature]}
    return inputs


def _ragged_names(number: int) -> tuple[str, str]:
    return f"feature_{number}_ids", f"feature_{number}_row_lengths"


def _answer_of(model: Dlrm, keys: Mapping[str, tf.Variable]):
    """The served function, which takes the inputs by name; feature -> its stored keys, ascending."""

    def answer(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        ids, column = {}, 0
        for number, (feature, hotness) in enumerate(model.config.hotness_of.items()):
            if hotness is None:
                ids[feature] = tuple(inputs[name] for name in _ragged_names(number))
            else:
                ids[feature] = inputs[CATEGORICAL][:, column : column + hotness]
                column += hotness
            if feature in keys and hotness is None:
                ids[feature] = (_rows_of(keys[feature], ids[feature][0]), ids[feature][1])
            elif feature in keys:
                ids[feature] = _rows_of(keys[feature], ids[feature])
        numerical = tf.debugging.check_numerics(inputs[NUMERICAL], f"{NUMERICAL}: a number is not finite")
        lookup = model.lookup(model.embedding.ids(ids, ids, global_batch=tf.shape(numerical)[0]))
        logits = model.logits(numerical, lookup)
        logits = tf.debugging.check_numerics(logits, "logits: a number is not finite; the numericals are too large")
        return {"logits": logits, "probability": tf.sigmoid(logits)}

    return answer
