"""A synthetic model on one rank, with the published optimizers."""

import tensorflow as tf

from dlrm_tf2.benchmarks.zoo import ZooModel
from dlrm_tf2.embedding.id_exchange import ExchangedIds
from dlrm_tf2.embedding.ids import RankIds
from dlrm_tf2.embedding.layer import DistributedEmbedding
from dlrm_tf2.embedding.lookup import Lookup
from dlrm_tf2.model.dlrm import ComputeSettings
from dlrm_tf2.model.mlp import Mlp
from dlrm_tf2.optim import DenseOptimizer, Optimizer
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.sharding.plan import ShardingPlan

# Name -> the formula with its constants, and the learning rate. rowwise_adagrad is not published; it has adagrad's.
# Source: the defaults of Keras, and 0.03 for sgd, in distributed-embeddings' synthetic models.
OPTIMIZERS = {
    "sgd": (Optimizer("sgd"), 0.03),
    "adagrad": (Optimizer("adagrad", epsilon=1e-7, initial_accumulator=0.1), 1e-3),
    "rowwise_adagrad": (Optimizer("rowwise_adagrad", epsilon=1e-7, initial_accumulator=0.1), 1e-3),
    "adam": (Optimizer("adam", beta1=0.9, beta2=0.999, epsilon=1e-7), 1e-3),
}


class SyntheticModel:
    """All of the MLP, and this rank's shards of the tables. It has what TrainingStep asks of a model.

    Args:
      config: the model's shape.
      plan: where the tables are.
      comm: the ranks.
      seed: seed of the initial weights, the same on every rank.
      settings: how this rank computes the model; the interaction and XLA are not read.

    Attributes:
      config, comm: as given.
      embedding: the tables.
      dense_optimizer: updates the variables of the MLP.
    """

    def __init__(self, config: ZooModel, plan: ShardingPlan, *, comm: Comm, seed: int, settings: ComputeSettings):
        self.config, self.comm = config, comm
        self.compute_dtype = tf.as_dtype(settings.compute_dtype)
        self.embedding = DistributedEmbedding(
            config.tables,
            plan,
            comm=comm,
            seed=seed,
            optimizer=settings.optimizer,
            hotness=config.hotness,
            data_parallel_input=settings.data_parallel_input,
            deduplicated=settings.deduplicated,
            wire_dtype=settings.compute_dtype,
            dtype=settings.table_dtype,
            embedding_op=settings.embedding_op,
        )
        self.mlp = Mlp("mlp", config.mlp_input_width, dims=config.mlp_dims, relu_at_end=False, seed=seed)
        self.dense_optimizer = DenseOptimizer(settings.optimizer, self.dense_variables)

    @property
    def dense_variables(self) -> list[tf.Variable]:
        """The replicated variables, in a fixed order."""
        return list(self.mlp.trainable_variables)

    def lookup(self, ids: RankIds | ExchangedIds, step: tf.Tensor | int | None = None) -> Lookup:
        """The vectors that this rank looks up for all ranks, in the compute type; with a step, in training."""
        return self.embedding.lookup(ids, training=step is not None, step=step)

    def logits(self, numerical: tf.Tensor, lookup: Lookup) -> tf.Tensor:
        """Logits of this rank's samples, float32 [local batch].

        Args:
          numerical: float32 [local batch, numericals].
          lookup: what `lookup` returned.
        """
        return self.dense_block(numerical, self.embedding.exchange(lookup))

    def dense_block(self, numerical: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        """Logits of this rank's samples from their vectors [local batch, output width]: pooling and MLP."""
        pooled = vectors if self.config.pooling is None else average_pooled(vectors, self.config.pooling)
        joined = tf.concat([pooled, tf.cast(numerical, self.compute_dtype)], axis=1)
        return tf.cast(self.mlp(joined)[:, 0], tf.float32)


def average_pooled(vectors: tf.Tensor, window: int) -> tf.Tensor:
    """The means of windows of columns, [samples, columns] -> [samples, ceil(columns / window)].

    The windows lie side by side and may be wider than the columns: by half of the excess at either end, and by one
    column more at the right end where the excess is odd. A mean counts existing columns only.

    Source: TensorFlow's average pooling with padding "SAME".
    """
    columns = vectors.shape[1]
    windows = -(-columns // window)
    excess = windows * window - columns
    left, right = excess // 2, excess - excess // 2
    sums = tf.reduce_sum(tf.reshape(tf.pad(vectors, [[0, 0], [left, right]]), [-1, windows, window]), axis=2)
    existing = [window] * windows
    existing[0] -= left
    existing[-1] -= right
    return sums / tf.constant(existing, sums.dtype)
