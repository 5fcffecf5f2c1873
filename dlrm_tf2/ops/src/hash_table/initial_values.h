// The first values of rows, from bits of SplitMix64 at places that seed, key and column say:
//
//     stream(key)  = mix64(mix64(key) ^ mix64(seed))
//     bits(i)      = mix64(stream + i * gamma)
//     uniform      : low + (high - low) * (bits(c + 1) >> 40) / 2^24                 of column c
//     normal       : mean + std * z(c);  z(c) = sqrt(-2 log(1 - u)) * cos(2 pi v)
//                    u, v = bits(2 c + 1), bits(2 c + 2), each >> 11 and / 2^53      Box and Muller (1958)
//     truncated    : as normal, of the first of c, c + 2^32, c + 2 * 2^32, ... with |z| <= 2
//
// Compile without fused products. Logarithm and cosine are sums of series here, because C libraries and GPUs differ in the
// last bit of theirs: sums, products, quotients and roots have the same bits everywhere.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "key_hash.h"
#include "key_index.h"

namespace dlrm {

DLRM_BOTH inline uint64_t stream_of(int64_t key, uint64_t seed) { return mix64(hash_of(key) ^ mix64(seed)); }

DLRM_BOTH inline double unit(uint64_t stream, uint64_t place) {
  return static_cast<double>(mix64(stream + place * kGamma) >> 11) * 0x1p-53;
}

// The natural logarithm of a number above 0 that is not denormal: x = m * 2^e with m from sqrt(1/2) to sqrt(2), and
// log(m) = 2 artanh(s) = 2 (s + s^3 / 3 + s^5 / 5 + ...), s = (m - 1) / (m + 1).
DLRM_BOTH inline double natural_log(double x) {
  constexpr double kLog2 = 0.6931471805599453, kRootOf2 = 1.4142135623730951;
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  int exponent = static_cast<int>(bits >> 52) - 1023;
  bits = (bits & 0xfffffffffffff) | 0x3ff0000000000000;
  double m;
  memcpy(&m, &bits, sizeof m);
  if (m > kRootOf2) {
    m = m * 0.5;
    ++exponent;
  }
  const double s = (m - 1) / (m + 1), square = s * s;  // at most 0.0295
  double sum = 0;
  for (int i = 23; i >= 1; i -= 2) sum = sum * square + 1.0 / i;
  return exponent * kLog2 + 2 * s * sum;
}

// cos(2 pi v) for v from 0 to 1: the quarter turn that v is nearest to, and the Taylor series of the rest, at most pi / 4.
DLRM_BOTH inline double cosine_of_turn(double v) {
  const double quarters = 4 * v;
  const int quarter = static_cast<int>(quarters + 0.5);
  const double x = (quarters - quarter) * 1.5707963267948966, square = x * x;
  double cosine = 1, sine = 1;  // 1 - x^2 / 2 (1 - x^2 / 12 (1 - ...)), and x (1 - x^2 / 6 (1 - ...))
  for (int i = 16; i > 1; i -= 2) cosine = 1 - square * (1.0 / (i * (i - 1))) * cosine;
  for (int i = 17; i > 1; i -= 2) sine = 1 - square * (1.0 / (i * (i - 1))) * sine;
  const double value = quarter % 2 == 0 ? cosine : x * sine;
  return quarter == 1 || quarter == 2 ? -value : value;
}

DLRM_BOTH inline double normal(uint64_t stream, uint64_t place) {
  return sqrt(-2 * natural_log(1 - unit(stream, 2 * place + 1))) * cosine_of_turn(unit(stream, 2 * place + 2));
}

DLRM_BOTH inline float initial_value(const DlrmInitializer& of, uint64_t stream, uint64_t column) {
  switch (of.kind) {
    case DLRM_CONSTANT: return of.low_or_mean;
    case DLRM_UNIFORM: {
      const uint64_t bits = mix64(stream + (column + 1) * kGamma) >> 40;
      return of.low_or_mean + (of.high_or_std - of.low_or_mean) * (static_cast<float>(bits) * 0x1p-24f);
    }
  }
  double z = normal(stream, column);
  for (uint64_t place = column; of.kind == DLRM_TRUNCATED_NORMAL && fabs(z) > 2; z = normal(stream, place)) {
    place += uint64_t{1} << 32;
  }
  return static_cast<float>(of.low_or_mean + of.high_or_std * z);
}

DLRM_BOTH inline uint16_t nearest_bfloat16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace dlrm
