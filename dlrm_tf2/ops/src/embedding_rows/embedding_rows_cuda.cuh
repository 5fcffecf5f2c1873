// What the CUDA kernels of embedding rows share: bags as they lie in the GPU's memory, ids, factors, and values in packs.
//
// A *team* is 1, 2, 4, .. 32 neighbouring threads that take one row together; each holds a *pack* of neighbouring columns:
// 16 bytes where widths and addresses allow, else one column. Compile with -fmad=false: nothing here is fused.
#pragma once

#include "cuda_host.h"
#include "cuda_primitives.cuh"
#include "embedding_rows.h"

namespace rows {

constexpr int kThreads = 256;  // of every block
constexpr int kAtOnce = 4;     // loads that are under way at the same time

using dlrm::code_of;

struct Piece {
  DlrmBags bags;
  int64_t number;            // of these bags among the caller's
  int64_t first_occurrence;  // of these bags among the slab's
  float factor;              // of every id, where it is the same
};

template <class T, int kPack>
struct alignas(kPack * sizeof(T) < 16 ? kPack * sizeof(T) : 16) Pack {
  T values[kPack];
};

template <class T, int kPack>
DLRM_DEVICE void load(const T* from, float (&to)[kPack]) {
  const Pack<T, kPack> pack = *reinterpret_cast<const Pack<T, kPack>*>(from);
#pragma unroll
  for (int c = 0; c < kPack; ++c) to[c] = to_float(pack.values[c]);
}

template <class T, int kPack>
DLRM_DEVICE void store(const float (&from)[kPack], T* to) {
  Pack<T, kPack> pack;
#pragma unroll
  for (int c = 0; c < kPack; ++c) from_float(from[c], pack.values + c);
  *reinterpret_cast<Pack<T, kPack>*>(to) = pack;
}

// The ids of one sample.
struct Bag {
  int64_t first_id, first_weight, count;
};

DLRM_DEVICE Bag bag_of(const DlrmBags& bags, int64_t sample) {
  if (bags.hotness >= 0) return {sample * bags.sample_stride, sample * bags.hotness, bags.hotness};
  const int64_t first = bags.row_splits[sample];
  return {first, first, bags.row_splits[sample + 1] - first};
}

// The row of an id in its slab; -1 for one that is in another shard or, with a complaint, in no table.
DLRM_DEVICE int64_t row_of(const Piece& piece, int64_t sample, int64_t place, DlrmCudaStatus* status) {
  const DlrmBags& bags = piece.bags;
  const void* const ids = in_global(bags.ids);
  const int64_t id = bags.ids_type == DLRM_INT32 ? static_cast<const int32_t*>(ids)[place]
                                                 : static_cast<const int64_t*>(ids)[place];
  if (id < 0 || id >= bags.num_ids) {
    if (atomicCAS(&status->found_bad_id, 0, static_cast<int>(DLRM_FOUND_ID)) == 0) status->bad_id = {piece.number, sample, id};
    return -1;
  }
  return id >= bags.first_id && id < bags.last_id ? bags.first_row + id : -1;
}

// The sum of a bag's weights in order, which a mean divides by.
DLRM_DEVICE float total_of(const DlrmBags& bags, const Bag& bag) {
  if (bags.weights == nullptr) return static_cast<float>(bag.count);
  float total = 0;
  for (int64_t i = 0; i < bag.count; ++i) total += bags.weights[bag.first_weight + i];
  return total;
}

DLRM_DEVICE float factor_of(const DlrmBags& bags, const Bag& bag, int64_t i, float total) {
  const float weight = bags.weights == nullptr ? 1.0f : bags.weights[bag.first_weight + i];
  if (!bags.mean) return weight;
  return total == 0 ? 0.0f : weight / total;
}

}  // namespace rows
