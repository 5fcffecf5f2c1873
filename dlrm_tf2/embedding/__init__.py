"""Embedding tables divided over the ranks.

    from dlrm_tf2.embedding import DistributedEmbedding, TableConfig, make_plan

layer             DistributedEmbedding: lookup, exchange, update
train_step        the loss of a rank's samples, and its gradients
ids               the ids of a batch: checked and packed
id_input          the ids that a rank is given, and their way to the tables
bags              the ids of one feature one by one, with sample and factor
result_layout     which columns of the result each feature has, and the pieces that they are made of
routes            the route that each feature's vectors take: replicated, pooled or fetched
slab              the shards of one width in one variable: gather, update, read, write
initial_weights   the first values of a table, the same for any plan
lookup            ids -> pooled vectors of one slab, and gradients back to its rows
rank_lookups      all lookups of a rank, and the result that the exchange makes of them
collectives       what all ranks do together, once in every step
host_ranks        which ranks share a host, and what a rank sends to them
host_sums         gradients of replicated rows, summed in each host before they travel to other hosts
relay             ranks of a host request rows in common, so that each enters the host once
id_exchange       ids to the ranks of their tables
exchange_columns  how the pieces of several ranks become the result: a drawing, and the numbers. No TensorFlow
vector_exchange   pooled vectors to the ranks of their samples, gradients back
row_exchange      single rows are requested from the ranks that hold them
row_fetch         requested rows to the samples, gradients back
dynamic/          tables whose rows belong to keys that come and go
pipeline          the ids of the next batch travel while a batch is computed

Importing this folder starts TensorFlow; planning alone does not need it (dlrm_tf2/sharding).
"""

from dlrm_tf2.embedding.layer import DistributedEmbedding
from dlrm_tf2.sharding.dynamic_tables import DynamicTableConfig
from dlrm_tf2.sharding.plan import ShardingPlan, make_plan
from dlrm_tf2.sharding.tables import TableConfig

__all__ = ["DistributedEmbedding", "DynamicTableConfig", "ShardingPlan", "TableConfig", "make_plan"]
