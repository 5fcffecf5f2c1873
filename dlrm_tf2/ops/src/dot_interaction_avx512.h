// AVX-512: 16 sums to a register, 32 registers. Included by the two translation units that use it.
#pragma once

#include <immintrin.h>

#include "dot_interaction_kernels.h"

namespace {

struct Avx512 : FloatElements<Avx512> {
  using Float = Avx512;
  using Register = __m512;
  using Elements = __m512;
  static constexpr int kSums = 16, kStep = 16, kDotRows = 4, kGradientRows = 6, kGradientColumns = 4;

  static DLRM_INLINE __m512 zero() { return _mm512_setzero_ps(); }
  static DLRM_INLINE __m512 load(const float* from) { return _mm512_loadu_ps(from); }
  static DLRM_INLINE __m512 load_elements(const float* from) { return load(from); }
  static DLRM_INLINE __m512 broadcast(const float* from) { return _mm512_set1_ps(*from); }
  static DLRM_INLINE void store(float* to, __m512 x) { _mm512_storeu_ps(to, x); }
  static DLRM_INLINE __m512 multiply_add(__m512 a, __m512 b, __m512 sum) { return _mm512_fmadd_ps(a, b, sum); }
  static DLRM_INLINE __m512 halves(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  }
  static DLRM_INLINE void store_totals(float* to, int count, __m512 a, __m512 b, __m512 c, __m512 d) {
    // In each 128-bit lane: (a, b, a, b) and (c, d, c, d), then (a, b, c, d); then the lanes.
    const __m512d ab = _mm512_castps_pd(halves(a, b)), cd = _mm512_castps_pd(halves(c, d));
    const __m512 lanes = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)),
                                       _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd)));
    const __m256 two = _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps(lanes, 1));
    const __m128 totals = _mm_add_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps(two, 1));
    _mm_mask_storeu_ps(to, static_cast<__mmask8>((1 << count) - 1), totals);
  }
  static DLRM_INLINE __m512 from_float16(const void* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(static_cast<const __m256i*>(from)));
  }
  static DLRM_INLINE __m512 from_bfloat16(const void* from) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(from)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  static DLRM_INLINE void to_float16(void* to, __m512 x) {
    _mm256_storeu_si256(static_cast<__m256i*>(to), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static DLRM_INLINE void to_bfloat16(void* to, __m512 x) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    const __m512i kept = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
    _mm256_storeu_si256(static_cast<__m256i*>(to), _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16)));
  }
};

}  // namespace
