"""DistributedEmbedding: a plan, the lookup in this rank's tables, and the exchange between ranks."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import tensorflow as tf

from dlrm_tf2.embedding.exchange import IdExchange, VectorExchange, samples_of_ranks, to_all_ranks
from dlrm_tf2.embedding.ids import RankIds, bags_of, pack, signature_of
from dlrm_tf2.embedding.lookup import Pooled, SlabLookup
from dlrm_tf2.embedding.result_columns import Layout
from dlrm_tf2.embedding.routes import Routes
from dlrm_tf2.embedding.row_exchange import Requests, RowExchange
from dlrm_tf2.embedding.slab import WEIGHTS, Slab, summed
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.sharding.plan import Shard, ShardingPlan, check_whole_rows
from dlrm_tf2.sharding.slabs import SlabKind, by_slab
from dlrm_tf2.sharding.tables import TableConfig


@dataclass(frozen=True)
class Lookup:
    """What DistributedEmbedding.lookup found.

    Attributes:
      vectors: the tensors by which the loss is to be differentiated. Their number and shapes are the plan's business.
      how: for each of them, where its rows are.
    """

    vectors: list[tf.Tensor]
    how: list[Pooled | Requests]


class DistributedEmbedding:
    """Embedding tables spread over the ranks: whole, by rows, by columns, or replicated, as the plan says.

    A training step uses it in four parts: tables are updated by row and never see a gradient of their own size.

        looked = embedding.lookup(ids)
        with tf.GradientTape() as tape:
            tape.watch(looked.vectors)
            result = embedding.exchange(looked)   # [local batch, width], this rank's samples
            loss = ...                            # this rank's share of the mean over the global batch
        zero = embedding.apply_gradient(looked, tape.gradient(loss, looked.vectors), learning_rate)
        return loss + zero                        # see apply_gradient

    Every rank must run every part, whatever it holds: the others wait for it.

    Args:
      tables: names unique; the vectors lie in the result in the order of the tables and their features.
      plan: of the same tables, for comm.size ranks.
      comm: the ranks.
      seed: seed of the initial weights, the same on every rank; None leaves the tables' memory as it is.
      optimizer: updates the rows; None where nothing is trained, and then no memory is taken for its slots.
      hotness: ids a sample of the features that do not have exactly one; None is any number.
      data_parallel_input: every rank gets all features of its own samples. Otherwise it gets the features of its
        tables for the global batch, and only those of replicated tables for its own samples.
      deduplicated: features whose rows are fetched once for all samples of a rank (with data_parallel_input).
      weighted: features whose ids have weights.
      wire_dtype: type in which vectors travel and are returned.
      dtype: type of the weights, float32 or float64.

    Attributes:
      columns: feature -> (start, stop), its columns of the result. A table without combiner gives a feature with
        hotness h its h rows one after the other.
      global_features, sample_features: whose ids this rank needs for the global batch, and for its own samples.

    Raises:
      ValueError: the tables, hotness and features contradict each other, or row-wise Adagrad meets a table split by
        columns: its one accumulator a row needs the whole row.
    """

    def __init__(
        self,
        tables: Sequence[TableConfig],
        plan: ShardingPlan,
        *,
        comm: Comm,
        seed: int | None,
        optimizer: Optimizer | None = None,
        hotness: Mapping[str, int | None] | None = None,
        data_parallel_input: bool = False,
        deduplicated: Collection[str] = (),
        weighted: Collection[str] = (),
        wire_dtype: str = "float32",
        dtype: str = "float32",
    ):
        assert plan.world_size == comm.size
        self.tables, self.plan, self.rank, self._comm = tuple(tables), plan, comm.rank, comm
        self.slots = (WEIGHTS, *(optimizer.row_slots if optimizer else ()))
        self._wire_dtype, self._dtype = tf.as_dtype(wire_dtype), tf.as_dtype(dtype)
        self._layout = layout = Layout(tables, hotness or {})
        self.columns, self.width = layout.columns, layout.width
        if optimizer and optimizer.name == "rowwise_adagrad":
            check_whole_rows(plan, self.tables)
        # Among one rank, its samples are all samples, and there is nobody to fetch rows from.
        self._data_parallel = data_parallel_input and comm.size > 1
        by_name = {table.name: table for table in tables}
        self._slabs = {
            kind: Slab(shards, by_name, seed=seed, optimizer=optimizer, dtype=self._dtype, on_host=kind.on_host)
            for kind, shards in by_slab(plan.of_rank(comm.rank), plan).items()
        }
        routes = Routes(plan, layout, data_parallel_input=self._data_parallel, deduplicated=deduplicated)
        my_features = routes.pooled_by_ranks[comm.rank]
        self.global_features = () if self._data_parallel else my_features
        self.sample_features = tuple(layout.table_of) if self._data_parallel else routes.own
        self._sample_columns = layout.fixed_columns(self.sample_features)
        self._ids = None
        if self._data_parallel and any(routes.pooled_by_ranks):
            self._ids = IdExchange(
                comm, layout, features=self.sample_features, features_of_ranks=routes.pooled_by_ranks
            )
        pooled, own = routes.pooled_pieces(comm.rank), routes.own_pieces(comm.rank)
        self._lookups = {
            kind: SlabLookup(self._slabs[kind], pieces, layout=layout, features=my_features, weighted=weighted)
            for kind, pieces in pooled.items()
        }
        self._own_lookups = {
            kind: SlabLookup(self._slabs[kind], pieces, layout=layout, features=self.sample_features, weighted=weighted)
            for kind, pieces in own.items()
        }
        self._row_exchanges = [
            (kind, RowExchange(comm, plan, layout=layout, features=features, kind=kind, once=once))
            for features, kind, once in routes.fetchings
        ]
        # Of each tensor that `lookup` returns, the kind of slab that it is from. A rank that looks up nothing for all
        # samples has one of zeros, see there.
        self._kinds = [*(pooled or [None]), *own, *(kind for kind, _ in self._row_exchanges)]
        self._first_own, self._first_fetched = len(pooled or [None]), len(pooled or [None]) + len(own)
        pieces_of_ranks = [list(chain(*routes.pooled_pieces(rank).values())) for rank in range(comm.size)]
        for_me = list(chain(*own.values(), *(rows.pieces for _, rows in self._row_exchanges)))
        self._exchange = VectorExchange(comm, pieces_of_ranks, own=for_me, width=self.width)

    def ids(
        self,
        of_all: Mapping[str, object] | None = None,
        of_mine: Mapping[str, object] | None = None,
        *,
        global_batch: int | None = None,
        weights_of_all: Mapping[str, object] | None = None,
        weights_of_mine: Mapping[str, object] | None = None,
    ) -> RankIds:
        """Checks ids and puts them into the form that `lookup` takes.

        Args:
          of_all: feature -> its ids for the global batch, for all of `global_features`: integers [samples] or
            [samples, hotness], or for any number of ids a tf.RaggedTensor or (ids [n], row_lengths [samples]).
          of_mine: the same for `sample_features` and the samples of this rank.
          global_batch: samples of all ranks together; may be left out where of_all says it, or there is one rank.
          weights_of_all, weights_of_mine: feature -> a weight for each of its ids.

        Raises:
          ValueError: a feature is missing, or has another shape than its hotness says.
          tf.errors.InvalidArgumentError: an id is not one of its table.
        """
        if self._comm.size == 1 and not of_all:  # its samples are all samples
            of_all, weights_of_all = of_mine, weights_of_mine
        everywhere = pack(
            of_all or {},
            weights_of_all or {},
            features=self.global_features,
            layout=self._layout,
            num_samples=global_batch,
        )
        num_mine = self._num_mine(tf.shape(everywhere.fixed)[0])
        here = pack(
            of_mine or {},
            weights_of_mine or {},
            features=self.sample_features,
            layout=self._layout,
            num_samples=num_mine,
        )
        return RankIds(everywhere, here)

    @property
    def signature(self) -> RankIds:
        """The form of the ids of a batch as a dataset has them, int32 and without weights: for tf.function."""
        return RankIds(*(signature_of(names, self._layout) for names in (self.global_features, self.sample_features)))

    def lookup(self, ids: RankIds) -> Lookup:
        """Looks up what this rank has to look up: for itself and for the others."""
        of_all, came = ids.of_all, []
        if self._ids:
            of_all, came = self._ids(ids.of_mine, tf.shape(ids.of_all.fixed)[0])
        found = [lookup(of_all) for lookup in self._lookups.values()]
        found += [lookup(ids.of_mine) for lookup in self._own_lookups.values()]
        for kind, exchange in self._row_exchanges:
            bags = {
                feature: bags_of(
                    ids.of_mine, feature, layout=self._layout, columns=self._sample_columns, dtype=self._dtype
                )
                for feature in exchange.features
            }
            requests = exchange.request(bags, tf.shape(ids.of_mine.fixed)[0], self._dtype)
            came.append(requests.asked_rows)
            found.append((self._gather(kind, requests.asked_rows), requests))
        if not self._lookups:  # something to differentiate by: this rank too takes part in the exchange of gradients
            found.insert(0, (tf.zeros([tf.shape(of_all.fixed)[0], 1, 1], self._dtype), Pooled(tf.zeros([0], tf.int64))))
        vectors = [tf.cast(vectors, self._wire_dtype) for vectors, _ in found]
        for received in came:
            # Others wait until this rank has received, also what is of no use here. TensorFlow leaves out what no value
            # depends on, control dependencies or not; no size is negative, so this adds 0.
            vectors[0] += tf.cast(tf.size(received) < 0, self._wire_dtype)
        return Lookup(vectors, [how for _, how in found])

    def exchange(self, looked: Lookup) -> tf.Tensor:
        """The vectors of this rank's samples: [local batch, width], in the wire type. Differentiable."""
        own, fetched = self._first_own, self._first_fetched
        local = _side_by_side(looked.vectors[:own])
        for_me = [_flat(vectors) for vectors in looked.vectors[own:fetched]]
        for (_, exchange), vectors, requests in zip(
            self._row_exchanges, looked.vectors[fetched:], looked.how[fetched:], strict=True
        ):
            for_me.append(exchange.fetch(vectors, requests))
        num_mine = self._num_mine(tf.shape(local)[0])
        return self._exchange(local, tf.concat(for_me, axis=1) if for_me else tf.zeros([num_mine, 0], local.dtype))

    def split(self, result: tf.Tensor) -> dict[str, tf.Tensor]:
        """The result by feature: [local batch, its columns] each."""
        return {feature: result[:, start:stop] for feature, (start, stop) in self.columns.items()}

    def apply_gradient(
        self,
        looked: Lookup,
        gradients: Sequence[tf.Tensor],
        *,
        learning_rate: tf.Tensor,
        step: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """One step of the optimizer on the rows that were looked up.

        Args:
          gradients: of the loss, by `looked.vectors`; the loss is this rank's share of the mean over the global batch,
            so that no gradient depends on the number of ranks.
          learning_rate: scalar.
          step: 1, 2, ..., which adam reads.

        Returns:
          0, in the type of the weights; nan if an update of this rank's rows is not finite. A step that is a tf.function
          must return it, or add it to what it returns:
          without a value that depends on them TensorFlow leaves out exchanges of which this rank has no use, and the
          other ranks wait for it.
        """
        receipt = tf.zeros([], self._dtype)
        updates: dict[SlabKind, list[tuple[tf.Tensor, tf.Tensor]]] = defaultdict(list)
        for kind, how, gradient in zip(self._kinds, looked.how, gradients, strict=True):
            gradient = tf.cast(gradient, self._dtype)
            if kind not in self._slabs:
                receipt += tf.reduce_sum(gradient)  # of no rows; zeros, see VectorExchange
                continue
            with self._slabs[kind].device():
                rows, gradient = how.by_row(gradient)
            if kind.replicated:  # every rank makes the same update of its replica
                rows, gradient = summed(rows, gradient)
                rows, gradient = to_all_ranks(self._comm, rows, gradients=gradient, name=f"replicas_{kind.name}")
            updates[kind].append((rows, gradient))
        for kind, parts in updates.items():
            rows, gradient = parts[0] if len(parts) == 1 else (tf.concat(part, 0) for part in zip(*parts, strict=True))
            receipt += self._slabs[kind].update(rows, gradient, learning_rate=learning_rate, step=step)
        return receipt

    def read_rows(self, shard: Shard, slot: str, *, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of a shard of this rank, counted in its table: [stop - start, columns]."""
        return self._slab_of(shard).read_rows(shard, slot, start=start, stop=stop)

    def write_rows(self, shard: Shard, slot: str, *, start: int, values: np.ndarray) -> None:
        """Overwrites rows of a shard of this rank from `start` on, counted in its table, with [n, columns]."""
        self._slab_of(shard).write_rows(shard, slot, start=start, values=values)

    def _num_mine(self, global_batch: tf.Tensor) -> tf.Tensor:
        """Samples of this rank."""
        return samples_of_ranks(global_batch, self._comm.size)[self.rank]

    def _gather(self, kind: SlabKind, rows: tf.Tensor) -> tf.Tensor:
        return self._slabs[kind].gather(rows) if kind in self._slabs else tf.zeros([0, kind.width], self._dtype)

    def _slab_of(self, shard: Shard) -> Slab:
        return self._slabs[next(iter(by_slab([shard], self.plan)))]


def _flat(vectors: tf.Tensor) -> tf.Tensor:
    """[samples, pieces, width] -> [samples, pieces * width]"""
    return tf.reshape(vectors, [tf.shape(vectors)[0], vectors.shape[1] * vectors.shape[2]])


def _side_by_side(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    return _flat(parts[0]) if len(parts) == 1 else tf.concat([_flat(part) for part in parts], axis=1)
