"""Synthetic rows before they have a form on disk: an id for each categorical column, a level for each numerical column.

A level is a whole number in [0, 2048). Each form has a table from levels to values: float16 for tf_raw, integers for
the TSV. The teacher has a table from levels to effects. An id or a level may be missing.
"""

from collections.abc import Iterable

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.feature_spec import Feature, FeatureSpecError
from criteo_prep.synthetic.power_law import PowerLaw, draw, stream_key

NUM_LEVELS = 2048  # 11 bits: every k / 2048 is exactly a float16 below 1
MISSING_LEVEL = NUM_LEVELS
_PER_DRAW = 4


class Columns:
    """The random columns that a seed makes for a list of features.

    Args:
      categorical: features with cardinality and alpha.
      num_numerical: number of numerical columns.
      seed: seed of the dataset.
      missing_ids: probability of a missing value in each categorical column, in thirty-seconds; None for 0.
      missing_levels: the same probability in each numerical column.

    Raises:
      FeatureSpecError: a feature is ragged or holds keys, or its alpha is absent or out of range.
    """

    def __init__(
        self,
        categorical: Iterable[Feature],
        num_numerical: int,
        *,
        seed: int,
        missing_ids: tuple[int, ...] | None = None,
        missing_levels: tuple[int, ...] | None = None,
    ):
        self.categorical = tuple(categorical)
        self.num_numerical, self.seed = num_numerical, seed
        self.missing_ids = missing_ids or (0,) * len(self.categorical)
        self._missing_levels = np.array(missing_levels or (0,) * num_numerical, np.uint64)
        assert len(self.missing_ids) == len(self.categorical) and len(self._missing_levels) == num_numerical
        for feature in self.categorical:
            _check_drawable(feature)
        laws = {
            (feature.cardinality, feature.alpha): PowerLaw(feature.cardinality, feature.alpha)
            for feature in self.categorical
        }
        self._laws = [laws[feature.cardinality, feature.alpha] for feature in self.categorical]

    def ids(self, split: str, column: int, *, start: int, stop: int, dtype: str = "int32") -> np.ndarray:
        """Ids of rows [start, stop): `hotness` ids a row, row after row; -1 where the value is missing.

        Args:
          split: name of the split.
          column: position of the feature in `categorical`.
          start, stop: range of rows.
          dtype: dtype of the result: int8, int16 or int32, wide enough for the cardinality.
        """
        feature = self.categorical[column]
        out = np.empty((stop - start) * feature.hotness, dtype)
        key = stream_key(self.seed, split, "id", feature.name)
        self._laws[column].fill(key, start * feature.hotness, out=out, missing=self.missing_ids[column])
        return out

    def levels(self, split: str, start: int, stop: int) -> np.ndarray:
        """Levels of rows [start, stop) of a split, uint16 [n, num_numerical]; MISSING_LEVEL for a missing value."""
        out = np.empty((stop - start, self.num_numerical), np.uint16)
        _fill_levels(stream_key(self.seed, split, "level"), start, self._missing_levels, out)
        return out


def _check_drawable(feature: Feature) -> None:
    if feature.ragged:
        raise FeatureSpecError(
            f"{feature.name}: is ragged, but all synthetic samples have the same number of ids. Give it a hotness."
        )
    if feature.key:
        raise FeatureSpecError(
            f"{feature.name}: holds raw keys, and synthetic ids need a cardinality. Write one in place of key: true."
        )
    if feature.alpha is None:
        raise FeatureSpecError(
            f"{feature.name}: has no alpha, the exponent of the power law of its synthetic ids. "
            "Add one to the feature spec: the published alpha is 1.45; with 0, all ids are equally likely."
        )
    if not 0 <= feature.alpha < 100:
        raise FeatureSpecError(f"{feature.name}: alpha {feature.alpha}: must be at least 0 and below 100.")


@compiled
def _fill_levels(key, first, missing, out):
    # A draw has 16 bits for each of four columns: the upper 11 are the level, the lower 5 decide whether it is missing.
    rows, columns = out.shape
    draws = (columns + _PER_DRAW - 1) // _PER_DRAW
    last = columns - (draws - 1) * _PER_DRAW
    for row in range(rows):
        for group in range(draws):
            bits = draw(key, (first + row) * draws + group)
            column = group * _PER_DRAW
            for lane in range(_PER_DRAW if group < draws - 1 else last):
                out[row, column + lane] = (bits >> np.uint64(16 * lane + 5)) & np.uint64(NUM_LEVELS - 1)
    if missing.any():
        for row in range(rows):
            for column in range(columns):
                bits = draw(key, (first + row) * draws + column // _PER_DRAW) >> np.uint64(16 * (column % _PER_DRAW))
                if (bits & np.uint64(31)) < missing[column]:
                    out[row, column] = MISSING_LEVEL
