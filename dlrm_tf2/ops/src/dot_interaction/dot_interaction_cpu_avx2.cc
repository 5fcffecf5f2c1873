// AVX2, FMA and F16C: 8 sums to a register, 16 registers.
#include <immintrin.h>

#define DLRM_LANES 8
#include "dot_interaction_kernels.h"

namespace {

struct Avx2 : FloatElements<Avx2> {
  static constexpr int kDotRows = 3, kGradientRows = 3, kGradientColumns = 4;

  static DLRM_INLINE Floats from_float16(Halves halves) { return _mm256_cvtph_ps(reinterpret_cast<__m128i>(halves)); }
  static DLRM_INLINE Halves float16_of(Floats x) {
    return reinterpret_cast<Halves>(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static DLRM_INLINE Four add_lanes(Floats x) { return _mm256_castps256_ps128(x) + _mm256_extractf128_ps(x, 1); }
  static DLRM_INLINE void stream(void* to, Floats x) { _mm256_stream_ps(static_cast<float*>(to), x); }
  static DLRM_INLINE void stream(void* to, Halves halves) {
    _mm_stream_si128(static_cast<__m128i*>(to), reinterpret_cast<__m128i>(halves));
  }
  static DLRM_INLINE void end_streams() { _mm_sfence(); }
};

}  // namespace

namespace dlrm {
const DotKernels kDotAvx2[] = DLRM_KERNELS(Avx2);
}
