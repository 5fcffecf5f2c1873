"""Tables that are larger than memory: a part in memory, the rest in a file. On the CPU."""

from typing import NamedTuple

import tensorflow as tf

from dlrm_tf2 import ops


class TierSizes(NamedTuple):
    """Where the bytes of a table are.

    Attributes:
      share_in_memory: the part of the bytes that is in memory, from 0 to 1, in whole large pages; the first rows.
      folder: the folder of the file with the other bytes, which has no name and ends with the process.
      caching: whether the bytes in memory are a cache of rows (ops/row_cache.py) in place of the first rows.
    """

    share_in_memory: float
    folder: str
    caching: bool = False


def tiered_zeros(shape: tuple[int, int], dtype: tf.DType, sizes: TierSizes) -> tf.Tensor:
    """Zeros of a shape; float32, float64 or uint16.

    Raises:
      tf.errors.ResourceExhaustedError: there is no memory, or no room in the folder.
    """
    num_bytes = shape[0] * shape[1] * dtype.size
    return ops.library().dlrm_tiered_memory(
        shape=shape, bytes_in_memory=int(num_bytes * sizes.share_in_memory), folder=sizes.folder, T=dtype
    )


def tiered_rows(table: tf.Variable) -> tf.Tensor:
    """The rows of a table that has a part in a file, for `fetch_rows`: a resource."""
    with tf.init_scope(), tf.device("/CPU:0"):
        return ops.library().dlrm_tiered_rows(table=table.handle)


def fetch_rows(tiered: tf.Tensor, rows: tf.Tensor, ahead: bool = False) -> None:
    """Asks for rows [n], int64, and does not wait for them. In a graph it may run during an update.

    Args:
      tiered: what `tiered_rows` returned.
      rows: those outside the table are left out.
      ahead: whether another request will follow before they are read, which then leaves them out.
    """
    ops.library().dlrm_fetch_rows(tiered=tiered, rows=rows, ahead=ahead)
