// Plain C++ for any processor. Four sums at a time, which is what every compiler has registers for.
#include "dot_interaction_kernels.h"

namespace {

float from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

uint32_t to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}

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

uint16_t float_to_bfloat(float value) {
  const uint32_t bits = to_bits(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t(bits >> 16 | 0x40);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

struct Four {
  float value[4];
};

struct Scalar : FloatElements<Scalar> {
  using Float = Scalar;
  using Register = Four;
  using Elements = Four;
  static constexpr int kSums = 4, kStep = 4, kDotRows = 1, kGradientRows = 1, kGradientColumns = 2;

  static DLRM_INLINE Four zero() { return {{0, 0, 0, 0}}; }
  static DLRM_INLINE Four load(const float* from) { return {{from[0], from[1], from[2], from[3]}}; }
  static DLRM_INLINE Four load_elements(const float* from) { return load(from); }
  static DLRM_INLINE Four broadcast(const float* from) { return {{*from, *from, *from, *from}}; }
  static DLRM_INLINE void store(float* to, Four x) { memcpy(to, x.value, sizeof x.value); }
  static DLRM_INLINE Four multiply_add(Four a, Four b, Four sum) {
    for (int i = 0; i < 4; ++i) sum.value[i] += a.value[i] * b.value[i];
    return sum;
  }
  static DLRM_INLINE float total(Four x) { return (x.value[0] + x.value[2]) + (x.value[1] + x.value[3]); }
  static DLRM_INLINE void store_totals(float* to, int count, Four a, Four b, Four c, Four d) {
    const float totals[4] = {total(a), total(b), total(c), total(d)};
    for (int i = 0; i < count; ++i) to[i] = totals[i];
  }
  static DLRM_INLINE Four from_float16(const void* from) {
    uint16_t halves[4];
    memcpy(halves, from, sizeof halves);
    return {{half_to_float(halves[0]), half_to_float(halves[1]), half_to_float(halves[2]), half_to_float(halves[3])}};
  }
  static DLRM_INLINE Four from_bfloat16(const void* from) {
    uint16_t high[4];
    memcpy(high, from, sizeof high);
    return {{from_bits(uint32_t(high[0]) << 16), from_bits(uint32_t(high[1]) << 16),
             from_bits(uint32_t(high[2]) << 16), from_bits(uint32_t(high[3]) << 16)}};
  }
  static DLRM_INLINE void to_float16(void* to, Four x) {
    uint16_t halves[4];
    for (int i = 0; i < 4; ++i) halves[i] = float_to_half(x.value[i]);
    memcpy(to, halves, sizeof halves);
  }
  static DLRM_INLINE void to_bfloat16(void* to, Four x) {
    uint16_t high[4];
    for (int i = 0; i < 4; ++i) high[i] = float_to_bfloat(x.value[i]);
    memcpy(to, high, sizeof high);
  }
};

}  // namespace

namespace dlrm {
const DotKernels kDotScalar = kernels<Scalar>();
}
