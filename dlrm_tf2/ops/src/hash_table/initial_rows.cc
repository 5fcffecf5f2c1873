// The first values of rows on the CPU; initial_values.h has the formulas. Compile without fused products.
#include <algorithm>

#include "initial_values.h"

extern "C" int dlrm_initialize_rows(const DlrmInitialRows* to, const DlrmInitializer* initializer, const int64_t* rows,
                                    const int64_t* keys, int64_t count) {
  if (initializer->kind < DLRM_CONSTANT || initializer->kind > DLRM_TRUNCATED_NORMAL ||
      (to->weights_type != DLRM_FLOAT32 && to->weights_type != DLRM_BFLOAT16)) {
    return DLRM_BAD_ARGUMENT;
  }
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t stream = dlrm::stream_of(keys[i], initializer->seed);
    const int64_t first = rows[i] * to->width;
    for (int64_t column = 0; column < to->width; ++column) {
      const float value = dlrm::initial_value(*initializer, stream, static_cast<uint64_t>(column));
      if (to->weights_type == DLRM_FLOAT32) static_cast<float*>(to->weights)[first + column] = value;
      else static_cast<uint16_t*>(to->weights)[first + column] = dlrm::nearest_bfloat16(value);
    }
    for (int64_t slot = 0; slot < to->num_slots; ++slot) {
      const int64_t width = to->slot_widths[slot];
      std::fill_n(to->slots[slot] + rows[i] * width, width, to->state[slot]);
    }
  }
  return DLRM_OK;
}
