"""The ops that make one matrix of the pieces of several ranks, and take its gradient apart, on the CPU."""

from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from dlrm_tf2 import ops


class ColumnRuns(NamedTuple):
    """Columns of sources and of the result.

    Attributes:
      copied: (source, first column in the source, first column in the result, number of columns) of each run that is
        copied; no two have a column of the result in common.
      added: the same of each run that is added to columns of the result that are copied.
      columns: columns of each source; the last source is this rank's own pieces.
      width: columns of the result.
    """

    copied: Sequence[tuple[int, int, int, int]]
    added: Sequence[tuple[int, int, int, int]]
    columns: Sequence[int]
    width: int


def join_columns(received: tf.Tensor, own: tf.Tensor, runs: ColumnRuns) -> tf.Tensor:
    """The result [samples, width]. Columns of no run are undefined.

    Args:
      received: the vectors of the sources but the last, one source after the other: [samples, its columns] each, in a
        tensor of any shape; float32, float16 or bfloat16.
      own: [samples, columns] of the same type, the vectors of the last source.

    Raises:
      tf.errors.InvalidArgumentError: the shapes do not fit the runs.
    """
    return ops.library().dlrm_join_columns(received=received, own=own, **_attributes(runs))


def split_columns(result: tf.Tensor, runs: ColumnRuns) -> tuple[tf.Tensor, tf.Tensor]:
    """The way back of a gradient of the result: what each run read gets the gradient of the columns that it made.

    Args:
      result: [samples, width], float32, float16 or bfloat16.

    Returns:
      (the gradient of `received`, of rank 1; the gradient of `own`).
    """
    received, own = ops.library().dlrm_split_columns(result=result, **_attributes(runs))
    return received, own


def _attributes(runs: ColumnRuns) -> dict[str, object]:
    return {
        "runs": [int(number) for run in (*runs.copied, *runs.added) for number in run],
        "num_copied": len(runs.copied),
        "columns": [int(number) for number in runs.columns],
        "width": runs.width,
    }
