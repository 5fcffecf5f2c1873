"""The native ops on the slabs of a rank: one call looks up all slabs, one call updates all slabs.

With TensorFlow's ops the same is done by embedding/lookup.py and Slab.update.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

import tensorflow as tf

from dlrm_tf2 import ops
from dlrm_tf2.embedding.ids import IdBatch
from dlrm_tf2.embedding.result_layout import Piece, ResultLayout
from dlrm_tf2.embedding.slab import Slab
from dlrm_tf2.ops import embedding_rows
from dlrm_tf2.ops.embedding_rows import Bags, IdTensors, SlabVariables
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.comm import Comm
from dlrm_tf2.sharding.slabs import SlabKind

_HOST = "/CPU:0"
_NO_FACTORS = -1


class RowGradients(NamedTuple):
    """Gradients of vectors, and the rows that the vectors were pooled from: what one update is made of.

    Attributes:
      bags: the pieces whose vectors these are, as if there were no other gradients.
      tensors: their ids.
      gradient: [samples, columns].
    """

    bags: Sequence[Bags]
    tensors: IdTensors
    gradient: tf.Tensor


@dataclass(frozen=True)
class PooledVectors:
    """Vectors that the native lookup pooled.

    Attributes:
      vectors: [samples, columns], the vectors of all pieces of a sample, in the order of the result.
      bags, tensors: what they were pooled from, except default rows.
      replicated: whether the tables are replicated, so that their gradients are the gradients of all ranks.
    """

    vectors: tf.Tensor
    bags: Sequence[Bags]
    tensors: IdTensors
    replicated: bool

    def with_gradient(self, gradient: tf.Tensor) -> RowGradients:
        """The gradient [samples, columns] of `vectors`, with the rows that it belongs to."""
        return RowGradients(self.bags, self.tensors, gradient)


class NativeRows:
    """Looks up and updates the rows of some slabs.

    Args:
      slabs: the slabs of this rank.
      optimizer: updates the rows; None where nothing is trained.
    """

    def __init__(self, slabs: Mapping[SlabKind, Slab], optimizer: Optimizer | None):
        self.slabs, self._optimizer = slabs, optimizer
        self._numbers = {kind: number for number, kind in enumerate(slabs)}
        self.variables = [variables_of(slab) for slab in slabs.values()]

    def number_of(self, kind: SlabKind) -> int:
        """The number of a slab in the arguments of the ops."""
        return self._numbers[kind]

    def rows_of(self, slab: Slab, rows: tf.Tensor, *, gradient: tf.Tensor) -> RowGradients:
        """Gradients [n, width] of single rows [n] of a slab; gradients of default rows are left out."""
        bags = Bags(
            self.number_of(slab.kind), first_row=0, num_ids=_all_rows(slab), first_id=0, last_id=slab.num_rows, ids=0,
            hotness=1, column=0, lengths=0, weights=_NO_FACTORS, mean=0, vectors=0, vectors_column=0, feature="rows",
        )  # fmt: skip
        return RowGradients([bags], IdTensors([rows[:, tf.newaxis]]), gradient)

    def sums_by_slab(self, part: RowGradients) -> list[tuple[Slab, tf.Tensor, tf.Tensor]]:
        """For each slab (slab, rows [n] that the gradients are for, each once, and the sums [n, width] of these)."""
        found = []
        for number, slab in enumerate(self.slabs.values()):
            bags = [one._replace(slab=0) for one in part.bags if one.slab == number]
            if bags:
                rows, sums = embedding_rows.sum_by_row(
                    bags, part.gradient, tensors=part.tensors, num_rows=slab.num_rows, width=slab.width
                )
                found.append((slab, rows, sums))
        return found

    def update(self, parts: Sequence[RowGradients], *, learning_rate: tf.Tensor, step: tf.Tensor | None) -> tf.Tensor:
        """Makes one step of the optimizer; the gradients of a row are added up over all parts.

        Args:
          parts: gradients of one type.
          learning_rate: scalar.
          step: scalar, the number of the step from 1 on; adam and 16-bit tables read it.

        Returns:
          A scalar, float32: 0 if all updated numbers are finite, else nan.
        """
        bags, ids, row_lengths, weights = list[Bags](), list[tf.Tensor](), list[tf.Tensor](), list[tf.Tensor]()
        for number, part in enumerate(parts):
            for one in part.bags:
                bags.append(
                    one._replace(
                        ids=one.ids + len(ids),
                        lengths=one.lengths + len(row_lengths),
                        weights=one.weights if one.weights == _NO_FACTORS else one.weights + len(weights),
                        vectors=number,
                    )
                )
            ids += part.tensors.ids
            row_lengths += part.tensors.row_lengths
            weights += part.tensors.weights
        with tf.device(_HOST):  # where the op reads them, also on a GPU, which it need not wait for then
            step = tf.constant(0, tf.int64) if step is None else tf.cast(step, tf.int64)
            learning_rate = tf.cast(learning_rate, tf.float32)
        return embedding_rows.update(
            self.variables,
            bags,
            tensors=IdTensors(ids, row_lengths, weights),
            gradients=[part.gradient for part in parts],
            optimizer=self._optimizer,
            rate_and_step=(learning_rate, step),
        )


class VectorForm(NamedTuple):
    """How a lookup writes vectors.

    Attributes:
      dtype: their type.
      leading_columns: columns that are left free before the vectors of a sample.
    """

    dtype: tf.DType
    leading_columns: int = 0


class NativeLookup:
    """Looks up some pieces, in any slabs.

    Args:
      rows: the slabs.
      pieces: the pieces of each slab.
      layout: the columns of the result.
      inputs: where the ids are in the batches.
      form: the type of the vectors, and how many columns are left free before them.
    """

    def __init__(
        self,
        rows: NativeRows,
        pieces: Mapping[SlabKind, Sequence[Piece]],
        *,
        layout: ResultLayout,
        inputs: "InputFeatures",
        form: "VectorForm",
    ):
        self._rows, self._inputs, self._dtype = rows, inputs, form.dtype
        of_slab = [(piece, rows.slabs[kind]) for kind, of_kind in pieces.items() for piece in of_kind]
        self._replicated = any(kind.replicated for kind in pieces)
        self._bags, self._updated, self._width = list[Bags](), list[Bags](), form.leading_columns
        for piece, slab in sorted(of_slab, key=lambda one: one[0].start):
            bags = self._bags_of(piece, slab, layout)
            self._bags.append(bags)
            first = slab.first_rows[piece.shard] - bags.first_row
            self._updated.append(bags._replace(first_id=first, last_id=first + len(slab.rows_of(piece.shard))))
            self._width += piece.width

    def __call__(self, batch: IdBatch) -> PooledVectors:
        """The vectors [samples, leading columns + columns of all pieces]. The leading columns are undefined."""
        tensors = self._inputs.tensors(batch)
        vectors = embedding_rows.lookup(
            self._rows.variables, self._bags, tensors=tensors, width=self._width, dtype=self._dtype
        )
        return PooledVectors(vectors, self._updated, tensors=tensors, replicated=self._replicated)

    def _bags_of(self, piece: Piece, slab: Slab, layout: ResultLayout) -> Bags:
        shard, table = piece.shard, layout.table_of[piece.feature]
        first_row, num_ids, first_id, last_id = slab.first_rows[shard] - shard.rows[0], table.num_rows, *shard.rows
        if table.is_dynamic:  # its keys have been replaced by rows of the slab
            first_row, num_ids, first_id, last_id = 0, _all_rows(slab), 0, _all_rows(slab)
        return Bags(
            self._rows.number_of(slab.kind),
            first_row=first_row,
            num_ids=num_ids,
            first_id=first_id,
            last_id=last_id,
            **self._inputs.place_of(piece),
            mean=int(table.combiner == "mean" and not self._inputs.always_one(piece)),
            vectors=0,
            vectors_column=self._width,
            feature=piece.feature,
        )


class InputFeatures:
    """Where the ids of each feature are in the tensors that the native lookup reads.

    Args:
      features: the features of the batches, in this order.
      layout: the columns of the result.
      weighted: features whose ids have weights.
    """

    def __init__(self, features: Sequence[str], layout: ResultLayout, weighted: Collection[str]):
        self._hotness = layout.hotness
        self._columns = layout.fixed_columns(features)
        self._ragged = [feature for feature in features if layout.hotness[feature] is None]
        # A feature without combiner has one weight for each position, and so one tensor each.
        self._weights = list[tuple[str, int | None]]()
        for feature in features:
            if feature in weighted:
                positions = range(layout.hotness[feature] or 1) if layout.table_of[feature].combiner is None else [None]
                self._weights += [(feature, position) for position in positions]

    def place_of(self, piece: Piece) -> dict[str, int]:
        """The fields of Bags that say where the ids and weights of a piece are."""
        weights = (piece.feature, piece.position)
        number = self._weights.index(weights) if weights in self._weights else _NO_FACTORS
        if self._hotness[piece.feature] is None:
            ragged = self._ragged.index(piece.feature)
            return {"ids": 1 + ragged, "hotness": -1, "column": 0, "lengths": ragged, "weights": number}
        columns = self._columns[piece.feature]
        hotness = columns.stop - columns.start if piece.position is None else 1
        column = columns.start + (piece.position or 0)
        return {"ids": 0, "hotness": hotness, "column": column, "lengths": 0, "weights": number}

    def always_one(self, piece: Piece) -> bool:
        """Whether a sample has exactly one id for the piece, without a weight: its mean is the row."""
        place = self.place_of(piece)
        return place["hotness"] == 1 and place["weights"] == _NO_FACTORS

    def tensors(self, batch: IdBatch) -> IdTensors:
        """The tensors of a batch, at these places."""
        ids = [batch.fixed, *(batch.ragged[feature][0] for feature in self._ragged)]
        lengths = [batch.ragged[feature][1] for feature in self._ragged]
        return IdTensors(ids, lengths, [self._weights_of(batch, *place) for place in self._weights])

    def _weights_of(self, batch: IdBatch, feature: str, position: int | None) -> tf.Tensor:
        weights = tf.cast(batch.weights[feature], tf.float32)
        if position is None:
            return weights
        return tf.reshape(weights, [-1, self._hotness[feature]])[:, position]


def ordered(pieces: Mapping[SlabKind, Sequence[Piece]]) -> list[Piece]:
    """Pieces in the order in which a NativeLookup writes their vectors."""
    return sorted((piece for of_kind in pieces.values() for piece in of_kind), key=attrgetter("start"))


def choose_op(
    embedding_op: str, *, device: str, comm: Comm, dtype: str = "float32", on_host: bool = False
) -> tuple[str, str]:
    """What "auto" means, the same on all ranks: the order of the pieces in the exchange depends on it.

    Args:
      embedding_op: "auto" (native where every rank can), "native" or "tensorflow".
      device: "cpu" or "gpu".
      dtype: type of the tables.
      on_host: whether ranks with a GPU keep tables in the memory of their host.

    Returns:
      ("native" or "tensorflow", a line for the log with the reason).

    Raises:
      ValueError: `embedding_op` is "native", and a rank cannot.
    """
    if embedding_op == "tensorflow":
        return embedding_op, "embedding: TensorFlow's ops, as asked"
    why = _why_not(dtype, device, on_host=on_host)
    if comm.size > 1:
        reasons = comm.allgather_object(why, name="embedding_op")
        why = next((f"rank {rank}: {reason}" for rank, reason in enumerate(reasons) if reason), None)
    if why is None:
        asked = "" if embedding_op == "auto" else ", as asked"
        instruction_set = f" ({ops.instruction_set()})" if device == "cpu" else ""
        return "native", f"embedding: the native ops on the {device.upper()}{instruction_set}{asked}"
    if embedding_op == "native":
        raise ValueError(f"--embedding_op native: {why}. Use --embedding_op auto.")
    return "tensorflow", f"embedding: TensorFlow's ops; {why}"


def _why_not(dtype: str, device: str, *, on_host: bool) -> str | None:
    """Why the native ops cannot serve tables of a type on a device, as the end of a sentence; None if they can."""
    if dtype not in ("float32", "bfloat16"):
        return f"they have no {dtype} tables"
    if device == "cpu":
        return ops.why_unavailable()
    if on_host:
        return "one op serves the tables of one device, and --cpu_offloading_threshold_gb leaves some to the host"
    return ops.why_no_cuda()


def variables_of(slab: Slab) -> SlabVariables:
    """A slab for the ops."""
    return SlabVariables(slab.variable, list(slab.slots.values()), slab.rounding_shards)


def _all_rows(slab: Slab) -> int:
    """Rows of a slab's variable."""
    return slab.num_rows + len(slab.default_rows)
