// SplitMix64, addressed by position; in Python, with its source: criteo_prep/splitmix64.py.
#pragma once

#include <stdint.h>

// A function of the processor and, where nvcc compiles it, of the GPU.
#ifdef __CUDACC__
#define DLRM_BOTH __host__ __device__
#else
#define DLRM_BOTH
#endif

namespace dlrm {

constexpr uint64_t kGamma = 0x9e3779b97f4a7c15;

// A bijection in which every input bit reaches every output bit.
DLRM_BOTH static inline __attribute__((always_inline)) uint64_t mix64(uint64_t z) {
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

}  // namespace dlrm
