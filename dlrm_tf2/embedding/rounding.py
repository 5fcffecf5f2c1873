"""Stochastic rounding of updated weights to bfloat16, by random bits that are a function of their place and step alone.

A small update of a 16-bit weight would be lost if it were rounded to nearest. Here a weight is rounded up with the
probability that makes its mean right. The random bits depend on seed, step, table, row and column: not on the plan, the
number of ranks or threads, and not on whether the training was interrupted.

With the table's key k, the step t, SplitMix64's constant G and function mix64, and MurmurHash3's finalizer fmix32:

    row key      low 32 bits of mix64(mix64(k + t * G) + row * G)
    random bits  fmix32(column * 0x9e3779b9 + row key), of which the upper 16 are added to the weight's lower 16

The native kernels compute the same (ops/src/embedding_rows/embedding_rows_kernels.h).
"""

from zlib import crc32

import numpy as np
import tensorflow as tf

from criteo_prep.splitmix64 import GAMMA, mix64

_COLUMN_FACTOR = 0x9E3779B9


def table_key(table: str, seed: int) -> int:
    """The key of a table's random bits, as a signed 64-bit number.

    Args:
      table: name of the table.
      seed: from 0 to 2**63 - 1.
    """
    # The lowest bit keeps this stream apart from the stream of initial weights.
    key = mix64((np.uint64(seed) << np.uint64(1) | np.uint64(1)) ^ np.uint64(crc32(table.encode()) << 32))
    return int(np.uint64(key).view(np.int64))


def rounded(weights: tf.Tensor, *, keys: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
    """Weights [n, width] rounded stochastically from float32 to bfloat16. NaN and infinities stay.

    Args:
      keys: int64 [n], the key of each row's table.
      rows: int64 [n], the row of its table.
      columns: int64 [n], the column of its table that is column 0 here.
      step: int64 scalar.
    """
    gamma = tf.constant(int(np.uint64(GAMMA)), tf.uint64)
    of_step = _mix64(tf.bitcast(keys, tf.uint64) + tf.bitcast(step, tf.uint64) * gamma)
    row_keys = _mix64(of_step + tf.bitcast(rows, tf.uint64) * gamma)
    row_keys = tf.cast(tf.bitwise.bitwise_and(row_keys, tf.constant(0xFFFFFFFF, tf.uint64)), tf.uint32)
    place = columns[:, tf.newaxis] + tf.range(weights.shape[1], dtype=tf.int64)
    bits = tf.cast(place, tf.uint32) * tf.constant(_COLUMN_FACTOR, tf.uint32) + row_keys[:, tf.newaxis]
    random = _shift(_fmix32(bits), 16)
    summed = tf.bitcast(tf.bitcast(weights, tf.uint32) + random, tf.float32)
    cut = tf.bitwise.bitwise_and(tf.bitcast(summed, tf.uint32), tf.constant(0xFFFF0000, tf.uint32))
    return tf.cast(tf.where(tf.math.is_finite(weights), tf.bitcast(cut, tf.float32), weights), tf.bfloat16)


def _shift(values: tf.Tensor, bits: int) -> tf.Tensor:
    return tf.bitwise.right_shift(values, tf.constant(bits, values.dtype))


def _mix64(z: tf.Tensor) -> tf.Tensor:
    z = tf.bitwise.bitwise_xor(z, _shift(z, 30)) * tf.constant(0xBF58476D1CE4E5B9, tf.uint64)
    z = tf.bitwise.bitwise_xor(z, _shift(z, 27)) * tf.constant(0x94D049BB133111EB, tf.uint64)
    return tf.bitwise.bitwise_xor(z, _shift(z, 31))


def _fmix32(h: tf.Tensor) -> tf.Tensor:
    h = tf.bitwise.bitwise_xor(h, _shift(h, 16)) * tf.constant(0x85EBCA6B, tf.uint32)
    h = tf.bitwise.bitwise_xor(h, _shift(h, 13)) * tf.constant(0xC2B2AE35, tf.uint32)
    return tf.bitwise.bitwise_xor(h, _shift(h, 16))
