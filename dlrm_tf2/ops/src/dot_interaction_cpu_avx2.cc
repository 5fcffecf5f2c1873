// AVX2, FMA and F16C: 8 sums to a register, 16 registers.
#include <immintrin.h>

#include "dot_interaction_kernels.h"

namespace {

struct Avx2 : FloatElements<Avx2> {
  using Float = Avx2;
  using Register = __m256;
  using Elements = __m256;
  static constexpr int kSums = 8, kStep = 8, kDotRows = 2, kGradientRows = 6, kGradientColumns = 2;

  static DLRM_INLINE __m256 zero() { return _mm256_setzero_ps(); }
  static DLRM_INLINE __m256 load(const float* from) { return _mm256_loadu_ps(from); }
  static DLRM_INLINE __m256 load_elements(const float* from) { return load(from); }
  static DLRM_INLINE __m256 broadcast(const float* from) { return _mm256_broadcast_ss(from); }
  static DLRM_INLINE void store(float* to, __m256 x) { _mm256_storeu_ps(to, x); }
  static DLRM_INLINE __m256 multiply_add(__m256 a, __m256 b, __m256 sum) { return _mm256_fmadd_ps(a, b, sum); }
  static DLRM_INLINE __m256 halves(__m256 a, __m256 b) {
    return _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
  }
  static DLRM_INLINE void store_totals(float* to, int count, __m256 a, __m256 b, __m256 c, __m256 d) {
    // In each 128-bit lane: (a, b, a, b) and (c, d, c, d), then (a, b, c, d); then the lanes.
    const __m256d ab = _mm256_castps_pd(halves(a, b)), cd = _mm256_castps_pd(halves(c, d));
    const __m256 lanes = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)),
                                       _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd)));
    const __m128 totals = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
    if (count == 4) {
      _mm_storeu_ps(to, totals);
      return;
    }
    alignas(16) float values[4];
    _mm_store_ps(values, totals);
    for (int i = 0; i < count; ++i) to[i] = values[i];
  }
  static DLRM_INLINE __m256 from_float16(const void* from) {
    return _mm256_cvtph_ps(_mm_loadu_si128(static_cast<const __m128i*>(from)));
  }
  static DLRM_INLINE __m256 from_bfloat16(const void* from) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(from)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
  }
  static DLRM_INLINE void to_float16(void* to, __m256 x) {
    _mm_storeu_si128(static_cast<__m128i*>(to), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static DLRM_INLINE void to_bfloat16(void* to, __m256 x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(high, high), 0x08);
    _mm_storeu_si128(static_cast<__m128i*>(to), _mm256_castsi256_si128(packed));
  }
};

}  // namespace

namespace dlrm {
const DotKernels kDotAvx2 = kernels<Avx2>();
}
