// Stands in for the compiler's <immintrin.h>: AVX-512's instructions that the kernels name, in words that a processor
// with AVX2 understands. What the kernels write in the compiler's vector types needs nothing: the compiler cuts it in two.
#pragma once

#include_next <immintrin.h>

#include <stdint.h>
#include <string.h>

namespace emulator {

inline void must_be_aligned(const void* address, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0) __builtin_trap();  // as the instruction would
}

inline __m512 joined(__m256 low, __m256 high) {
  __m512 whole;
  memcpy(&whole, &low, sizeof low);
  memcpy(reinterpret_cast<char*>(&whole) + sizeof low, &high, sizeof high);
  return whole;
}

inline __m256 half_of(__m512 x, int which) {
  __m256 half;
  memcpy(&half, reinterpret_cast<const char*>(&x) + which * sizeof half, sizeof half);
  return half;
}

inline __m512 from_float16(__m256i halves) {
  return joined(_mm256_cvtph_ps(_mm256_castsi256_si128(halves)), _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1)));
}

inline __m256i to_float16(__m512 x) {
  return _mm256_set_m128i(_mm256_cvtps_ph(half_of(x, 1), _MM_FROUND_TO_NEAREST_INT),
                          _mm256_cvtps_ph(half_of(x, 0), _MM_FROUND_TO_NEAREST_INT));
}

inline void stream(void* to, __m512 x) {
  must_be_aligned(to, sizeof x);
  memcpy(to, &x, sizeof x);
}

inline float from_bfloat16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}

template <class Pairs>
__m512 dot_of_pairs(__m512 sums, Pairs a, Pairs b) {
  uint16_t left[32], right[32];
  memcpy(left, &a, sizeof left);
  memcpy(right, &b, sizeof right);
  for (int i = 0; i < 16; ++i) {
    sums[i] += from_bfloat16(left[2 * i]) * from_bfloat16(right[2 * i]) +
               from_bfloat16(left[2 * i + 1]) * from_bfloat16(right[2 * i + 1]);
  }
  return sums;
}

}  // namespace emulator

#undef _mm512_cvtps_ph
#undef _mm512_extractf32x8_ps
#define _mm512_cvtph_ps(halves) emulator::from_float16(halves)
#define _mm512_cvtps_ph(x, rounding) emulator::to_float16(x)
#define _mm512_castps512_ps256(x) emulator::half_of(x, 0)
#define _mm512_extractf32x8_ps(x, which) emulator::half_of(x, which)
#define _mm512_stream_ps(to, x) emulator::stream(to, x)
#define _mm512_dpbf16_ps(sums, a, b) emulator::dot_of_pairs(sums, a, b)
