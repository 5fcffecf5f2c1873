"""float32 to float16 and back, with the results of numpy's astype, but faster."""

import functools

import numpy as np

from criteo_prep.compiled import compiled

_LARGEST = np.uint32(0x477FE000)  # bits of 65504, the largest float16
_SMALLEST_NORMAL = np.float32(2.0**-14)
_STEPS = np.float32(2.0**24)  # below the smallest normal number, float16 has steps of 2**-24


def narrow(numbers: np.ndarray) -> tuple[np.ndarray, int]:
    """Finite float32 of any shape as float16, rounded to the nearest, ties to even.

    Returns:
      (float16 numbers, how many of them differ from the float32 numbers). Where a number is larger than 65504, the
      count is -1 and the float16 numbers are not valid.
    """
    numbers = np.ascontiguousarray(numbers)
    halves = np.empty(numbers.shape, np.float16)
    rounded = _narrow(numbers.reshape(-1), numbers.view(np.uint32).reshape(-1), halves.view(np.uint16).reshape(-1))
    return halves, rounded


def widen(halves: np.ndarray) -> np.ndarray:
    """float16 of any shape as float32."""
    numbers = np.empty(halves.shape, np.float32)
    _look_up(np.ascontiguousarray(halves).view(np.uint16).reshape(-1), _table(), numbers.reshape(-1))
    return numbers


@functools.cache
def _table() -> np.ndarray:
    """float32 [65536]: the number of every float16."""
    return np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)


@compiled
def _narrow(numbers, bits, halves):
    """float32 [n] and its bits, uint32 [n], to the bits of float16, uint16 [n]. Returns the count of `narrow`."""
    rounded = 0
    largest = np.uint32(0)
    for i in range(bits.size):
        size = np.uint32(bits[i] & np.uint32(0x7FFFFFFF))
        largest = max(largest, size)
        # 13 bits of the mantissa are dropped. A carry runs into the exponent, whose bias changes from 127 to 15.
        odd = np.uint32(size >> np.uint32(13)) & np.uint32(1)
        normal = np.uint32(np.uint32(np.uint32(size + np.uint32(0xFFF)) + odd) >> np.uint32(13)) - np.uint32(112 << 10)
        # Adding one half, whose steps are 2**-24, makes the processor round to these steps.
        magnitude = abs(numbers[i])
        small = np.float32(np.float32(magnitude + np.float32(0.5)) - np.float32(0.5))
        is_small = magnitude < _SMALLEST_NORMAL
        half = np.uint32(np.int32(small * _STEPS)) if is_small else np.uint32(normal)
        rounded += (small != magnitude) if is_small else ((size & np.uint32(0x1FFF)) != 0)
        halves[i] = np.uint16(half | np.uint32(np.uint32(bits[i] >> np.uint32(16)) & np.uint32(0x8000)))
    return rounded if largest <= _LARGEST else -1


@compiled
def _look_up(places, table, values):
    """values[i] = table[places[i]], places uint16 [n]."""
    for i in range(places.size):
        values[i] = table[places[i]]
