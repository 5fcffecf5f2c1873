// Gradients of the ids' weights: dots of the gradient of a vector with the rows that the vector was pooled from.
#pragma once

#include "embedding_rows_cpu.h"
#include "row_registers.h"

namespace {

constexpr int kDotSums = 16;  // of every 16th column, so that the order of a sum depends on no instruction set

template <class V, int kRows, int kVectors>
DLRM_INLINE float dot(const char* row, const char* vector, int64_t width) {
  constexpr int kRegisters = kDotSums / kLanes;
  Floats sums[kRegisters] = {};
  for (int64_t column = 0; column < width; column += kDotSums) {
    DLRM_UNROLL for (int r = 0; r < kRegisters; ++r) {
      const int64_t at = column + r * kLanes;
      if (at >= width) break;
      sums[r] += load_some<V, kRows>(row + at * bytes_of(kRows), width - at) *
                 load_some<V, kVectors>(vector + at * bytes_of(kVectors), width - at);
    }
  }
  float totals[kDotSums];
  memcpy(totals, sums, sizeof totals);
  for (int half = kDotSums / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) totals[i] += totals[i + half];
  }
  return totals[0];
}

template <class V, int kRows, int kVectors>
void dots(const char* vector, const char* const* rows, int64_t count, int64_t width, float* to) {
  for (int64_t i = 0; i < count; ++i) to[i] = dot<V, kRows, kVectors>(rows[i], vector, width);
}

}  // namespace
