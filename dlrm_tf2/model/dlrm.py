"""DLRM, as in Figure 1 of its paper: bottom MLP, embeddings, interaction, top MLP. With cross layers it is DCNv2.

Source: Naumov et al., "Deep Learning Recommendation Model for Personalization and Recommendation Systems" (2019).
"""

from collections.abc import Collection

import tensorflow as tf

from dlrm_tf2.embedding.ids import RankIds
from dlrm_tf2.embedding.layer import DistributedEmbedding, Lookup
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.model.cross import CrossNetwork
from dlrm_tf2.model.interaction import TENSORFLOW, Interaction
from dlrm_tf2.model.mlp import Mlp
from dlrm_tf2.optim import DenseOptimizer, Optimizer
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.sharding.plan import ShardingPlan


class Dlrm:
    """The model on one rank: all of the MLPs, and this rank's share of the tables.

    Args:
      config: the model's shape.
      plan: where the tables are.
      comm: the ranks.
      seed: seed of the initial weights, the same on every rank.
      compute_dtype: type in which MLPs and interaction compute.
      xla: compile MLPs and interaction.
      optimizer: the formula by which everything is updated.
      training: False takes no memory for what the optimizer keeps for the tables.
      data_parallel_input, deduplicated: see DistributedEmbedding.
      initialize_tables: False leaves the tables' memory as it is, for weights that a checkpoint is about to bring.
      interaction: the op that computes the dot interaction, see dlrm_tf2.model.interaction.choose_op.
    """

    def __init__(
        self,
        config: ModelConfig,
        plan: ShardingPlan,
        *,
        comm: Comm,
        seed: int,
        compute_dtype: str = "float32",
        xla: bool = False,
        initialize_tables: bool = True,
        optimizer: Optimizer | None = None,
        training: bool = True,
        data_parallel_input: bool = False,
        deduplicated: Collection[str] = (),
        interaction: Interaction = TENSORFLOW,
    ):
        self.config = config
        self.compute_dtype = tf.as_dtype(compute_dtype)
        # The published model pads 13 numericals to 16 columns, and its checkpoints have a kernel of 16 rows.
        self._input_width = -(-config.num_numerical // 8) * 8
        self.bottom_mlp = Mlp("bottom_mlp", self._input_width, dims=config.bottom_mlp_dims, relu_at_end=True, seed=seed)
        self.cross = None
        if config.interaction == "cross":
            self.cross = CrossNetwork(
                config.interaction_width,
                config.num_cross_layers,
                projection_dim=config.cross_layer_projection_dim,
                seed=seed,
            )
            interaction = Interaction("cross", self.cross, compiles=True)
        self.top_mlp = Mlp("top_mlp", config.interaction_width, dims=config.top_mlp_dims, relu_at_end=False, seed=seed)
        optimizer = optimizer or Optimizer()
        self.embedding = DistributedEmbedding(
            config.tables,
            plan,
            comm=comm,
            seed=seed if initialize_tables else None,
            optimizer=optimizer if training else None,
            hotness=config.hotness_of,
            data_parallel_input=data_parallel_input,
            deduplicated=deduplicated,
            wire_dtype=compute_dtype,
        )
        self.dense_optimizer = DenseOptimizer(optimizer, self.dense_variables)
        self.interaction = interaction
        self._below, self._above, self._dense = self._below_interaction, self._above_interaction, self._dense_block
        if xla and interaction.compiles:
            self._dense = tf.function(self._dense_block, jit_compile=True)
        elif xla:  # one compiled block on either side of the op
            self._below = tf.function(self._below_interaction, jit_compile=True)
            self._above = tf.function(self._above_interaction, jit_compile=True)

    @property
    def dense_variables(self) -> list[tf.Variable]:
        """The replicated variables, in a fixed order."""
        cross = self.cross.variables_in_order if self.cross else []
        return [*self.bottom_mlp.trainable_variables, *cross, *self.top_mlp.trainable_variables]

    @property
    def dense_by_name(self) -> dict[str, tf.Variable]:
        """The replicated variables, and what the optimizer keeps for them."""
        variables = {variable.name.removesuffix(":0"): variable for variable in self.dense_variables}
        return variables | self.dense_optimizer.by_name

    def lookup(self, ids: RankIds) -> Lookup:
        """What this rank looks up, in the compute type."""
        return self.embedding.lookup(ids)

    def logits(self, numerical: tf.Tensor, lookup: Lookup) -> tf.Tensor:
        """Logits of this rank's samples, float32 [local batch].

        Args:
          numerical: float32 [local batch, numericals].
          looked: what `lookup` returned.
        """
        return self._dense(numerical, self.embedding.exchange(lookup))

    def _dense_block(self, numerical: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        return self._above(self.interaction.compute(self._below(numerical, vectors)))

    def _below_interaction(self, numerical: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        """The interaction's input, the bottom MLP's vector first.

        [local batch, 1 + features, width] for dot; one after the other, [local batch, interaction width], for cross.
        """
        padding = self._input_width - self.config.num_numerical
        inputs = tf.pad(tf.cast(numerical, self.compute_dtype), [[0, 0], [0, padding]])
        bottom = self.bottom_mlp(inputs)
        if self.cross:
            return tf.concat([bottom, vectors], axis=1)
        vectors = tf.reshape(vectors, [-1, len(self.config.features), self.config.embedding_dim])
        return tf.concat([bottom[:, tf.newaxis, :], vectors], axis=1)

    def _above_interaction(self, interacted: tf.Tensor) -> tf.Tensor:
        """Logits, float32 [local batch]."""
        return tf.cast(self.top_mlp(interacted)[:, 0], tf.float32)
