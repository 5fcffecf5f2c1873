"""The weights of bfloat16 tables in a checkpoint: numpy has no such type, so their files hold the bits as uint16.

A bfloat16 is the upper half of a float32: `(bits.astype(np.uint32) << 16).view(np.float32)` is the weight, exactly.
"""

import numpy as np

BFLOAT16 = "bfloat16"  # the dtype of such a file in the manifest


def stored_as(dtype: str) -> np.dtype:
    """The numpy type in the header of a file of this dtype."""
    return np.dtype("<u2" if dtype == BFLOAT16 else dtype)


def bits_of(weights: np.ndarray) -> np.ndarray:
    """float32 numbers that a bfloat16 holds exactly -> their bits, uint16 of the same shape."""
    bits = np.ascontiguousarray(weights, "<f4").view("<u4")
    assert not (bits & 0xFFFF).any(), "a number is not a bfloat16"
    return (bits >> 16).astype("<u2")


def weights_of(bits: np.ndarray) -> np.ndarray:
    """Bits -> float32 numbers of the same shape: the inverse of bits_of."""
    return (bits.astype("<u4") << np.uint32(16)).view("<f4")
