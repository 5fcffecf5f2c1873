// Gradients of vectors -> their sums by row.
#pragma once

#include "embedding_rows_cpu.h"
#include "row_registers.h"

namespace {

using dlrm::Gradients;
using dlrm::RowSums;
using dlrm::kChunk;

DLRM_INLINE const char* vector_of(const Gradients& gradients, uint64_t pair, float* factor) {
  const uint32_t occurrence = static_cast<uint32_t>(pair);
  const uint32_t place = gradients.places == nullptr ? occurrence : gradients.places[occurrence];
  const uint32_t bags = gradients.shift < 32 ? place >> gradients.shift : 0;
  if (gradients.factors != nullptr) *factor = gradients.factors[gradients.places == nullptr ? bags : occurrence];
  return gradients.bases[bags] + static_cast<int64_t>(place & gradients.mask) * gradients.strides[bags];
}

template <class V, int kType, int64_t kWidth>
DLRM_INLINE void sum_registers(const Gradients& gradients, const uint64_t* pairs, int64_t count, int64_t column,
                               float* sum) {
  constexpr int kRegisters = Columns<kWidth>::kRegisters;
  Floats sums[kRegisters] = {}, values[kRegisters];
  for (int64_t i = 0; i < count; ++i) {
    float factor = 1;
    load_row<V, kType, kWidth>(vector_of(gradients, pairs[i], &factor) + column * bytes_of(kType), values);
    if (gradients.factors != nullptr) {
      DLRM_UNROLL for (int r = 0; r < kRegisters; ++r) values[r] *= broadcast(factor);
    }
    DLRM_UNROLL for (int r = 0; r < kRegisters; ++r) sums[r] = i == 0 ? values[r] : sums[r] + values[r];
  }
  store_row<V, DLRM_FLOAT32, kWidth>(sums, reinterpret_cast<char*>(sum + column));
}

template <class V, int kType, int64_t kWidth>
DLRM_INLINE void sum_known(const Gradients& gradients, const uint64_t* pairs, int64_t count, float* sum) {
  constexpr int64_t kAtOnce = smaller(kWidth, kMostRegisters * kLanes);
  for (int64_t column = 0; column < kWidth; column += kAtOnce) {
    sum_registers<V, kType, kAtOnce>(gradients, pairs, count, column, sum);
  }
}

template <class V, int kType>
void sum_any(const Gradients& gradients, const uint64_t* pairs, int64_t count, int64_t width, float* sum) {
  for (int64_t i = 0; i < count; ++i) {
    float factor = 1;
    const char* const from = vector_of(gradients, pairs[i], &factor);
    for (int64_t column = 0; column < width; column += kLanes) {
      Floats values = load_some<V, kType>(from + column * bytes_of(kType), width - column);
      if (gradients.factors != nullptr) values *= broadcast(factor);
      if (i > 0) values = load_some<V, DLRM_FLOAT32>(reinterpret_cast<char*>(sum + column), width - column) + values;
      store_part<V, DLRM_FLOAT32>(values, width - column, false, reinterpret_cast<char*>(sum + column));
    }
  }
}

template <class V, int kType, int64_t kWidth>
DLRM_INLINE void sum_one_chunk(const Gradients& gradients, const uint64_t* pairs, int64_t count, int64_t width,
                               float* sum) {
  if constexpr (kWidth == kAnyWidth) {
    sum_any<V, kType>(gradients, pairs, count, width, sum);
  } else {
    sum_known<V, kType, kWidth>(gradients, pairs, count, sum);
  }
}

template <class V, int kType>
void sum_chunk(const Gradients& gradients, const uint64_t* pairs, int64_t count, int64_t width, float* sum) {
  switch (width) {
    case 8: return sum_known<V, kType, 8>(gradients, pairs, count, sum);
    case 16: return sum_known<V, kType, 16>(gradients, pairs, count, sum);
    case 32: return sum_known<V, kType, 32>(gradients, pairs, count, sum);
    case 64: return sum_known<V, kType, 64>(gradients, pairs, count, sum);
    case 128: return sum_known<V, kType, 128>(gradients, pairs, count, sum);
  }
  sum_any<V, kType>(gradients, pairs, count, width, sum);
}

constexpr int64_t kAhead = 12;  // occurrences between asking for memory and using it

// to = sum ? to + values : values, for one row. `values` may be of any type.
template <class V, int kType, int64_t kWidth>
DLRM_INLINE void add_row(const char* values, float factor, bool scaled, int64_t width, bool sum, float* to) {
  char* const at = reinterpret_cast<char*>(to);
  if constexpr (kWidth == kAnyWidth) {
    for (int64_t column = 0; column < width; column += kLanes) {
      Floats added = load_some<V, kType>(values + column * bytes_of(kType), width - column);
      if (scaled) added *= broadcast(factor);
      if (sum) added = load_some<V, DLRM_FLOAT32>(at + column * 4, width - column) + added;
      store_part<V, DLRM_FLOAT32>(added, width - column, false, at + column * 4);
    }
  } else {
    constexpr int kRegisters = Columns<kWidth>::kRegisters;
    Floats added[kRegisters], before[kRegisters];
    load_row<V, kType, kWidth>(values, added);
    if (scaled) {
      DLRM_UNROLL for (int r = 0; r < kRegisters; ++r) added[r] *= broadcast(factor);
    }
    if (sum) {
      load_row<V, DLRM_FLOAT32, kWidth>(at, before);
      DLRM_UNROLL for (int r = 0; r < kRegisters; ++r) added[r] = before[r] + added[r];
    }
    store_row<V, DLRM_FLOAT32, kWidth>(added, at);
  }
}

template <class V, int kType, int64_t kWidth>
DLRM_INLINE void accumulate_known(const Gradients& gradients, const uint64_t* pairs, int64_t count, int64_t width,
                                  const RowSums& sums) {
  for (int64_t i = 0; i < count; ++i) {
    float factor = 1;
    if (i + kAhead < count) {
      prefetch(vector_of(gradients, pairs[i + kAhead], &factor), width * bytes_of(kType));
    }
    const char* const values = vector_of(gradients, pairs[i], &factor);
    const int64_t row = static_cast<int64_t>(pairs[i] >> 32);
    const uint32_t before = sums.counts[row]++;
    float* const chunk = sums.chunks + row * width;
    const bool starts = before % kChunk == 0;
    if (starts && before > 0) {
      float* const total = sums.totals + row * width;
      add_row<V, DLRM_FLOAT32, kWidth>(reinterpret_cast<char*>(chunk), 1, false, width, before > kChunk, total);
    }
    add_row<V, kType, kWidth>(values, factor, gradients.factors != nullptr, width, !starts, chunk);
  }
}

template <class V, int kType>
void accumulate(const Gradients& gradients, const uint64_t* pairs, int64_t count, int64_t width, const RowSums& sums) {
  switch (width) {
    case 8: return accumulate_known<V, kType, 8>(gradients, pairs, count, width, sums);
    case 16: return accumulate_known<V, kType, 16>(gradients, pairs, count, width, sums);
  }
  accumulate_known<V, kType, kAnyWidth>(gradients, pairs, count, width, sums);
}

}  // namespace
