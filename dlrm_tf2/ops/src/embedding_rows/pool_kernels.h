// Lookups: rows of a slab -> pooled vectors.
#pragma once

#include "embedding_rows_cpu.h"
#include "row_registers.h"

namespace {

using dlrm::PoolBlock;

// Sums of kWidth columns of some rows, from `column` on. As many columns as there are registers for their sums.
template <class V, int kFrom, int kTo, int64_t kWidth>
DLRM_INLINE void pool_registers(const char* const* row, const float* factor, int64_t count, int64_t column, bool stream,
                                char* to) {
  constexpr int kRegisters = Columns<kWidth>::kRegisters;
  Floats sums[kRegisters] = {}, values[kRegisters];
  for (int64_t i = 0; i < count; ++i) {
    load_row<V, kFrom, kWidth>(row[i] + column * bytes_of(kFrom), values);
    if (factor != nullptr) {
      DLRM_UNROLL for (int r = 0; r < kRegisters; ++r) values[r] *= broadcast(factor[i]);
    }
    // The first is not added to zero, which would lose the sign of -0.
    DLRM_UNROLL for (int r = 0; r < kRegisters; ++r) sums[r] = i == 0 ? values[r] : sums[r] + values[r];
  }
  store_row<V, kTo, kWidth>(sums, to + column * bytes_of(kTo), stream);
}

template <class V, int kFrom, int kTo, int64_t kWidth>
DLRM_INLINE void pool_known(const PoolBlock& block) {
  constexpr int64_t kAtOnce = smaller(kWidth, kMostRegisters * kLanes);
  const char* const* row = block.rows;
  const float* factor = block.factors;
  char* to = block.to;
  for (int64_t bag = 0; bag < block.num_bags; ++bag, to += block.to_stride) {
    const int64_t count = block.counts == nullptr ? block.count : block.counts[bag];
    for (int64_t column = 0; column < kWidth; column += kAtOnce) {
      pool_registers<V, kFrom, kTo, kAtOnce>(row, factor, count, column, block.stream, to);
    }
    row += count;
    if (factor != nullptr) factor += count;
  }
  if (block.stream) V::end_streams();
}

template <class V, int kFrom, int kTo>
DLRM_INLINE void pool_columns(const PoolBlock& block, const char* const* row, const float* factor, int64_t count,
                              int64_t column, char* to) {
  const int64_t left = block.width - column;
  Floats sums = {};
  for (int64_t i = 0; i < count; ++i) {
    Floats values = load_some<V, kFrom>(row[i] + column * bytes_of(kFrom), left);
    if (factor != nullptr) values *= broadcast(factor[i]);
    sums = i == 0 ? values : sums + values;
  }
  store_part<V, kTo>(sums, left, false, to + column * bytes_of(kTo));
}

template <class V, int kFrom, int kTo>
void pool_any(const PoolBlock& block) {
  const char* const* row = block.rows;
  const float* factor = block.factors;
  for (int64_t bag = 0; bag < block.num_bags; ++bag) {
    const int64_t count = block.counts == nullptr ? block.count : block.counts[bag];
    for (int64_t column = 0; column < block.width; column += kLanes) {
      pool_columns<V, kFrom, kTo>(block, row, factor, count, column, block.to + bag * block.to_stride);
    }
    row += count;
    if (factor != nullptr) factor += count;
  }
}

template <class V, int kFrom, int kTo>
void pool(const PoolBlock& block) {
  switch (block.width) {
    case 8: return pool_known<V, kFrom, kTo, 8>(block);
    case 16: return pool_known<V, kFrom, kTo, 16>(block);
    case 32: return pool_known<V, kFrom, kTo, 32>(block);
    case 64: return pool_known<V, kFrom, kTo, 64>(block);
    case 128: return pool_known<V, kFrom, kTo, 128>(block);
  }
  pool_any<V, kFrom, kTo>(block);
}

}  // namespace
