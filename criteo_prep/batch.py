"""The one record in memory: a run of consecutive samples, column by column."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ids:
    """The ids of one categorical feature for n samples.

    Attributes:
      values: integer array; [n] when every sample has exactly one id, else [sum(row_lengths)], sample after sample.
      row_lengths: int32 [n], the number of ids of each sample; None when it is exactly one.
    """

    values: np.ndarray
    row_lengths: np.ndarray | None = None

    @property
    def num_samples(self) -> int:
        return len(self.values if self.row_lengths is None else self.row_lengths)


@dataclass(frozen=True)
class Batch:
    """n samples. A part that was not asked for is None (label, numerical) or absent (categorical).

    Attributes:
      label: bool [n].
      numerical: float16 [n, number of numericals].
      categorical: feature name -> Ids of n samples.
    """

    label: np.ndarray | None
    numerical: np.ndarray | None
    categorical: dict[str, Ids]

    @property
    def num_samples(self) -> int:
        if self.label is not None:
            return len(self.label)
        if self.numerical is not None:
            return len(self.numerical)
        return next(iter(self.categorical.values())).num_samples if self.categorical else 0
