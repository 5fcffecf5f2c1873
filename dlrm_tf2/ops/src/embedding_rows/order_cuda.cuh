// The order of an update on a GPU: the row of every occurrence; then, when they are sorted by row, the runs of one row.
#pragma once

#include "embedding_rows_cuda.cuh"

namespace rows {

constexpr int64_t kChunk = 256;  // occurrences of a row that are summed one after the other

// Occurrences start .. start + count - 1 of the sorted ones.
struct Run {
  uint32_t start, count;
};

// Numbers of the slab's runs and chunks, which only the GPU knows.
struct Counts {
  uint32_t runs, long_runs, chunks, unused;
};

// The occurrences of a slab as they are found. The *place* of one names its vector: number of its piece << shift | sample.
struct Occurrences {
  const Piece* pieces;
  int64_t num_pieces, count, num_rows;
  int shift;
  uint32_t* rows;     // [count]: the row of each, num_rows for none
  uint32_t* values;   // [count]: its place; with `places`, its number
  uint32_t* places;   // [count], or null where an occurrence has the factor of its piece
  float* factors;     // [count], with `places`
};

// The number of the last of `count` ascending values that is not above `value`; the first is not.
template <class Value>
DLRM_DEVICE int64_t last_not_above(int64_t count, int64_t value, const Value& at) {
  int64_t low = 0, high = count;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (at(middle) <= value ? low : high) = middle;
  }
  return low;
}

__global__ void __launch_bounds__(kThreads) find_rows(Occurrences all, DlrmCudaStatus* status) {
  const int64_t number = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (number >= all.count) return;
  const int64_t p = last_not_above(all.num_pieces, number, [&](int64_t i) { return all.pieces[i].first_occurrence; });
  const Piece& piece = all.pieces[p];
  const DlrmBags& bags = piece.bags;
  const uint32_t local = static_cast<uint32_t>(number - piece.first_occurrence);
  const int64_t sample = bags.hotness > 0
                             ? local / static_cast<uint32_t>(bags.hotness)
                             : last_not_above(bags.num_samples + 1, local, [&](int64_t i) { return bags.row_splits[i]; });
  const uint32_t place = static_cast<uint32_t>(p << all.shift | sample);
  int64_t row = -1;
  float factor = 0;
  if (sample < bags.num_samples) {
    const Bag bag = bag_of(bags, sample);
    const int64_t i = bags.hotness > 0 ? local - bag.first_weight : local - bag.first_id;
    row = row_of(piece, sample, bag.first_id + i, status);
    if (all.places != nullptr) factor = factor_of(bags, bag, i, bags.mean ? total_of(bags, bag) : 1.0f);
  }
  all.rows[number] = row < 0 ? static_cast<uint32_t>(all.num_rows) : static_cast<uint32_t>(row);
  all.values[number] = all.places == nullptr ? place : static_cast<uint32_t>(number);
  if (all.places == nullptr) return;
  all.places[number] = place;
  all.factors[number] = factor;
}

// Where runs are listed. The lists are in no order: each run is summed and updated by itself.
struct Lists {
  Counts* counts;
  Run* runs;             // of up to kChunk occurrences
  Run* chunks;           // of longer ones, a run's chunks after each other
  uint32_t* chunk_rows;  // the row of each chunk
  Run* long_runs;        // in chunks
};

// A thread for each of the sorted occurrences; the first of a run lists it.
__global__ void __launch_bounds__(kThreads) list_runs(const uint32_t* sorted, int64_t count, uint32_t none, Lists lists) {
  DLRM_SHARED(memory);
  uint32_t* const listed = reinterpret_cast<uint32_t*>(memory);  // the block's runs, and where their list starts
  if (threadIdx.x == 0) listed[0] = 0;
  __syncthreads();
  const int64_t start = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const uint32_t row = start < count ? sorted[start] : none;
  const bool first = row != none && (start == 0 || sorted[start - 1] != row);
  const bool is_long = first && start + kChunk < count && sorted[start + kChunk] == row;
  const auto end = [&](int64_t most) {  // of the run, when it has at most `most` occurrences
    return start + 1 + last_not_above(most, row, [&](int64_t i) { return sorted[start + i]; });
  };
  uint32_t size = 0, slot = 0;
  if (first && !is_long) {
    const int64_t most = start + kChunk < count ? kChunk : count - start;
    size = most == 1 || sorted[start + 1] != row ? 1 : static_cast<uint32_t>(end(most) - start);
    slot = atomicAdd(&listed[0], 1u);
  }
  __syncthreads();
  if (threadIdx.x == 0) listed[1] = atomicAdd(&lists.counts->runs, listed[0]);
  __syncthreads();
  if (size > 0) lists.runs[listed[1] + slot] = {static_cast<uint32_t>(start), size};
  if (!is_long) return;
  const int64_t last = end(count - start);
  const uint32_t num_chunks = static_cast<uint32_t>((last - start + kChunk - 1) / kChunk);
  const uint32_t chunk = atomicAdd(&lists.counts->chunks, num_chunks);
  lists.long_runs[atomicAdd(&lists.counts->long_runs, 1u)] = {chunk, num_chunks};
  for (uint32_t i = 0; i < num_chunks; ++i) {
    const int64_t from = start + i * kChunk;
    lists.chunks[chunk + i] = {static_cast<uint32_t>(from), static_cast<uint32_t>(last - from < kChunk ? last - from : kChunk)};
    lists.chunk_rows[chunk + i] = row;
  }
}

__global__ void count_rows(const Counts* counts, int64_t* num_rows) {
  *num_rows = static_cast<int64_t>(counts->runs) + counts->long_runs;
}

}  // namespace rows
