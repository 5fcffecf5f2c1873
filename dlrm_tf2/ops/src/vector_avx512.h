// AVX-512: 16 values to a register, 32 registers.
#pragma once

#include <immintrin.h>

#define DLRM_LANES 16
#include "vector.h"

namespace {

struct Avx512Vector {
  static DLRM_INLINE Floats from_float16(Halves halves) { return _mm512_cvtph_ps(reinterpret_cast<__m256i>(halves)); }
  static DLRM_INLINE Halves float16_of(Floats x) {
    return reinterpret_cast<Halves>(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static DLRM_INLINE Floats square_root(Floats x) { return _mm512_sqrt_ps(x); }
  static DLRM_INLINE Four add_lanes(Floats x) {
    const __m256 two = _mm512_castps512_ps256(x) + _mm512_extractf32x8_ps(x, 1);
    return _mm256_castps256_ps128(two) + _mm256_extractf128_ps(two, 1);
  }
  static DLRM_INLINE void stream(void* to, Floats x) { _mm512_stream_ps(static_cast<float*>(to), x); }
  static DLRM_INLINE void stream(void* to, Halves halves) {
    _mm256_stream_si256(static_cast<__m256i*>(to), reinterpret_cast<__m256i>(halves));
  }
  static DLRM_INLINE void end_streams() { _mm_sfence(); }
};

}  // namespace
