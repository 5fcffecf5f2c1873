// The lookup on a GPU: a team for each bag, whose vector is summed in registers and written once.
#pragma once

#include "embedding_rows_cuda.cuh"

namespace rows {

constexpr int kBagsOfTeam = 4;

// One row for each of kBagsOfTeam samples: all of their loads are under way at the same time.
template <class W, class T, int kPack>
DLRM_DEVICE void copy_rows_of(const Piece& piece, const W* weights, int width, int64_t first, int64_t step, int lane,
                              int lanes, DlrmCudaStatus* status) {
  const DlrmBags& bags = piece.bags;
  int64_t row[kBagsOfTeam];
#pragma unroll
  for (int k = 0; k < kBagsOfTeam; ++k) {
    const int64_t sample = first + k * step;
    row[k] = sample < bags.num_samples ? row_of(piece, sample, sample * bags.sample_stride, status) : -1;
  }
  for (int column = lane * kPack; column < width; column += lanes * kPack) {
    float values[kBagsOfTeam][kPack] = {};
#pragma unroll
    for (int k = 0; k < kBagsOfTeam; ++k) {
      if (row[k] >= 0) load(weights + row[k] * width + column, values[k]);
    }
#pragma unroll
    for (int k = 0; k < kBagsOfTeam; ++k) {
      const int64_t sample = first + k * step;
      if (sample < bags.num_samples) {
        store(values[k], static_cast<T*>(in_global(bags.vectors)) + sample * bags.vector_stride + column);
      }
    }
  }
}

template <class W, class T, int kPack>
DLRM_DEVICE void pool_bag(const Piece& piece, const W* weights, int width, int64_t sample, int lane, int lanes,
                          DlrmCudaStatus* status) {
  const DlrmBags& bags = piece.bags;
  const Bag bag = bag_of(bags, sample);
  const bool scaled = bags.weights != nullptr || bags.mean;
  const float total = bags.mean ? total_of(bags, bag) : 1.0f;
  for (int column = lane * kPack; column < width; column += lanes * kPack) {
    float sums[kPack] = {};
    bool any = false;  // the first row is not added to zero, which would lose the sign of -0
    for (int64_t i = 0; i < bag.count; i += kAtOnce) {
      int64_t row[kAtOnce];
      float values[kAtOnce][kPack];
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
        row[k] = i + k < bag.count ? row_of(piece, sample, bag.first_id + i + k, status) : -1;
      }
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
        if (row[k] >= 0) load(weights + row[k] * width + column, values[k]);
      }
#pragma unroll
      for (int k = 0; k < kAtOnce; ++k) {
        if (row[k] < 0) continue;
        const float factor = scaled ? factor_of(bags, bag, i + k, total) : 1.0f;
#pragma unroll
        for (int c = 0; c < kPack; ++c) {
          const float value = scaled ? values[k][c] * factor : values[k][c];
          sums[c] = any ? sums[c] + value : value;
        }
        any = true;
      }
    }
    store(sums, static_cast<T*>(in_global(bags.vectors)) + sample * bags.vector_stride + column);
  }
}

// All bags of a slab. Blocks of all pieces of the same samples follow each other, because the vectors of a sample are
// neighbours in memory.
template <class W, class T, int kPack>
__global__ void __launch_bounds__(kThreads)
    pool(const Piece* pieces, int num_pieces, const void* slab, int width, int team_bits, DlrmCudaStatus* status) {
  const Piece& piece = pieces[blockIdx.x % num_pieces];
  const W* const weights = static_cast<const W*>(slab);
  const int lanes = 1 << team_bits, lane = threadIdx.x & (lanes - 1), teams = kThreads >> team_bits;
  const int64_t first = static_cast<int64_t>(blockIdx.x / num_pieces) * teams * kBagsOfTeam + (threadIdx.x >> team_bits);
  if (piece.bags.hotness == 1 && piece.bags.weights == nullptr) {
    copy_rows_of<W, T, kPack>(piece, weights, width, first, teams, lane, lanes, status);
    return;
  }
  for (int k = 0; k < kBagsOfTeam; ++k) {
    const int64_t sample = first + static_cast<int64_t>(k) * teams;
    if (sample < piece.bags.num_samples) pool_bag<W, T, kPack>(piece, weights, width, sample, lane, lanes, status);
  }
}

}  // namespace rows
