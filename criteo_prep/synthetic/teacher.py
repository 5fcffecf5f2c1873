"""A planted click model: the teacher, whose click probabilities a model can learn.

    logit = bias + signal * (w_n * numerical + w_c * categorical + w_p * pairs)       (each group: mean 0, variance 1)

    numerical   sum over columns of m_j * (a_j * t + b_j * (t^2 - 1) / 2), t the column's value standardised;
                m_j * c_j where missing
    categorical sum over columns of m_f * e_f(id)
    pairs       sum over three pairs of columns (f, g) of h_f(id_f) * h_g(id_g)
                (a row with n ids in a column: e_f and h_f are the sums over its ids, divided by sqrt(n))

a, b, c, e and h are seeded hashes of the column (and id), close to normal. m is the column's importance, 0.8^rank in a
seeded order. e and h shrink in the tail, as 1 / sqrt(1 + id / 50), because a model cannot learn an id that occurs once.
A dot interaction can express the pairs, a logistic regression cannot. docs/synthetic.md has the full description.
"""

import math

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.synthetic.columns import MISSING_LEVEL, NUM_LEVELS, Columns
from criteo_prep.synthetic.power_law import draw, stream_key

BASE_RATE = 0.25  # near the click rate of the Criteo Kaggle set; the 1TB set has about 0.03
SIGNAL = 1.4  # standard deviation of the logit; the best AUC is about 0.8 at the base rate
WEIGHTS = {"numerical": 0.25, "categorical": 0.55, "pairs": 0.20}  # shares of the logit's variance
_MAX_PAIRS = 3
_DECAY = 0.8
_TAIL = 50.0
_HEAD = 4096  # a table holds the effects of this many ids; other effects are computed where the ids occur
_PILOT_ROWS = 1 << 16


class Teacher:
    """The click probabilities of a dataset.

    Args:
      columns: source of the rows. The rows of a separate pilot stream fix the scales and the bias.
      values: number that training sees for each level of each numerical column, float64 [num_numerical, NUM_LEVELS].
      base_rate: mean click probability, in (0, 1).
      signal: standard deviation of the logit, at least 0.

    Raises:
      ValueError: base_rate or signal is out of range.
    """

    def __init__(self, columns: Columns, values: np.ndarray, *, base_rate: float = BASE_RATE, signal: float = SIGNAL):
        if not 0 < base_rate < 1:
            raise ValueError(f"base_rate {base_rate}: must be between 0 and 1, such as {BASE_RATE}.")
        if not (math.isfinite(signal) and signal >= 0):
            raise ValueError(f"signal {signal}: must be at least 0, such as {SIGNAL}.")
        self._columns, self._seed = columns, columns.seed
        self._numerical = _level_effects(values, self._seed)
        features = columns.categorical
        weights = _importance(self._seed, [feature.name for feature in features])
        self._effects = [
            _IdHash(stream_key(self._seed, "effect", feature.name), feature.cardinality, weight)
            for feature, weight in zip(features, weights, strict=True)
        ]
        self._factors = [
            _IdHash(stream_key(self._seed, "factor", feature.name), feature.cardinality, 1.0) for feature in features
        ]
        by_weight = sorted(range(len(features)), key=lambda i: -weights[i])
        self.pairs = list(zip(by_weight[0::2], by_weight[1::2], strict=False))[:_MAX_PAIRS]
        self._calibrate(base_rate, signal)

    def logits(self, ids: list[np.ndarray], levels: np.ndarray) -> np.ndarray:
        """The true logits, float32 [n], of n rows.

        Args:
          ids: ids of each categorical column, integers [n * hotness], row after row; -1 where the value is missing.
          levels: levels of the numerical columns, uint16 [n, num_numerical]; MISSING_LEVEL where missing.
        """
        total = np.full(len(levels), self._bias, np.float32)
        for scale, group in zip(self._scales, self._groups(ids, levels), strict=True):
            total += scale * group
        return total

    def _groups(self, ids: list[np.ndarray], levels: np.ndarray) -> tuple[np.ndarray, ...]:
        """The three sums of the formula, unscaled, float32 [n] each."""
        rows = len(levels)
        numerical, categorical, pairs = (np.zeros(rows, np.float32) for _ in WEIGHTS)
        _add_level_effects(levels, self._numerical, numerical)
        for effect, column in zip(self._effects, ids, strict=True):
            categorical += effect.of(column, rows)
        for f, g in self.pairs:
            pairs += self._factors[f].of(ids[f], rows) * self._factors[g].of(ids[g], rows)
        return numerical, categorical, pairs

    def _calibrate(self, base_rate: float, signal: float) -> None:
        """Sets the scale of each group and the bias, so that the pilot rows have the signal and the base rate."""
        columns = self._columns
        ids = [columns.ids("pilot", i, start=0, stop=_PILOT_ROWS) for i in range(len(columns.categorical))]
        groups = self._groups(ids, columns.levels("pilot", 0, _PILOT_ROWS))
        spreads = [float(np.std(group, dtype=np.float64)) for group in groups]
        present = [share if spread > 1e-9 else 0.0 for share, spread in zip(WEIGHTS.values(), spreads, strict=True)]
        self._scales = [
            np.float32(signal * math.sqrt(share / sum(present)) / spread) if share else np.float32(0)
            for share, spread in zip(present, spreads, strict=True)
        ]
        self._bias = 0.0
        self._bias = _bias_for(self.logits(ids, columns.levels("pilot", 0, _PILOT_ROWS)), base_rate)


class _IdHash:
    """The seeded number of each id of a column: near normal, smaller in the tail."""

    def __init__(self, key: np.uint64, cardinality: int, weight: float):
        self._key, self._weight = key, np.float32(weight)
        self._head = np.empty(min(cardinality, _HEAD), np.float32)
        self._missing = self._weight * np.float32(_near_normal(key, -1))
        _fill_head(key, self._weight, self._head)

    def of(self, ids: np.ndarray, rows: int) -> np.ndarray:
        """The number of each of `rows` rows, float32. A row with n ids has their sum divided by sqrt(n)."""
        out = np.empty(len(ids), np.float32)
        _gather(ids, self._head, self._key, self._weight, self._missing, out)
        if len(ids) == rows:
            return out
        hotness = len(ids) // rows
        return out.reshape(rows, hotness).sum(axis=1) / np.float32(math.sqrt(hotness))


def _importance(seed: int, names: list[str]) -> list[float]:
    """The weight of each column in its group: 1, 0.8, 0.64, ... in a seeded order of the columns."""
    order = sorted(range(len(names)), key=lambda i: stream_key(seed, "importance", names[i]))
    weights = [0.0] * len(names)
    for rank, column in enumerate(order):
        weights[column] = _DECAY**rank
    return weights


def _level_effects(values: np.ndarray, seed: int) -> np.ndarray:
    """The effect of each level of each numerical column, MISSING_LEVEL last: float32 [columns, NUM_LEVELS + 1]."""
    effects = np.empty((len(values), NUM_LEVELS + 1), np.float32)
    weights = _importance(seed, [f"numerical {column}" for column in range(len(values))])
    for column, of_level in enumerate(values):
        key = stream_key(seed, "effect", f"numerical {column}")
        slope, curve, missing = (_near_normal(key, i) for i in range(3))
        spread = of_level.std()
        t = (of_level - of_level.mean()) / spread if spread else np.zeros(NUM_LEVELS)
        effects[column, :NUM_LEVELS] = weights[column] * (slope * t + curve * (t * t - 1) / 2)
        effects[column, MISSING_LEVEL] = weights[column] * missing
    return effects


def _bias_for(logits: np.ndarray, base_rate: float) -> float:
    """The number to add to the logits so that their mean probability is the base rate."""
    low, high = -60.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        if np.mean(1 / (1 + np.exp(-(logits.astype(np.float64) + middle)))) < base_rate:
            low = middle
        else:
            high = middle
    return (low + high) / 2


@compiled
def _near_normal(key, counter):
    """A draw as the sum of its four 16-bit parts, shifted and scaled to mean 0 and variance 1."""
    bits, total = draw(key, counter), 0
    for shift in (0, 16, 32, 48):
        total += np.int64((bits >> np.uint64(shift)) & np.uint64(0xFFFF))
    return (total - 2 * 65535) / 65536 * math.sqrt(3.0)


@compiled
def _of_id(key, row):
    return np.float32(_near_normal(key, row) / math.sqrt(1.0 + row / _TAIL))


@compiled
def _fill_head(key, weight, head):
    for row in range(head.size):
        head[row] = weight * _of_id(key, row)


@compiled
def _gather(ids, head, key, weight, missing, out):
    for i in range(ids.size):
        row = np.int64(ids[i])
        if row < 0:
            out[i] = missing
        elif row < head.size:
            out[i] = head[row]
        else:
            out[i] = weight * _of_id(key, row)


@compiled
def _add_level_effects(levels, effects, out):
    for row in range(levels.shape[0]):
        total = np.float32(0)
        for column in range(levels.shape[1]):
            total += effects[column, levels[row, column]]
        out[row] += total
