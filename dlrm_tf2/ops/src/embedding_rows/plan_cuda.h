// The host's half of the CUDA calls: bags slab by slab, and what is where in the memory that the caller gives.
#pragma once

#include <math.h>
#include <string.h>

#include <vector>

#include "cuda_host.h"
#include "embedding_rows_cpu.h"
#include "order_cuda.cuh"
#include "optimizers_cuda.cuh"
#include "sort_cuda.h"

namespace rows {

using dlrm::blocks_for;
using dlrm::fits;
using dlrm::Memory;

// The bags of one slab.
struct SlabBags {
  int64_t first_piece = 0, num_pieces = 0, num_occurrences = 0, most_samples = 0;
  int shift = 1;               // of a place, above the bits of the sample
  bool by_occurrence = false;  // factors differ from id to id
};

struct Plan {
  std::vector<Piece> pieces;  // of a slab after each other, in the caller's order
  std::vector<SlabBags> slabs;
};

inline Plan make_plan(int64_t num_slabs, const DlrmBags* bags, int64_t num_bags) {
  Plan plan;
  plan.slabs.resize(static_cast<size_t>(num_slabs));
  for (int64_t s = 0; s < num_slabs; ++s) {
    SlabBags& of = plan.slabs[static_cast<size_t>(s)];
    of.first_piece = static_cast<int64_t>(plan.pieces.size());
    for (int64_t i = 0; i < num_bags; ++i) {
      const DlrmBags& b = bags[i];
      if (b.slab != s) continue;
      const bool constant = b.mean && b.weights == nullptr && b.hotness > 0;
      const float factor = constant ? dlrm::factor_of(nullptr, 0, static_cast<float>(b.hotness)) : 1.0f;
      plan.pieces.push_back({b, i, of.num_occurrences, factor});
      of.num_occurrences += b.num_samples == 0 ? 0 : b.hotness < 0 ? b.all_ids : b.hotness * b.num_samples;
      of.most_samples = b.num_samples > of.most_samples ? b.num_samples : of.most_samples;
      of.by_occurrence |= b.weights != nullptr || (b.mean && b.hotness < 0);
    }
    of.num_pieces = static_cast<int64_t>(plan.pieces.size()) - of.first_piece;
    while (of.shift < 31 && int64_t{1} << of.shift < of.most_samples) ++of.shift;
  }
  return plan;
}

// Whether every occurrence and every place of a slab has a number.
inline bool numbers_suffice(const SlabBags& of) {
  return of.num_occurrences < int64_t{1} << 31 && of.most_samples <= int64_t{1} << of.shift &&
         of.num_pieces << of.shift <= int64_t{1} << 32;
}

// Travels among the parameters of a launch, of which every GPU takes 4 KB: they are the launch's own copy.
struct Parcel {
  uint32_t words[960];
};

__global__ void __launch_bounds__(kThreads) unpack(Parcel parcel, uint32_t* to, int num_words) {
  for (int i = threadIdx.x; i < num_words; i += kThreads) to[i] = parcel.words[i];
}

// What all kernels of a call read: sent in parcels, so that no memory of the host has to wait for the GPU, nothing waits
// for a copy, and a CUDA graph may capture the call.
struct Descriptions {
  Piece* pieces;
  DlrmShard* shards;  // of all slabs after each other, with the keys of this step
  Counts* counts;     // of each slab, zeros

  Descriptions(Memory* memory, const Plan& plan, const DlrmSlab* slabs)
      : pieces(memory->take<Piece>(static_cast<int64_t>(plan.pieces.size()))), num_shards_(0) {
    for (size_t s = 0; s < plan.slabs.size(); ++s) num_shards_ += slabs[s].num_shards;
    shards = memory->take<DlrmShard>(num_shards_);
    counts = memory->take<Counts>(static_cast<int64_t>(plan.slabs.size()));
  }

  int send(const Plan& plan, const DlrmSlab* slabs, uint64_t step, void* stream) const {
    std::vector<DlrmShard> all;
    for (size_t s = 0; s < plan.slabs.size(); ++s) {
      all.insert(all.end(), slabs[s].shards, slabs[s].shards + slabs[s].num_shards);
    }
    for (DlrmShard& shard : all) shard.key = mix64(shard.key + step * 0x9e3779b97f4a7c15);
    const std::vector<Counts> zeros(plan.slabs.size(), Counts{0, 0, 0, 0});
    int error = send_one(plan.pieces, pieces, stream);
    if (error == 0) error = send_one(all, shards, stream);
    return error == 0 ? send_one(zeros, counts, stream) : error;
  }

 private:
  template <class T>
  static int send_one(const std::vector<T>& from, T* to, void* stream) {
    constexpr int64_t kWords = sizeof(Parcel) / 4;
    const int64_t num_words = static_cast<int64_t>(from.size() * sizeof(T) / 4);
    for (int64_t first = 0; first < num_words; first += kWords) {
      const int64_t count = num_words - first < kWords ? num_words - first : kWords;
      Parcel parcel;
      memcpy(parcel.words, reinterpret_cast<const uint32_t*>(from.data()) + first, static_cast<size_t>(4 * count));
      const int error = launch(unpack, 1, kThreads, 0, stream, parcel, reinterpret_cast<uint32_t*>(to) + first, count);
      if (error != 0) return error;
    }
    return 0;
  }

  int64_t num_shards_;
};

inline int row_bits(const DlrmSlab& slab) {  // of num_rows, which stands for no row
  int bits = 1;
  while (slab.num_rows >> bits != 0) ++bits;
  return bits;
}

// The memory of one slab's update.
struct Ordered {
  uint32_t *rows[2], *values[2];  // rows[i] and values[i] are neighbours: what is free after the sort takes the runs
  uint32_t* places = nullptr;
  float* factors = nullptr;
  int64_t most_chunks;  // and a bound for the long runs
  Run *chunks, *long_runs;
  uint32_t* chunk_rows;
  float* sums;
  int64_t sort_bytes = 0;
  char* sort_memory;

  // Sets `error` to a cudaError_t.
  Ordered(Memory* memory, const SlabBags& of, const DlrmSlab& slab, int* error) {
    const int64_t count = of.num_occurrences;
    for (int i = 0; i < 2; ++i) {
      rows[i] = memory->take<uint32_t>(2 * count);
      values[i] = rows[i] + count;
    }
    if (of.by_occurrence) {
      places = memory->take<uint32_t>(count);
      factors = memory->take<float>(count);
    }
    most_chunks = count / (kChunk / 2) + 1;
    chunks = memory->take<Run>(most_chunks);
    long_runs = memory->take<Run>(most_chunks);
    chunk_rows = memory->take<uint32_t>(most_chunks);
    sums = memory->take<float>(most_chunks * slab.width);
    *error = rows::sort_bytes(count, row_bits(slab), &sort_bytes);
    sort_memory = memory->take<char>(sort_bytes);
  }
};

inline Step make_step(const DlrmSlab& slab, const DlrmShard* shards, const DlrmOptimizer& o) {
  const double step = static_cast<double>(o.step);
  return {slab.weights,
          {slab.slots[0], slab.slots[1]},
          shards,
          static_cast<int>(slab.width),
          static_cast<int>(slab.num_shards),
          slab.weights_type,
          o.kind,
          o.learning_rate,
          o.epsilon,
          static_cast<float>(o.beta1),
          static_cast<float>(o.beta2),
          static_cast<float>(1 - o.beta1),
          static_cast<float>(1 - o.beta2),
          static_cast<float>(-expm1(step * log(o.beta1))),
          static_cast<float>(-expm1(step * log(o.beta2)))};
}

// ---- packs ---------------------------------------------------------------------------------------------------------

// Whether all vectors of a slab's bags may be read or written in packs.
inline bool vectors_fit(const Plan& plan, const SlabBags& of, int vectors_type, int64_t pack) {
  const int64_t bytes = dlrm::element_bytes(vectors_type), whole = pack * bytes < 16 ? pack * bytes : 16;
  for (int64_t i = of.first_piece; i < of.first_piece + of.num_pieces; ++i) {
    const DlrmBags& b = plan.pieces[static_cast<size_t>(i)].bags;
    if (!fits(b.vectors, whole) || b.vector_stride * bytes % whole != 0) return false;
  }
  return true;
}

// A team has 1 << team_bits threads: enough for the packs of a row, or a warp.
inline int team_bits(int64_t width, int64_t pack) {
  int bits = 0;
  while (bits < 5 && (pack << bits) < width) ++bits;
  return bits;
}

}  // namespace rows
