"""Random numbers that depend on their place alone, and power-law ids that are drawn from them.

A draw is a function of (stream key, counter), without a state. So the bytes of a dataset are the same for any number of
threads, any batch size, and any first row.

    draw(key, counter) = output counter + 1 of SplitMix64 seeded with the key        64 bits

Source: NVIDIA's synthetic dataset has the same law: on [1, rows + 1], rounded down, minus 1.
"""

import hashlib
import math

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.splitmix64 import GAMMA, mix64

_GUIDE_BITS = 14
_UNIT = 2.0**-53
MISSING = -1


def stream_key(seed: int, *names: str) -> np.uint64:
    """The key of the stream of a seed and a path of names, such as (7, "train", "cat_3")."""
    path = "\0".join([str(int(seed)), *names]).encode()
    return np.uint64(int.from_bytes(hashlib.blake2b(path, digest_size=8).digest(), "little"))


@compiled
def draw(key, counter):
    """64 random bits for one place of a stream."""
    return mix64(key + (np.uint64(counter) + np.uint64(1)) * GAMMA)


class PowerLaw:
    """Ids 0 ... cardinality - 1 with P(id <= k) = F(k + 2), F the power law x^-alpha on [1, cardinality + 1].

    Id 0 is the most frequent. alpha 0 is the uniform law.

    Args:
      cardinality: number of ids, at least 1.
      alpha: the exponent, at least 0.
    """

    def __init__(self, cardinality: int, alpha: float):
        assert cardinality >= 1 and alpha >= 0
        self.cardinality, self.alpha = cardinality, alpha
        self._power = 1.0 - alpha
        # Inverse CDF: x(u) = (1 + u * ((rows + 1)^power - 1))^(1/power); for power 0, x(u) = (rows + 1)^u.
        log_end = math.log(cardinality + 1)
        self._growth = math.expm1(self._power * log_end) if self._power else log_end
        self._guide = np.empty(1 << _GUIDE_BITS, np.int32)
        _fill_guide(cardinality, self._power, self._growth, self._guide)

    def fill(self, key: np.uint64, first: int, *, out: np.ndarray, missing: int = 0) -> None:
        """Draws the ids at the counters first, first + 1, ... of a stream.

        Args:
          key: key of the stream.
          first: counter of out[0]; row r of a feature of hotness h has the counters h * r ... h * r + h - 1.
          out: gets the ids: int8, int16 or int32, wide enough for the cardinality.
          missing: probability of MISSING instead of an id, in thirty-seconds.
        """
        _fill(key, first, missing, self._guide, self.cardinality, self._power, self._growth, out)

    def cdf(self, ids: np.ndarray) -> np.ndarray:
        """P(id <= k) for each k >= 0 of `ids`."""
        log_x = np.log(np.minimum(np.asarray(ids, np.float64), self.cardinality - 1) + 2.0)
        return (np.expm1(self._power * log_x) if self._power else log_x) / self._growth


@compiled
def _id_at(u, rows, power, growth):
    """The id at u in [0, 1). Rounding may make x equal rows + 1, whose id is out of range; so the id is cut."""
    x = math.exp(u * growth) if power == 0.0 else math.exp(math.log1p(u * growth) / power)
    return min(np.int64(x) - 1, rows - 1)


@compiled
def _fill_guide(rows, power, growth, guide):
    """guide[b] = the only id of all u in [b, b + 1) / len(guide), or -1 if these u have several ids.

    Nine draws of ten fall into a bucket with one id and need no logarithm.
    """
    for b in range(guide.size):
        low = _id_at(b / guide.size, rows, power, growth)
        high = _id_at((b + 1) / guide.size - _UNIT, rows, power, growth)
        guide[b] = low if low == high else -1


@compiled
def _fill(key, first, missing, guide, rows, power, growth, out):
    # The upper 53 of the 64 bits are u, whose upper bits are the bucket of the guide. The lower 5 bits decide whether
    # the id is missing. There are three loops, because the first has no branch and becomes vector instructions.
    for i in range(out.size):
        out[i] = guide[draw(key, first + i) >> np.uint64(64 - _GUIDE_BITS)]
    for i in range(out.size):
        if out[i] < 0:
            out[i] = _id_at((draw(key, first + i) >> np.uint64(11)) * _UNIT, rows, power, growth)
    if missing:
        for i in range(out.size):
            if (draw(key, first + i) & np.uint64(31)) < np.uint64(missing):
                out[i] = MISSING
