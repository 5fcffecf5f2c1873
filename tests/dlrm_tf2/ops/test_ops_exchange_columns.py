"""The ops around the exchange of vectors: by hand, and against TensorFlow's gathers for any runs."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from dlrm_tf2 import ops
from dlrm_tf2.embedding.collectives import Collectives
from dlrm_tf2.embedding.exchange_columns import ExchangeColumns
from dlrm_tf2.embedding.result_layout import Piece
from dlrm_tf2.embedding.vector_exchange import VectorExchange
from dlrm_tf2.ops.exchange_columns import ColumnRuns, join_columns, split_columns
from dlrm_tf2.runtime.comm import SingleProcess
from dlrm_tf2.sharding.plan import Shard

pytestmark = pytest.mark.skipif(not ops.available(), reason=f"the op library is not built: {ops.why_unavailable()}")

# Two ranks and own columns, two samples: rank 0 makes a (1 column) and c (2), rank 1 makes b (1), and part of c again.
RUNS = ColumnRuns(
    copied=[(0, 0, 1, 1), (1, 0, 2, 1), (0, 1, 3, 2), (2, 0, 5, 1)], added=[(1, 1, 4, 1)], columns=[3, 2, 1], width=6
)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float16, tf.bfloat16])
def test_pieces_become_columns(dtype):
    received = tf.constant([1, 2, 3, 11, 12, 13, 4, 30, 14, 40], dtype)  # rank 0: two samples; rank 1: two samples
    own = tf.constant([[5], [15]], dtype)
    result = tf.cast(join_columns(received, own, RUNS), tf.float32).numpy()
    # Column 0 is of no run. Columns 3 and 4 are c; 30 and 40 are added to its second number.
    np.testing.assert_array_equal(result[:, 1:], [[1, 4, 2, 33, 5], [11, 14, 12, 53, 15]])


@pytest.mark.parametrize("dtype", [tf.float32, tf.float16, tf.bfloat16])
def test_a_gradient_goes_back_to_every_piece(dtype):
    of_result = tf.constant([[9, 1, 2, 3, 4, 5], [9, 11, 12, 13, 14, 15]], dtype)
    received, own = split_columns(of_result, RUNS)
    assert received.dtype == own.dtype == dtype
    np.testing.assert_array_equal(tf.cast(received, tf.float32), [1, 3, 4, 11, 13, 14, 2, 4, 12, 14])
    np.testing.assert_array_equal(tf.cast(own, tf.float32), [[5], [15]])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"received: .* expected 5 numbers for each of 2 samples"):
        join_columns(tf.zeros([9]), tf.zeros([2, 1]), RUNS)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"own: .* expected \[samples, 1\]"):
        join_columns(tf.zeros([10]), tf.zeros([2, 2]), RUNS)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"result: .* expected \[samples, 6\]"):
        split_columns(tf.zeros([2, 5]), RUNS)
    outside = RUNS._replace(copied=[(0, 2, 0, 2)])
    with pytest.raises(tf.errors.InvalidArgumentError, match="run 0 is outside of its source or of the result"):
        join_columns(tf.zeros([10]), tf.zeros([2, 1]), outside)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.booleans(), st.booleans()), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
    st.integers(0, 5),
)
def test_the_same_result_and_gradients_as_with_gathers(tables, random, samples):
    """Tables of some widths, of a rank or own, some cut by rows: in two pieces; made in any order."""
    pieces, own, start = [], [], 0
    for width, is_own, is_cut in tables:
        piece = Piece("f", None, shard=Shard("t", 0, rows=(0, 1), columns=(0, width)), start=start)
        (own if is_own else pieces).append(piece)
        if is_cut:
            pieces.append(piece)
        start += width
    random.shuffle(pieces)
    columns = ExchangeColumns.of([pieces], own=own, width=start)
    rng = np.random.default_rng(samples)
    of_ranks = tf.constant(rng.normal(size=[samples, sum(piece.width for piece in pieces)]), tf.float32)
    of_own = tf.constant(rng.normal(size=[samples, sum(piece.width for piece in own)]), tf.float32)
    upstream = tf.constant(rng.normal(size=[samples, start]), tf.float32)
    found = []
    for native in (False, True):
        exchange = VectorExchange(Collectives(SingleProcess()), columns, native=native)
        with tf.GradientTape() as tape:
            tape.watch([of_ranks, of_own])
            result = exchange(of_ranks, of_own)
        by = tape.gradient(result, [of_ranks, of_own], output_gradients=upstream, unconnected_gradients="zero")
        found.append([result, *by])
    for gathered, copied in zip(*found, strict=True):
        np.testing.assert_allclose(copied, gathered, rtol=1e-6, atol=1e-6)
