"""Tables that are larger than memory: a part in memory, the rest in a file. On the CPU."""

from typing import NamedTuple

import tensorflow as tf

from dlrm_tf2 import ops


class TierSizes(NamedTuple):
    """Where the bytes of a table are.

    Attributes:
      share_in_memory: the part of the bytes that is in memory, from 0 to 1, in whole large pages; the first rows.
      folder: the folder of the file with the other bytes, which has no name and ends with the process.
    """

    share_in_memory: float
    folder: str


def tiered_zeros(shape: tuple[int, int], dtype: tf.DType, sizes: TierSizes) -> tf.Tensor:
    """Zeros of a shape; float32, float64 or uint16.

    Raises:
      tf.errors.ResourceExhaustedError: there is no memory, or no room in the folder.
    """
    num_bytes = shape[0] * shape[1] * dtype.size
    return ops.library().dlrm_tiered_memory(
        shape=shape, bytes_in_memory=int(num_bytes * sizes.share_in_memory), folder=sizes.folder, T=dtype
    )


def fetch_rows(table: tf.Variable, rows: tf.Tensor) -> None:
    """Asks for rows [n], int64, of a table that has a part in a file, and does not wait for them."""
    ops.library().dlrm_fetch_rows(table=table.handle, rows=rows)
