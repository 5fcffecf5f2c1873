"""float16 and float32 against numpy's own conversion, every float16 and what lies between two of them."""

import numpy as np
import pytest

from criteo_prep.transcribe.half import narrow, widen

EVERY = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
FINITE = EVERY[np.isfinite(EVERY)].astype(np.float32)
MIDDLES = (FINITE[1:] / 2 + FINITE[:-1] / 2).astype(np.float32)


def test_every_float16_as_float32():
    finite = EVERY[np.isfinite(EVERY)]
    assert widen(finite).tobytes() == finite.astype(np.float32).tobytes()
    assert widen(finite.reshape(-1, 2)[::2]).shape == (len(finite) // 4, 2)


@pytest.mark.parametrize("towards", [None, np.inf, -np.inf])
@pytest.mark.parametrize("numbers", [FINITE, MIDDLES], ids=["exact", "halfway"])
def test_rounding(numbers, towards):
    numbers = numbers if towards is None else np.nextafter(numbers, np.float32(towards))
    numbers = numbers[np.abs(numbers) <= 65504]
    expected = numbers.astype(np.float16)
    halves, num_rounded = narrow(numbers)
    assert halves.tobytes() == expected.tobytes()
    assert num_rounded == np.count_nonzero(expected != numbers)


def test_by_hand():
    halves, num_rounded = narrow(np.array([[1, -0.0], [0.1, 1e-9]], np.float32))
    assert halves.tolist() == [[1, 0], [0.0999755859375, 0]] and np.signbit(halves[0, 1]) and num_rounded == 2


@pytest.mark.parametrize("number", [65505, -65520, 3e38])
def test_a_number_that_is_too_large(number):
    assert narrow(np.array([1, number], np.float32))[1] == -1
