"""DistributedEmbedding: a plan, the lookups in this rank's tables, and the exchange between the ranks."""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import tensorflow as tf

from dlrm_tf2.embedding.collectives import Collectives
from dlrm_tf2.embedding.dynamic.key_exchange import KeyExchange
from dlrm_tf2.embedding.dynamic.table import DynamicSettings, DynamicTable
from dlrm_tf2.embedding.dynamic.tables import DynamicTables
from dlrm_tf2.embedding.dynamic.tiers import Tiers
from dlrm_tf2.embedding.id_exchange import ExchangedIds
from dlrm_tf2.embedding.id_input import IdInput
from dlrm_tf2.embedding.ids import RankIds
from dlrm_tf2.embedding.lookup import Lookup
from dlrm_tf2.embedding.native_rows import NativeRows, VectorForm, choose_op
from dlrm_tf2.embedding.rank_lookups import LookupSettings, RankLookups
from dlrm_tf2.embedding.result_layout import ResultLayout
from dlrm_tf2.embedding.routes import Routes
from dlrm_tf2.embedding.row_exchange import RowExchange
from dlrm_tf2.embedding.row_updates import RowUpdates
from dlrm_tf2.embedding.slab import WEIGHTS, Slab, SlabSettings
from dlrm_tf2.embedding.train_step import TrainStep, loss_share
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.sharding.optimizer_state import needs_whole_rows
from dlrm_tf2.sharding.plan import Shard, ShardingPlan, check_tables, check_whole_rows
from dlrm_tf2.sharding.slabs import by_slab
from dlrm_tf2.sharding.tables import Table


class DistributedEmbedding:
    """Embedding tables spread over the ranks: whole, by rows, by columns, or replicated, as the plan says.

    Tables are updated by row and never see a gradient of their own size. `train_step` makes a whole training step; a
    step with its own rules (loss scaling, another reduction) is made of the parts:

        lookup = embedding.lookup(ids)
        with tf.GradientTape() as tape:
            tape.watch(lookup.vectors)
            result = embedding.exchange(lookup)   # [local batch, width], this rank's samples
            loss = ...                            # this rank's share of the mean over the global batch
        embedding.apply_gradient(lookup, tape.gradient(loss, lookup.vectors), learning_rate=0.1)

    Every rank must run every part, also a rank without tables: the others wait for it.

    Args:
      tables: names unique; the vectors lie in the result in the order of the tables and their features.
      plan: a plan of these tables for comm.size ranks.
      comm: the ranks.
      seed: seed of the initial weights and of the rounding of 16-bit weights, the same on every rank.
      initialize: False leaves the tables' memory as it is.
      optimizer: updates the rows; None where nothing is trained, and then no memory is taken for its slots.
      hotness: feature -> ids per sample, for the features that do not have exactly one; None for any number.
      data_parallel_input: every rank gets all features of its own samples. Otherwise a rank gets the features of its
        tables for the global batch, and only the features of replicated tables for its own samples.
      deduplicated: features whose rows are fetched once for all samples of a rank (with data_parallel_input).
      weighted: features whose ids have weights.
      wire_dtype: type in which vectors travel and are returned.
      dtype: type of the weights: float32, bfloat16 or float64. The optimizer's state of bfloat16 weights is float32;
        updated weights are rounded stochastically (embedding/rounding.py).
      embedding_op: "native", "tensorflow", or "auto": native where every rank can. Both give the same result, up to
        the rounding of sums.

      leading_columns: columns that the result is to have before the vectors, undefined, for the caller to write: so
        that vectors of another origin lie next to the vectors of the tables without a copy of these.
      safe_check: what happens when a key of a dynamic table finds no room: "error", "warn" (once a table), or "count"
        only. Such a key has the default vector.
      log_erased: whether dynamic tables note the keys that leave.
      tiers: how much memory dynamic tables may take on a rank, and the folder for the rest; None for all in memory.

    Attributes:
      native: whether the native ops look up and update the rows.
      table_dtype: type of the weights, as given.
      leading_columns: how many the result has: as asked, or 0 where there is no room without a copy.
      optimizer: as given.
      slots: what the tables keep for each row: the weights, and the slots of the optimizer.
      columns: feature -> (start, stop), its columns of the result, counted after the leading columns. A table without
        combiner gives a feature with hotness h its h rows one after the other.
      width: columns of the result.
      global_features: features whose ids this rank needs for the global batch.
      sample_features: features whose ids this rank needs for its own samples.

    Raises:
      ValueError: tables, plan, hotness and features contradict each other, or the optimizer is rowwise_adagrad and the
        plan splits a table by columns: the one accumulator of a row needs the whole row.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        plan: ShardingPlan,
        *,
        comm: Comm,
        seed: int,
        initialize: bool = True,
        optimizer: Optimizer | None = None,
        hotness: Mapping[str, int | None] | None = None,
        data_parallel_input: bool = False,
        deduplicated: Collection[str] = (),
        weighted: Collection[str] = (),
        wire_dtype: str = "float32",
        dtype: str = "float32",
        embedding_op: str = "auto",
        leading_columns: int = 0,
        safe_check: str = "error",
        log_erased: bool = False,
        tiers: Tiers | None = None,
    ):
        check_tables(plan, tables, comm.size)
        self.optimizer = optimizer
        self.tables, self.plan, self.rank, self.table_dtype = tuple(tables), plan, comm.rank, dtype
        self._collectives = Collectives(comm)
        self.slots = (WEIGHTS, *(optimizer.row_slots if optimizer else ()))
        wire, compute_dtype = tf.as_dtype(wire_dtype), tf.float64 if dtype == "float64" else tf.float32
        device = "gpu" if tf.config.get_visible_devices("GPU") else "cpu"
        chosen, why = choose_op(embedding_op, device=device, comm=comm, dtype=dtype, on_host=bool(plan.on_host))
        self.native = chosen == "native"
        for table in tables:
            if table.is_dynamic and not self.native:
                raise ValueError(
                    f"table {table.name!r}: it is dynamic, and only the native ops have dynamic tables; found {why}. "
                    "Build the ops with dlrm_tf2/ops/build.py (with nvcc on the path for a GPU, or hide the GPU), "
                    "leave embedding_op at 'auto', and dtype at float32 or bfloat16."
                )
            if table.is_dynamic and tiers is not None and device == "gpu":
                raise ValueError(
                    f"table {table.name!r}: found tiers on a rank with a GPU, whose memory holds its dynamic tables. "
                    "Leave tiers out, or hide the GPU."
                )
        layout = ResultLayout(tables, hotness or {})
        self.columns, self.width = layout.columns, layout.width
        if optimizer and needs_whole_rows(optimizer.name):
            check_whole_rows(plan, self.tables)
        by_name = {table.name: table for table in tables}
        shards_of_slabs = by_slab(plan.of_rank(comm.rank), plan)
        self._has_tiers = tiers is not None and any(table.is_dynamic for table in tables)
        self._caching = tiers is not None and tiers.caching
        sizes = tiers and tiers.sizes(shards_of_slabs, by_name, optimizer=optimizer, table_dtype=dtype)
        settings = SlabSettings(seed, initialize, optimizer, dtype=tf.as_dtype(dtype), tiers=sizes)
        self._slabs = {
            kind: Slab(shards, by_name, kind=kind, settings=settings) for kind, shards in shards_of_slabs.items()
        }
        # The samples of one rank are all samples, and there is no other rank to fetch rows from.
        data_parallel_input = data_parallel_input and comm.size > 1
        routes = Routes(plan, layout, data_parallel_input=data_parallel_input, deduplicated=deduplicated)
        weighted = frozenset(weighted)
        row_exchanges = [
            (KeyExchange if fetch.by_key else RowExchange)(
                self._collectives, plan, layout=layout, fetch=fetch, weighted=weighted
            )
            for fetch in routes.fetches
        ]
        self._dynamic = DynamicTables(
            tables, self._slabs, DynamicSettings(seed, optimizer, safe_check=safe_check, log_erased=log_erased)
        )
        self._input = IdInput(
            self._collectives, routes, row_exchanges=row_exchanges, weighted=weighted, dtype=compute_dtype
        )
        self.global_features, self.sample_features = self._input.global_features, self._input.sample_features
        rows = NativeRows(self._slabs, optimizer) if self.native else None
        self._lookups = RankLookups(
            self._collectives,
            self._slabs,
            rows=rows,
            routes=routes,
            row_exchanges=row_exchanges,
            settings=LookupSettings(weighted, VectorForm(wire, leading_columns), self._dynamic),
        )
        self.leading_columns = self._lookups.leading_columns
        self._updates = RowUpdates(self._collectives, rows, wire_dtype=wire, compute_dtype=compute_dtype)

    def ids(
        self,
        global_ids: Mapping[str, object] | None = None,
        local_ids: Mapping[str, object] | None = None,
        *,
        global_batch: int | None = None,
        global_weights: Mapping[str, object] | None = None,
        local_weights: Mapping[str, object] | None = None,
    ) -> RankIds:
        """Checks ids and puts them into the form that `lookup` takes.

        Args:
          global_ids: feature -> its ids for the global batch, for all of `global_features`: integers [samples] or
            [samples, hotness]; for any number of ids a tf.RaggedTensor or (ids [n], row_lengths [samples]).
          local_ids: the same for `sample_features` and the samples of this rank.
          global_batch: samples of all ranks together; may be left out where global_ids has a feature, or there is one
            rank.
          global_weights, local_weights: feature -> a weight for each of its ids.

        Raises:
          ValueError: a feature is missing, its ids are not integers or have another shape than its hotness asks for, or
            its weights are missing or unexpected.
          tf.errors.InvalidArgumentError: an id is negative or not below the table's num_rows, or the numbers of
            samples, ids and weights contradict each other.
        """
        return self._input.pack(
            global_ids,
            local_ids,
            global_batch=global_batch,
            global_weights=global_weights,
            local_weights=local_weights,
        )

    @property
    def signature(self) -> RankIds:
        """The tf.TensorSpecs of ids as a dataset has them, without weights: for tf.function.

        They are int32, but int64 where keys of dynamic tables are among them.
        """
        return self._input.signature

    @property
    def exchanges_ids(self) -> bool:
        """Whether ids travel between the ranks: with data-parallel input, unless every table is replicated; and the
        keys of dynamic tables on several ranks."""
        return self._input.is_exchanged

    def exchange_ids(self, ids: RankIds) -> ExchangedIds:
        """Brings the ids to the ranks that hold their rows. No table is read: it may run before older updates."""
        return self._input.exchange(ids)

    @property
    def has_tiers(self) -> bool:
        """Whether rows of dynamic tables may be in a file, on this rank as on all others."""
        return self._has_tiers

    @property
    def has_caches(self) -> bool:
        """Whether the memory for dynamic tables is a cache of their rows."""
        return self._has_tiers and self._caching

    def ask_ahead(self, ids: ExchangedIds) -> None:
        """Asks for rows that are in a file and that a later lookup will read, and does not wait for them.

        It may run while an older batch is updated. No result depends on it: no key is stored, and no row moves.
        """
        self._lookups.ask_ahead(ids)

    def lookup(
        self,
        ids: RankIds | ExchangedIds,
        training: bool = True,
        *,
        step: tf.Tensor | int | None = None,
        time: tf.Tensor | int | None = None,
        scores: Mapping[str, tf.Tensor | int] | None = None,
    ) -> Lookup:
        """Looks up the vectors that this rank makes, for itself and for the other ranks.

        In training, dynamic tables store missing keys, and other keys may leave for them: the gradient of a lookup must
        be applied before the next lookup in training; with a cache of rows, before any other lookup. All other
        arguments are for dynamic tables.

        Args:
          training: False stores no key and changes no score: missing keys have the default vector. So does a layer
            without an optimizer.
          step: the number of the step, from 1 on; needed in training with a dynamic table.
          time: nanoseconds, for the score "timestamp"; the clock of the rank when not given.
          scores: table -> the score of all keys of this batch, for the tables with the score "custom".

        Raises:
          ValueError: the step or a score is missing.
          tf.errors.InvalidArgumentError: a key finds no room, with safe_check "error".
          tf.errors.ResourceExhaustedError: a cache has no room for the rows of a batch. New keys then have no values:
            the layer must not be used any more.
        """
        touch = None
        if training and self.optimizer is not None:
            touch = self._dynamic.touch(step, time, scores=scores or {})
        return self._lookups(ids if isinstance(ids, ExchangedIds) else self.exchange_ids(ids), touch)

    def exchange(self, lookup: Lookup) -> tf.Tensor:
        """The vectors of this rank's samples, in the wire type. Differentiable.

        Returns:
          [local batch, leading_columns + width].
        """
        return self._lookups.exchange(lookup)

    def split(self, result: tf.Tensor) -> dict[str, tf.Tensor]:
        """The result by feature: feature -> [local batch, its columns]."""
        vectors = result[:, self.leading_columns :]
        return {feature: vectors[:, start:stop] for feature, (start, stop) in self.columns.items()}

    def apply_gradient(
        self,
        lookup: Lookup,
        gradients: Sequence[tf.Tensor],
        *,
        learning_rate: tf.Tensor | float,
        step: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Makes one step of the optimizer on the rows that were looked up.

        Args:
          lookup: what `lookup` returned.
          gradients: the gradients of the loss by `lookup.vectors`. The loss is this rank's share of the mean over the
            global batch, so that no gradient depends on the number of ranks.
          learning_rate: scalar.
          step: scalar, the number of the step from 1 on; adam and bfloat16 tables need it.

        Returns:
          A scalar, float32 or float64: 0 if all updates on this rank and their state are finite, else nan.

        Raises:
          ValueError: the layer has no optimizer, or `step` is missing where it is needed.
        """
        if self.optimizer is None:
            raise ValueError("the layer was made without an optimizer, so it cannot train: give it optimizer=.")
        if step is None and (self.optimizer.name == "adam" or self.table_dtype == "bfloat16"):
            who = "adam" if self.optimizer.name == "adam" else "the rounding of bfloat16 tables"
            raise ValueError(f"step is missing: {who} needs the number of the step, 1, 2, ...")
        parts = list(zip(lookup.parts, gradients, strict=True))
        return self._updates.apply(parts, learning_rate=learning_rate, step=step)

    def train_step(
        self,
        ids: RankIds | ExchangedIds,
        loss_fn: Callable[[dict[str, tf.Tensor]], tf.Tensor],
        *,
        learning_rate: tf.Tensor | float,
        step: tf.Tensor | int | None = None,
        variables: Sequence[tf.Variable] = (),
        scores: Mapping[str, tf.Tensor | int] | None = None,
    ) -> TrainStep:
        """Makes one training step on a global batch: lookup, exchange, loss, gradients, update of the tables.

        All ranks call it, in eager mode or inside a tf.function.

        Args:
          ids: what `ids` or `exchange_ids` returned.
          loss_fn: gets the vectors of this rank's samples, feature -> [local batch, its columns], and returns the loss
            of each sample, [local batch]. What is minimized is the mean over the global batch.
          learning_rate: scalar, for the tables.
          step: the number of the step from 1 on; adam, bfloat16 tables and dynamic tables need it.
          variables: other variables that loss_fn uses, equal on all ranks. Their update is up to the caller.
          scores: as `lookup` has them.

        Returns:
          The mean loss over the global batch, and its gradients by `variables`, the same on all ranks.
        """
        lookup = self.lookup(ids, step=step, scores=scores)
        share = loss_share(
            lambda: loss_fn(self.split(self.exchange(lookup))),
            lookup.vectors,
            variables=variables,
            global_batch=ids.global_ids.num_samples,
        )
        check = self.apply_gradient(lookup, share.by_vectors, learning_rate=learning_rate, step=step)
        by_variables = (tf.convert_to_tensor(gradient) for gradient in share.by_variables)
        parts = [share.loss + tf.cast(check, share.loss.dtype), *by_variables]
        loss, *gradients = self._collectives.sum_over_ranks(parts, "train_step")
        return TrainStep(loss, gradients)

    @property
    def dynamic_tables(self) -> dict[str, DynamicTable]:
        """Name -> the part of a dynamic table on this rank, where the rank owns buckets of the table."""
        return self._dynamic.by_name

    def expire(self, step: int, time: int | None = None) -> None:
        """Erases the expired keys from the dynamic tables of this rank; to be called between steps, now and then.

        Args:
          step: the last step that was made.
          time: nanoseconds; the clock when not given.
        """
        self._dynamic.expire(step, time)

    def note_step(self, step: int, time: int | None = None) -> None:
        """Notes when a step was made, for dumps of what has changed since a time; `expire` and each dump do so, too.

        Args:
          step: the last step that was made.
          time: nanoseconds; the clock when not given.
        """
        self._dynamic.note_step(step, time)

    def trim_erased(self, before_step: int) -> None:
        """Forgets which keys left the dynamic tables of this rank before a step, such as the steps that are dumped."""
        self._dynamic.trim_erased(before_step)

    def erase_small(self, least_norm: float) -> dict[str, int]:
        """Erases the keys of dynamic tables whose weights have an L2 norm below `least_norm`; between steps.

        Returns:
          Table -> how many keys were erased on this rank.
        """
        return {name: table.erase_small(least_norm) for name, table in self.dynamic_tables.items()}

    def read_rows(self, shard: Shard, slot: str, *, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of a shard of this rank, counted in its table: [stop - start, columns]."""
        return self._slab_of(shard).read_rows(shard, slot, start=start, stop=stop)

    def write_rows(self, shard: Shard, slot: str, *, start: int, values: np.ndarray) -> None:
        """Overwrites rows of a shard of this rank from `start` on, counted in its table, with [n, columns]."""
        self._slab_of(shard).write_rows(shard, slot, start=start, values=values)

    def write_rows_at(self, shard: Shard, slot: str, *, rows: np.ndarray, values: np.ndarray) -> None:
        """Overwrites any rows [n] of a shard of this rank, counted in its table, each at most once."""
        self._slab_of(shard).write_at(shard, slot, rows=rows, values=values)

    def _slab_of(self, shard: Shard) -> Slab:
        return self._slabs[next(iter(by_slab([shard], self.plan)))]
