"""Embedding tables divided over the ranks: the layer, its tables and its plan. Importing it starts TensorFlow."""

from dlrm_tf2.embedding.layer import DistributedEmbedding
from dlrm_tf2.sharding.plan import ShardingPlan, make_plan
from dlrm_tf2.sharding.tables import TableConfig

__all__ = ["DistributedEmbedding", "ShardingPlan", "TableConfig", "make_plan"]
