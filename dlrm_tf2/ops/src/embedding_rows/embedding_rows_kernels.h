// The CPU kernels of embedding rows, written once over an instruction set V (vector.h); each instruction set's
// translation unit includes this file. Nothing here is reassociated or fused: compile with -ffp-contract=off.
#pragma once

#include "apply_kernels.h"
#include "dot_kernels.h"
#include "pool_kernels.h"
#include "sum_kernels.h"

namespace {

using dlrm::ApplyRow;

DLRM_INLINE void prefetch_for(const Gradients& gradients, const RowUpdate& update, const uint64_t* pair,
                              int64_t gradient_bytes) {
  float factor;
  prefetch(vector_of(gradients, pair[0], &factor), gradient_bytes);
  const int64_t row = static_cast<int64_t>(pair[0] >> 32);
  if (row == static_cast<int64_t>(pair[-1] >> 32)) return;
  const int64_t in_slab = update.first_row + row, weight_bytes = update.weights_type == DLRM_FLOAT32 ? 4 : 2;
  prefetch(update.weights + in_slab * update.width * weight_bytes, update.width * weight_bytes);
  if (update.slots[0] == nullptr) return;
  const int64_t slot_width = update.slot_width;
  prefetch(reinterpret_cast<const char*>(update.slots[0] + in_slab * slot_width), slot_width * 4);
  if (update.slots[1] == nullptr) return;
  prefetch(reinterpret_cast<const char*>(update.slots[1] + in_slab * slot_width), slot_width * 4);
}

template <class V, int kType, int64_t kWidth>
DLRM_INLINE float update_known(const Gradients& gradients, const RowUpdate& update, ApplyRow apply,
                               const uint64_t* pairs, int64_t count, float* scratch) {
  const int64_t width = kWidth == kAnyWidth ? update.width : kWidth;
  float* const sum = scratch;
  float* const next = scratch + width;
  float check = 0;
  for (int64_t first = 0, asked = 1; first < count;) {
    const uint64_t row = pairs[first] >> 32;
    int64_t last = first + 1;
    while (last < count && pairs[last] >> 32 == row) ++last;
    for (; asked < count && asked < last + kAhead; ++asked) {
      prefetch_for(gradients, update, pairs + asked, width * bytes_of(kType));
    }
    for (int64_t from = first; from < last; from += kChunk) {
      const int64_t size = smaller(kChunk, last - from);
      sum_one_chunk<V, kType, kWidth>(gradients, pairs + from, size, width, from == first ? sum : next);
      if (from == first) continue;
      for (int64_t column = 0; column < width; ++column) sum[column] += next[column];
    }
    check += apply(update, update.first_row + static_cast<int64_t>(row), sum);
    first = last;
  }
  return check;
}

template <class V, int kType>
float update_rows(const Gradients& gradients, const RowUpdate& update, ApplyRow apply, const uint64_t* pairs,
                  int64_t count, float* scratch) {
  switch (update.width) {
    case 8: return update_known<V, kType, 8>(gradients, update, apply, pairs, count, scratch);
    case 16: return update_known<V, kType, 16>(gradients, update, apply, pairs, count, scratch);
    case 32: return update_known<V, kType, 32>(gradients, update, apply, pairs, count, scratch);
    case 64: return update_known<V, kType, 64>(gradients, update, apply, pairs, count, scratch);
    case 128: return update_known<V, kType, 128>(gradients, update, apply, pairs, count, scratch);
  }
  return update_known<V, kType, kAnyWidth>(gradients, update, apply, pairs, count, scratch);
}

}  // namespace

// All kernels of an instruction set, for the table in embedding_rows_cpu.h.
#define DLRM_POOL(V, FROM) {pool<V, FROM, DLRM_FLOAT32>, pool<V, FROM, DLRM_FLOAT16>, pool<V, FROM, DLRM_BFLOAT16>}
#define DLRM_DOTS(V, FROM) {dots<V, FROM, DLRM_FLOAT32>, dots<V, FROM, DLRM_FLOAT16>, dots<V, FROM, DLRM_BFLOAT16>}
#define DLRM_APPLY(V, FROM)                                                          \
  {apply_row<V, FROM, DLRM_SGD>, apply_row<V, FROM, DLRM_ADAGRAD>,                   \
   apply_row<V, FROM, DLRM_ROWWISE_ADAGRAD>, apply_row<V, FROM, DLRM_ADAM>}
#define DLRM_ROW_KERNELS(V)                                                                                    \
  {{DLRM_POOL(V, DLRM_FLOAT32), DLRM_POOL(V, DLRM_BFLOAT16)},                                                  \
   {DLRM_DOTS(V, DLRM_FLOAT32), DLRM_DOTS(V, DLRM_BFLOAT16)},                                                  \
   {sum_chunk<V, DLRM_FLOAT32>, sum_chunk<V, DLRM_FLOAT16>, sum_chunk<V, DLRM_BFLOAT16>},                      \
   {DLRM_APPLY(V, DLRM_FLOAT32), DLRM_APPLY(V, DLRM_BFLOAT16)},                                                \
   {accumulate<V, DLRM_FLOAT32>, accumulate<V, DLRM_FLOAT16>, accumulate<V, DLRM_BFLOAT16>},                   \
   {update_rows<V, DLRM_FLOAT32>, update_rows<V, DLRM_FLOAT16>, update_rows<V, DLRM_BFLOAT16>}}
