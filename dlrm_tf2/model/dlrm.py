"""DLRM, as in Figure 1 of its paper: bottom MLP, embeddings, interaction, top MLP. With cross layers it is DCNv2.

Source: Naumov et al., "Deep Learning Recommendation Model for Personalization and Recommendation Systems" (2019).
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import tensorflow as tf

from dlrm_tf2.embedding.dynamic.tiers import Tiers
from dlrm_tf2.embedding.id_exchange import ExchangedIds
from dlrm_tf2.embedding.ids import RankIds
from dlrm_tf2.embedding.layer import DistributedEmbedding, Lookup
from dlrm_tf2.model.config import ModelConfig
from dlrm_tf2.model.cross import CrossNetwork
from dlrm_tf2.model.interaction import TENSORFLOW, Interaction
from dlrm_tf2.model.mlp import Mlp
from dlrm_tf2.model.projection import Projection
from dlrm_tf2.optim import DenseOptimizer, Optimizer
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.sharding.plan import ShardingPlan


@dataclass(frozen=True)
class ComputeSettings:
    """How a rank computes a model. Runs of one checkpoint may use different settings.

    Attributes:
      compute_dtype: type in which the MLPs and the interaction compute.
      xla: compile the MLPs and the interaction with XLA.
      interaction: the op of the dot interaction, see dlrm_tf2.model.interaction.choose_op.
      embedding_op: "native", "tensorflow" or "auto", see DistributedEmbedding.
      table_dtype: type of the tables' weights, see dtype of DistributedEmbedding.
      optimizer: the formula that updates all weights.
      training: False allocates no optimizer state for the tables.
      mlp_init: first values of the MLPs, a key of dlrm_tf2.model.mlp.INITS.
      initialize_tables: False leaves the tables' memory as it is, for weights that a checkpoint provides.
      data_parallel_input, deduplicated, safe_check, tiers: see DistributedEmbedding.
    """

    compute_dtype: str = "float32"
    xla: bool = False
    interaction: Interaction = TENSORFLOW
    embedding_op: str = "auto"
    table_dtype: str = "float32"
    optimizer: Optimizer = Optimizer()
    training: bool = True
    mlp_init: str = "glorot"
    initialize_tables: bool = True
    data_parallel_input: bool = False
    deduplicated: Collection[str] = ()
    safe_check: str = "error"
    tiers: Tiers | None = None


class Dlrm:
    """The model on one rank: all of the MLPs, and this rank's shards of the tables.

    Args:
      config: the model's shape.
      plan: where the tables are.
      comm: the ranks.
      seed: seed of the initial weights, the same on every rank.
      settings: how this rank computes the model.

    Attributes:
      config, comm: as given.
      embedding: the tables.
      dense_optimizer: updates the variables of the MLPs and of the interaction.
    """

    def __init__(
        self,
        config: ModelConfig,
        plan: ShardingPlan,
        *,
        comm: Comm,
        seed: int,
        settings: ComputeSettings = ComputeSettings(),  # noqa: B008 - frozen
    ):
        self.config, self.comm = config, comm
        self.compute_dtype = tf.as_dtype(settings.compute_dtype)
        # The published model pads 13 numericals to 16 columns, and its checkpoints have a kernel of 16 rows.
        self._input_width = -(-config.num_numerical // 8) * 8
        mlp = partial(Mlp, seed=seed, init=settings.mlp_init)
        self.bottom_mlp = mlp("bottom_mlp", self._input_width, dims=config.bottom_mlp_dims, relu_at_end=True)
        self.cross, self._projection, self.interaction = None, None, settings.interaction
        if config.interaction == "cross":
            self.cross = CrossNetwork(
                config.interaction_width,
                config.num_cross_layers,
                projection_dim=config.cross_layer_projection_dim,
                seed=seed,
            )
            self.interaction = Interaction("cross", self.cross, compiles=True)
        if config.interaction == "projection":
            branch1, branch2 = config.projection_dims
            self._projection = Projection(
                1 + len(config.features),
                config.embedding_dim,
                branch1_dims=branch1,
                branch2_dims=branch2,
                seed=seed,
                init=settings.mlp_init,
            )
            self.interaction = Interaction("projection", self._projection, compiles=True)
        self.top_mlp = mlp("top_mlp", config.interaction_width, dims=config.top_mlp_dims, relu_at_end=False)
        self.embedding = DistributedEmbedding(
            config.tables,
            plan,
            comm=comm,
            seed=seed,
            initialize=settings.initialize_tables,
            optimizer=settings.optimizer if settings.training else None,
            hotness=config.hotness_of,
            data_parallel_input=settings.data_parallel_input,
            deduplicated=settings.deduplicated,
            wire_dtype=settings.compute_dtype,
            dtype=settings.table_dtype,
            embedding_op=settings.embedding_op,
            leading_columns=config.bottom_width if self.interaction.join else 0,
            safe_check=settings.safe_check,
            tiers=settings.tiers,
        )
        self.dense_optimizer = DenseOptimizer(settings.optimizer, self.dense_variables)
        self._bottom, self._above, self._dense = self._bottom_vector, self._above_interaction, self._dense_block
        if settings.xla and self.interaction.compiles:
            self._dense = tf.function(self._dense_block, jit_compile=True)
        elif settings.xla:  # one compiled block on either side of the op
            self._bottom = tf.function(self._bottom_vector, jit_compile=True)
            self._above = tf.function(self._above_interaction, jit_compile=True)

    @property
    def dense_variables(self) -> list[tf.Variable]:
        """The replicated variables, in a fixed order."""
        between = self.cross or self._projection
        between = between.variables_in_order if between else []
        return [*self.bottom_mlp.trainable_variables, *between, *self.top_mlp.trainable_variables]

    @property
    def dense_by_name(self) -> dict[str, tf.Variable]:
        """The replicated variables and their optimizer state, by name."""
        variables = {variable.name.removesuffix(":0"): variable for variable in self.dense_variables}
        return variables | self.dense_optimizer.by_name

    def lookup(self, ids: RankIds | ExchangedIds, step: tf.Tensor | int | None = None) -> Lookup:
        """The vectors that this rank looks up for all ranks, in the compute type.

        Args:
          step: in training, the number of the step, with which dynamic tables store keys; else None.
        """
        return self.embedding.lookup(ids, training=step is not None, step=step)

    def logits(self, numerical: tf.Tensor, lookup: Lookup) -> tf.Tensor:
        """Logits of this rank's samples, float32 [local batch].

        Args:
          numerical: float32 [local batch, numericals].
          lookup: what `lookup` returned.
        """
        return self._dense(numerical, self.embedding.exchange(lookup))

    def _dense_block(self, numerical: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        return self._above(self.interaction.compute(self._joined(self._bottom(numerical), vectors)))

    def _bottom_vector(self, numerical: tf.Tensor) -> tf.Tensor:
        """The bottom MLP's vector, [local batch, bottom width]."""
        padding = self._input_width - self.config.num_numerical
        return self.bottom_mlp(tf.pad(tf.cast(numerical, self.compute_dtype), [[0, 0], [0, padding]]))

    def _joined(self, bottom: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
        """The interaction's input, the bottom MLP's vector first.

        For dot [local batch, 1 + features, width]; for the others all vectors in a row.
        """
        room = self.embedding.leading_columns
        joined = self.interaction.join(vectors, bottom) if room else tf.concat([bottom, vectors], axis=1)
        if self.cross or self._projection:
            return joined
        return tf.reshape(joined, [-1, 1 + len(self.config.features), self.config.embedding_dim])

    def _above_interaction(self, interacted: tf.Tensor) -> tf.Tensor:
        """Logits, float32 [local batch]."""
        return tf.cast(self.top_mlp(interacted)[:, 0], tf.float32)
