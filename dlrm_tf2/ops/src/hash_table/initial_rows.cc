// The first values of rows, from bits of SplitMix64 at places that seed, key and column say; compile without fused products.
//
//     stream(key)  = mix64(mix64(key) ^ mix64(seed))
//     bits(i)      = mix64(stream + i * gamma)
//     uniform      : low + (high - low) * (bits(c + 1) >> 40) / 2^24                 of column c
//     normal       : mean + std * z(c);  z(c) = sqrt(-2 log(1 - u)) * cos(2 pi v)
//                    u, v = bits(2 c + 1), bits(2 c + 2), each >> 11 and / 2^53      Box and Muller (1958)
//     truncated    : as normal, of the first of c, c + 2^32, c + 2 * 2^32, ... with |z| <= 2
#include <math.h>
#include <string.h>

#include <algorithm>

#include "key_index.h"
#include "key_hash.h"

namespace {

double unit(uint64_t stream, uint64_t place) {
  return static_cast<double>(dlrm::mix64(stream + place * dlrm::kGamma) >> 11) * 0x1p-53;
}

double normal(uint64_t stream, uint64_t place) {
  constexpr double kTwoPi = 6.283185307179586;
  return sqrt(-2 * log(1 - unit(stream, 2 * place + 1))) * cos(kTwoPi * unit(stream, 2 * place + 2));
}

float value_of(const DlrmInitializer& of, uint64_t stream, uint64_t column) {
  switch (of.kind) {
    case DLRM_CONSTANT: return of.low_or_mean;
    case DLRM_UNIFORM: {
      const uint64_t bits = dlrm::mix64(stream + (column + 1) * dlrm::kGamma) >> 40;
      return of.low_or_mean + (of.high_or_std - of.low_or_mean) * (static_cast<float>(bits) * 0x1p-24f);
    }
  }
  double z = normal(stream, column);
  for (uint64_t place = column; of.kind == DLRM_TRUNCATED_NORMAL && fabs(z) > 2; z = normal(stream, place)) {
    place += uint64_t{1} << 32;
  }
  return static_cast<float>(of.low_or_mean + of.high_or_std * z);
}

uint16_t nearest_bfloat16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace

extern "C" int dlrm_initialize_rows(const DlrmInitialRows* to, const DlrmInitializer* initializer, const int64_t* rows,
                                    const int64_t* keys, int64_t count) {
  if (initializer->kind < DLRM_CONSTANT || initializer->kind > DLRM_TRUNCATED_NORMAL ||
      (to->weights_type != DLRM_FLOAT32 && to->weights_type != DLRM_BFLOAT16)) {
    return DLRM_BAD_ARGUMENT;
  }
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t stream = dlrm::mix64(dlrm::hash_of(keys[i]) ^ dlrm::mix64(initializer->seed));
    const int64_t first = rows[i] * to->width;
    for (int64_t column = 0; column < to->width; ++column) {
      const float value = value_of(*initializer, stream, static_cast<uint64_t>(column));
      if (to->weights_type == DLRM_FLOAT32) static_cast<float*>(to->weights)[first + column] = value;
      else static_cast<uint16_t*>(to->weights)[first + column] = nearest_bfloat16(value);
    }
    for (int64_t slot = 0; slot < to->num_slots; ++slot) {
      const int64_t width = to->slot_widths[slot];
      std::fill_n(to->slots[slot] + rows[i] * width, width, to->state[slot]);
    }
  }
  return DLRM_OK;
}
