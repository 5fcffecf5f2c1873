// AVX2, FMA and F16C: 8 values to a register, 16 registers.
#pragma once

#include <immintrin.h>

#define DLRM_LANES 8
#include "vector.h"

namespace {

struct Avx2Vector {
  static DLRM_INLINE Floats from_float16(Halves halves) { return _mm256_cvtph_ps(reinterpret_cast<__m128i>(halves)); }
  static DLRM_INLINE Halves float16_of(Floats x) {
    return reinterpret_cast<Halves>(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static DLRM_INLINE Floats square_root(Floats x) { return _mm256_sqrt_ps(x); }
  static DLRM_INLINE Four add_lanes(Floats x) { return _mm256_castps256_ps128(x) + _mm256_extractf128_ps(x, 1); }
  static DLRM_INLINE void stream(void* to, Floats x) { _mm256_stream_ps(static_cast<float*>(to), x); }
  static DLRM_INLINE void stream(void* to, Halves halves) {
    _mm_stream_si128(static_cast<__m128i*>(to), reinterpret_cast<__m128i>(halves));
  }
  static DLRM_INLINE void end_streams() { _mm_sfence(); }
};

}  // namespace
