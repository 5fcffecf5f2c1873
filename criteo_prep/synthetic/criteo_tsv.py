"""Synthetic rows in the form of Criteo's logs: day_0 ... day_{D-1}, tab-separated text.

    label, 13 integers, 26 values of eight lower-case hexadecimal digits; an empty field is missing

Level k of numerical column j is the integer floor(exp(k / 2048 * SPAN[j])) - SHIFT[j]. So log(x + 3), which training
sees, is spread over its range. Id i of column f is the value mix32(i + offset(f)), which looks like a hash;
id_of_value is the inverse. The last day holds the splits test and validation, the other days hold train.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from criteo_prep.compiled import compiled
from criteo_prep.feature_spec import Feature, FeatureSpecError
from criteo_prep.manifest import ChecksummedFile
from criteo_prep.parallel import in_order
from criteo_prep.schema import NUM_NUMERICAL, log_numerical, split_rows_of_last_day
from criteo_prep.synthetic.columns import MISSING_LEVEL, NUM_LEVELS, Columns
from criteo_prep.synthetic.labels import FAIR_COINS, Labels, draw_labels
from criteo_prep.synthetic.power_law import stream_key
from criteo_prep.synthetic.truth import Truth

BLOCK_ROWS = 1 << 15
MEAN_ROW_BYTES = 250  # approximate, for the check of free disk space

# Natural logarithms of the ranges; only the second column has negative numbers (-1), as in the logs.
SPAN = (6.0, 8.0, 7.0, 4.0, 13.0, 9.0, 7.0, 5.0, 8.0, 2.5, 5.0, 3.0, 8.0)
SHIFT = (1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1)

# Shares of missing fields, in thirty-seconds of the rows. Source: a count over the first rows of Criteo Kaggle's file.
MISSING_NUMBERS = (14, 0, 7, 7, 1, 8, 1, 0, 1, 14, 1, 25, 7)
MISSING_VALUES = (0, 0, 1, 1, 0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 15, 15, 1, 26, 0, 1, 15, 15)

_LABEL_BYTES, _NUMBER_BYTES, _VALUE_BYTES = 1, 8, 9  # with the tab before each number and value
_MAX_ROW_BYTES = _LABEL_BYTES + len(SPAN) * _NUMBER_BYTES + len(MISSING_VALUES) * _VALUE_BYTES + 1
_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_TAB, _LF, _MINUS, _ZERO = 9, 10, 45, 48


def numbers_of_levels() -> np.ndarray:
    """The integer for each level of each numerical column: int64 [13, NUM_LEVELS]."""
    u = np.arange(NUM_LEVELS) / NUM_LEVELS
    return np.floor(np.exp(u * np.array(SPAN)[:, None])).astype(np.int64) - np.array(SHIFT)[:, None]


def value_offset(feature: str) -> int:
    """The 32-bit offset of a categorical column. It does not depend on the seed."""
    return int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=4).digest(), "little")


def value_of_id(feature: str, row: int) -> int:
    """The 32-bit value in the TSV for an id of a column."""
    return int(_mix32((row + value_offset(feature)) % 2**32))


def values_of_ids(feature: str, ids: np.ndarray) -> np.ndarray:
    """The 32-bit values in the TSV for ids of a column, of any integer type and not missing: int64 [n]."""
    values = np.empty(len(ids), np.int64)
    _mix(ids, np.uint32(value_offset(feature)), values)
    return values


def id_of_value(feature: str, value: int) -> int:
    """The inverse of value_of_id."""
    # Inverts the steps of _mix32 from the last to the first; the inverse of a multiplier m is pow(m, -1, 2**32).
    value ^= value >> 16
    value = value * pow(0x7FEB352D, -1, 2**32) % 2**32
    value ^= value >> 15 ^ value >> 30
    value = value * pow(0x5BD1E995, -1, 2**32) % 2**32
    value ^= value >> 16
    return (value - value_offset(feature)) % 2**32


@dataclass(frozen=True)
class _Part:
    """Consecutive rows of a split in one day file."""

    day: str
    split: str
    start: int
    stop: int


class DayWriter:
    """Writes the day files of a synthetic dataset.

    Args:
      categorical: the 26 columns, with cardinality and alpha.
      seed: seed of the dataset.
      labels: how the labels are drawn.

    Raises:
      FeatureSpecError: a column has more than one id a row, or its ids cannot be drawn.
    """

    def __init__(
        self,
        categorical: tuple[Feature, ...],
        seed: int,
        *,
        labels: Labels = FAIR_COINS,
    ):
        for feature in categorical:
            if feature.hotness != 1:
                raise FeatureSpecError(
                    f"{feature.name}: has {feature.hotness} ids a row, but Criteo's logs have one value a field. Use a "
                    "one-hot preset, or the layout tf_raw."
                )
        self._columns = Columns(
            categorical, NUM_NUMERICAL, seed=seed, missing_ids=MISSING_VALUES, missing_levels=MISSING_NUMBERS
        )
        self._numbers = numbers_of_levels()
        seen = log_numerical(self._numbers, np.zeros(self._numbers.shape, bool)).astype(np.float64)
        self._teacher = labels.teacher(self._columns, seen)
        self._offsets = np.array([value_offset(feature.name) for feature in categorical], np.uint32)

    def write(
        self,
        folder: Path,
        num_train: int,
        *,
        num_test: int,
        num_days: int,
        workers: int | None = None,
        advance: Callable[[int], None] = lambda rows: None,
    ) -> dict:
        """Writes day_0 ... day_{num_days - 1} into `folder`.

        Args:
          folder: the existing folder.
          num_train: rows of all days but the last.
          num_test: rows of the last day.
          num_days: number of days.
          workers: threads; None for one thread per core.
          advance: called with the number of rows after each written block.

        Returns:
          The manifest's "splits", "days" (rows, clicks, best AUC and log loss of each) and "files".

        Raises:
          ValueError: num_days is less than two or more than the rows fill.
        """
        splits: dict[str, Truth] = {}
        days: dict[str, Truth] = {}
        files: dict[str, dict] = {}
        parts = _parts(num_train, num_test, num_days)
        for day in dict.fromkeys(part.day for part in parts):
            days[day] = Truth()
            with ChecksummedFile(Path(folder) / day) as file:
                blocks = [block for part in parts if part.day == day for block in _blocks(part)]
                for block, (text, truth) in zip(blocks, in_order(self._text, blocks, workers=workers), strict=True):
                    file.write(text)
                    days[day].merge(truth)
                    splits.setdefault(block.split, Truth()).merge(truth)
                    advance(block.stop - block.start)
            files[day] = file.entry
        return {
            "splits": {split: truth.document() for split, truth in splits.items()},
            "days": {day: truth.document() for day, truth in days.items()},
            "files": files,
        }

    def _text(self, block: _Part) -> tuple[np.ndarray, Truth]:
        rows, split, truth = block.stop - block.start, block.split, Truth()
        columns = self._columns
        ids = np.empty((len(columns.categorical), rows), np.int32)
        for column, out in enumerate(ids):
            out[:] = columns.ids(split, column, start=block.start, stop=block.stop)
        levels = columns.levels(split, block.start, block.stop)
        logits = self._teacher.logits(list(ids), levels) if self._teacher else None
        labels = draw_labels(logits, rows, key=stream_key(columns.seed, split, "label"), start=block.start, truth=truth)
        text = np.empty(rows * _MAX_ROW_BYTES, np.uint8)
        return text[: _format(labels, levels, self._numbers, ids, self._offsets, text)], truth


def _parts(num_train: int, num_test: int, num_days: int) -> list[_Part]:
    """The parts in file order. All training days have equally many rows, or one row more."""
    if num_days < 2:
        raise ValueError(f"num_days {num_days}: must be at least 2, because the last day is the evaluation day.")
    train_days = num_days - 1
    if num_train < train_days or num_test < 1:
        raise ValueError(
            f"{num_train} training rows and {num_test} test rows do not fill {num_days} days: {train_days} to train, "
            "one to evaluate. Give more rows or fewer days."
        )
    ends = [num_train * (day + 1) // train_days for day in range(train_days)]
    starts = [0, *ends[:-1]]
    parts = [_Part(f"day_{day}", "train", start=starts[day], stop=ends[day]) for day in range(train_days)]
    halves = zip(("test", "validation"), split_rows_of_last_day(num_test), strict=True)
    return parts + [_Part(f"day_{train_days}", split, start=0, stop=rows) for split, rows in halves if rows]


def _blocks(part: _Part) -> list[_Part]:
    starts = range(part.start, part.stop, BLOCK_ROWS)
    return [_Part(part.day, part.split, start=start, stop=min(start + BLOCK_ROWS, part.stop)) for start in starts]


@compiled
def _mix32(value):
    """A bijection of 32 bits; value is an integer below 2^32."""
    bits = np.uint32(value)
    bits = np.uint32(bits ^ (bits >> np.uint32(16)))
    bits = np.uint32(bits * np.uint32(0x5BD1E995))
    bits = np.uint32(bits ^ (bits >> np.uint32(15)))
    bits = np.uint32(bits * np.uint32(0x7FEB352D))
    return np.uint32(bits ^ (bits >> np.uint32(16)))


@compiled
def _mix(ids, offset, out):
    for place in range(ids.size):
        out[place] = _mix32(np.uint32(ids[place]) + offset)


@compiled
def _format(labels, levels, numbers, ids, offsets, out):
    """Writes the rows as text into out; returns the number of bytes.

    labels bool [n], levels uint16 [n, 13], numbers int64 [13, levels], ids int32 [26, n], offsets uint32 [26].
    """
    at = 0
    for row in range(labels.size):
        out[at] = _ZERO + labels[row]
        at += 1
        for column in range(levels.shape[1]):
            out[at] = _TAB
            at += 1
            if levels[row, column] != MISSING_LEVEL:
                at = _write_number(numbers[column, levels[row, column]], out, at)
        for column in range(ids.shape[0]):
            out[at] = _TAB
            at += 1
            if ids[column, row] >= 0:
                value = _mix32(np.uint32(ids[column, row]) + offsets[column])
                for digit in range(8):
                    out[at + digit] = _HEX[(value >> np.uint32(28 - 4 * digit)) & np.uint32(15)]
                at += 8
        out[at] = _LF
        at += 1
    return at


@compiled
def _write_number(number, out, at):
    if number < 0:
        out[at] = _MINUS
        at, number = at + 1, -number
    end = at + 1
    rest = number // 10
    while rest:
        end, rest = end + 1, rest // 10
    for place in range(end - 1, at - 1, -1):
        out[place] = _ZERO + number % 10
        number //= 10
    return end
