// For any processor: four values at a time, which is what every compiler has registers for.
#pragma once

#define DLRM_LANES 4
#include "vector.h"

namespace {

float from_bits(uint32_t bits) { return read_as<float>(&bits); }

uint32_t to_bits(float value) { return read_as<uint32_t>(&value); }

float half_to_float(uint16_t half) {
  const uint32_t sign = uint32_t(half & 0x8000) << 16, magnitude = half & 0x7fff;
  if (magnitude >= 0x7c00) return from_bits(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  // A denormal, as a float, is its integer times 2^-24; the others get the exponent's bias.
  if (magnitude < 0x400) return from_bits(sign | to_bits(float(magnitude) * 0x1p-24f));
  return from_bits(sign | ((magnitude << 13) + ((127 - 15) << 23)));
}

uint16_t float_to_half(float value) {
  const uint32_t bits = to_bits(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return uint16_t(sign | 0x7e00);
  if (magnitude >= 0x477ff000) return uint16_t(sign | 0x7c00);  // rounds to 65536 or more
  if (magnitude < 0x38800000) {
    // Below 2^-14 halves are multiples of 2^-24: adding 0.5 leaves exactly those bits, rounded to even.
    return uint16_t(sign | (to_bits(from_bits(magnitude) + 0.5f) - to_bits(0.5f)));
  }
  const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
  return uint16_t(sign | (rounded - ((127 - 15) << 23)) >> 13);
}

struct ScalarVector {
  static DLRM_INLINE Floats from_float16(Halves halves) {
    return Floats{half_to_float(halves[0]), half_to_float(halves[1]), half_to_float(halves[2]),
                  half_to_float(halves[3])};
  }
  static DLRM_INLINE Halves float16_of(Floats x) {
    return Halves{float_to_half(x[0]), float_to_half(x[1]), float_to_half(x[2]), float_to_half(x[3])};
  }
  static DLRM_INLINE Floats square_root(Floats x) {
    return Floats{__builtin_sqrtf(x[0]), __builtin_sqrtf(x[1]), __builtin_sqrtf(x[2]), __builtin_sqrtf(x[3])};
  }
  static DLRM_INLINE Four add_lanes(Floats x) { return x; }
  template <class Stored>
  static DLRM_INLINE void stream(void* to, Stored values) {  // there is no portable way past the caches
    memcpy(to, &values, sizeof values);
  }
  static DLRM_INLINE void end_streams() {}
};

}  // namespace
