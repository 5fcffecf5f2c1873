"""A set of 32-bit values that numbers its members: one bit for each possible value, and a directory.

    words      uint64 [2^26]   bit v % 64 of word v / 64: whether v is in the set
    before     uint32 [2^23]   members below 512 * block: the rank of the block's first member

The rank of a member v is before[v / 512] plus the bits below v in up to 8 words, which lie in one cache line. The
memory is 0.53 GiB for any number of members. Loops ask for the cache lines of later values beforehand, because each
access would wait for memory.
"""

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.intrinsics import count_ones, prefetch, trailing_zeros

BITMAP_BYTES = (1 << 29) + (1 << 25)
_NUM_WORDS, _NUM_BLOCKS = 1 << 26, 1 << 23
_AHEAD = 24  # values between asking for a cache line and using it
_SIX, _NINE = np.uint64(6), np.uint64(9)
_LOW_SIX, _ONE = np.uint64(63), np.uint64(1)


class RankBitmap:
    """`add` all values, then call `index` once; then each member has a rank, from 0 in ascending order."""

    def __init__(self) -> None:
        self.words = np.zeros(_NUM_WORDS, np.uint64)
        self.before = np.empty(0, np.uint32)
        self.num_values = 0

    def add(self, values: np.ndarray) -> None:
        """Adds values: uint32 [n], in any order, with or without repeats."""
        _add(values, self.words)

    def index(self) -> None:
        """Counts the members, after the last add."""
        self.before = np.empty(_NUM_BLOCKS, np.uint32)
        self.num_values = int(_index(self.words, self.before))

    def count(self, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Adds 1 to counts (uint32 [num_values]) at the rank of every value; all values must be members.

        Returns:
          int64 [k], ranks whose count passed 2^32 - 1 and began again at 0.
        """
        wrapped = np.empty(8, np.int64)
        assert len(values) < 1 << 32, "a count can wrap only once in a call"
        return wrapped[: _count(values, self.words, self.before, counts, wrapped)]

    def look_up(self, values: np.ndarray, ids_by_rank: np.ndarray, ids: np.ndarray) -> None:
        """Fills ids [n]: ids_by_rank at the rank of each value, 0 for a value that is not a member."""
        _look_up(values, self.words, self.before, ids_by_rank, ids)

    def put(self, values: np.ndarray, ids: np.ndarray, ids_by_rank: np.ndarray) -> None:
        """Sets ids_by_rank at the rank of each value; all values must be members."""
        _put(values, ids, self.words, self.before, ids_by_rank)

    def select(self, ids_by_rank: np.ndarray, first: int, values: np.ndarray) -> None:
        """Fills values, uint32 [n]: values[i] is the member whose id is first + i."""
        _select(self.words, ids_by_rank, first, values)


@compiled
def _add(values, words):
    """Sets the bit of every value."""
    for i in range(values.size):
        if i + _AHEAD < values.size:
            prefetch(words, np.int64(values[i + _AHEAD] >> np.uint32(6)))
        value = np.uint64(values[i])
        words[np.int64(value >> _SIX)] |= _ONE << (value & _LOW_SIX)


@compiled
def _index(words, before):
    """Fills `before`; returns the number of bits that are set."""
    total = np.uint32(0)
    for block in range(before.size):
        before[block] = total
        for word in range(8 * block, 8 * block + 8):
            total += np.uint32(count_ones(words[word]))
    return total


@compiled
def _rank(value, words, before):
    """Members below `value`."""
    word = np.int64(value >> _SIX)
    rank = np.int64(before[np.int64(value >> _NINE)])
    for other in range(word & ~7, word):
        rank += np.int64(count_ones(words[other]))
    return rank + np.int64(count_ones(words[word] & ((_ONE << (value & _LOW_SIX)) - _ONE)))


@compiled
def _count(values, words, before, counts, wrapped):
    """See RankBitmap.count. Ranks are found some values ahead of their counts, so that memory accesses overlap."""
    ranks = np.empty(_AHEAD, np.int64)
    num_wrapped = 0
    for start in range(0, values.size, _AHEAD):
        stop = min(start + _AHEAD, values.size)
        for i in range(stop, min(stop + _AHEAD, values.size)):
            prefetch(words, np.int64(values[i] >> np.uint32(6)))
            prefetch(before, np.int64(values[i] >> np.uint32(9)))
        for i in range(start, stop):
            ranks[i - start] = _rank(np.uint64(values[i]), words, before)
            prefetch(counts, ranks[i - start])
        for i in range(stop - start):
            counts[ranks[i]] += np.uint32(1)
            if counts[ranks[i]] == 0:
                wrapped[num_wrapped] = ranks[i]
                num_wrapped += 1
    return num_wrapped


@compiled
def _look_up(values, words, before, ids_by_rank, ids):
    """See RankBitmap.look_up. Memory accesses overlap as in _count."""
    ranks = np.empty(_AHEAD, np.int64)
    for start in range(0, values.size, _AHEAD):
        stop = min(start + _AHEAD, values.size)
        for i in range(stop, min(stop + _AHEAD, values.size)):
            prefetch(words, np.int64(values[i] >> np.uint32(6)))
            prefetch(before, np.int64(values[i] >> np.uint32(9)))
        for i in range(start, stop):
            value = np.uint64(values[i])
            ranks[i - start] = -1
            if words[np.int64(value >> _SIX)] >> (value & _LOW_SIX) & _ONE:
                ranks[i - start] = _rank(value, words, before)
                prefetch(ids_by_rank, ranks[i - start])
        for i in range(start, stop):
            ids[i] = ids_by_rank[ranks[i - start]] if ranks[i - start] >= 0 else 0


@compiled
def _put(values, ids, words, before, ids_by_rank):
    """See RankBitmap.put."""
    for i in range(values.size):
        if i + _AHEAD < values.size:
            prefetch(words, np.int64(values[i + _AHEAD] >> np.uint32(6)))
        ids_by_rank[_rank(np.uint64(values[i]), words, before)] = ids[i]


@compiled
def _select(words, ids_by_rank, first, values):
    """See RankBitmap.select. All members are visited in ascending order."""
    rank = 0
    last = first + values.size
    for position in range(words.size):
        word = words[position]
        while word:
            id_ = np.int64(ids_by_rank[rank])
            if first <= id_ < last:
                values[id_ - first] = np.uint32((np.uint64(position) << _SIX) + trailing_zeros(word))
            word &= word - _ONE
            rank += 1
