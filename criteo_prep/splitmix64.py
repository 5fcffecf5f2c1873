"""SplitMix64, addressed by position: the random bits at one place of a stream, without a state to hand on.

    bits(key, i) = mix64(key + i * GAMMA)        i = 1, 2, ... are the outputs of the generator seeded with `key`

Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators" (2014).
"""

import numpy as np

from criteo_prep.compiled import compiled

GAMMA = np.uint64(0x9E3779B97F4A7C15)


@compiled
def mix64(bits):
    """A bijection of uint64 in which every input bit reaches every output bit."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
