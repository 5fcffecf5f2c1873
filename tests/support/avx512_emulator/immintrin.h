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

// sums + a * b, rounded once. A denormal counts as zero, in the operands and in the result, whatever MXCSR says: this
// sets MXCSR to "nearest even, DAZ, FTZ" for the one instruction.
inline __m256 multiply_add_without_denormals(__m256 a, __m256 b, __m256 sums) {
  const uint32_t without_denormals = 0x9fc0, before = _mm_getcsr();
  asm volatile(
      "vldmxcsr %[without_denormals]\n\tvfmadd231ps %[b], %[a], %[sums]\n\tvldmxcsr %[before]"
      : [sums] "+x"(sums)
      : [a] "x"(a), [b] "x"(b), [without_denormals] "m"(without_denormals), [before] "m"(before));
  return sums;
}

inline __m256 first_of_pairs(__m256i pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }

inline __m256 second_of_pairs(__m256i pairs) {
  return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000))));
}

// VDPBF16PS: two multiply-adds for each sum, first that of the upper bfloat16 of each pair, then that of the lower one.
// Source: Intel's Software Developer's Manual, VDPBF16PS, "Operation".
template <class Pairs>
__m512 dot_of_pairs(__m512 sums, Pairs a, Pairs b) {
  __m256i left[2], right[2];
  memcpy(left, &a, sizeof left);
  memcpy(right, &b, sizeof right);
  __m256 halves[2];
  for (int i = 0; i < 2; ++i) {
    halves[i] = multiply_add_without_denormals(second_of_pairs(left[i]), second_of_pairs(right[i]), half_of(sums, i));
    halves[i] = multiply_add_without_denormals(first_of_pairs(left[i]), first_of_pairs(right[i]), halves[i]);
  }
  return joined(halves[0], halves[1]);
}

}  // namespace emulator

#undef _mm512_cvtps_ph
#undef _mm512_extractf32x8_ps
#define _mm512_cvtph_ps(halves) emulator::from_float16(halves)
#define _mm512_cvtps_ph(x, rounding) emulator::to_float16(x)
#define _mm512_sqrt_ps(x) \
  emulator::joined(_mm256_sqrt_ps(emulator::half_of(x, 0)), _mm256_sqrt_ps(emulator::half_of(x, 1)))
#define _mm512_castps512_ps256(x) emulator::half_of(x, 0)
#define _mm512_extractf32x8_ps(x, which) emulator::half_of(x, which)
#define _mm512_stream_ps(to, x) emulator::stream(to, x)
#define _mm512_dpbf16_ps(sums, a, b) emulator::dot_of_pairs(sums, a, b)
