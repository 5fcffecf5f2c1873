"""The dot interaction and its gradient in float64 numpy, written for reading: the reference of several tests."""

import numpy as np

BFLOAT16 = "bfloat16"
DTYPES = {"float32": 0, "float16": 1, BFLOAT16: 2}  # and their numbers in the kernels' C interface
# The largest error allowed of an output of size 1 after summing values of size 1: a few steps of the type.
TOLERANCE = {"float32": 2e-6, "float16": 2e-3, BFLOAT16: 1.6e-2}


def forward(features: np.ndarray) -> np.ndarray:
    """[B, F, D] to [B, P]: row 0, the dots of pairs i > j row-major, zeros to a multiple of 8."""
    count = features.shape[1]
    dots = [np.sum(features[:, i] * features[:, j], axis=1) for i in range(count) for j in range(i)]
    output = np.concatenate([features[:, 0], *(dot[:, None] for dot in dots)], axis=1)
    return np.pad(output, [(0, 0), (0, -output.shape[1] % 8)])


def gradient(features: np.ndarray, upstream: np.ndarray) -> np.ndarray:
    """[B, F, D] and [B, P] to [B, F, D]."""
    _, count, width = features.shape
    gradient = np.zeros_like(features)
    gradient[:, 0] += upstream[:, :width]
    pair = width
    for i in range(count):
        for j in range(i):
            gradient[:, i] += upstream[:, pair, None] * features[:, j]
            gradient[:, j] += upstream[:, pair, None] * features[:, i]
            pair += 1
    return gradient


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """float64 values as memory of `dtype`; bfloat16, which numpy lacks, as its 16 bits in uint16."""
    if dtype != BFLOAT16:
        return np.ascontiguousarray(values, dtype)
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def widened(memory: np.ndarray, dtype: str) -> np.ndarray:
    """The way back: what the memory means, in float64."""
    if dtype != BFLOAT16:
        return memory.astype(np.float64)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        return (memory.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def typed(bits: np.ndarray, dtype: str) -> np.ndarray:
    """Unsigned integers as memory of `dtype`."""
    return bits if dtype == "bfloat16" else bits.view(dtype)


def every_pattern(dtype: str) -> np.ndarray:
    """The 65,536 patterns of a 2-byte type; of float32 those of its upper half, each with two lower halves."""
    bits = np.arange(2**16, dtype=np.uint16)
    if dtype != "float32":
        return bits
    upper = bits.astype(np.uint32) << 16
    return np.concatenate([upper, upper | np.uint32(0x2345)])


def assert_near(found: np.ndarray, expected: np.ndarray, dtype: str, num_terms: int) -> None:
    """`found` is `expected` within the type's rounding: relative, and absolute for sums of `num_terms` that cancel."""
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=2e-6 * max(1, num_terms) + 1e-7)
