// The lowest rows of a bucket by (score, hash), in order: found digit by digit, then sorted. A block works together.
#pragma once

#include "buckets_cuda.cuh"

namespace table {

struct alignas(16) Entry {
  uint64_t score, hash;  // the score ordered() as an unsigned number
  int64_t key;
  int32_t row;
  uint32_t step;
};

DLRM_DEVICE uint64_t ordered(int64_t score) { return static_cast<uint64_t>(score) ^ uint64_t{1} << 63; }
DLRM_DEVICE int64_t score_of(uint64_t ordered) { return static_cast<int64_t>(ordered ^ uint64_t{1} << 63); }
DLRM_DEVICE bool below(const Entry& a, const Entry& b) {
  return a.score != b.score ? a.score < b.score : a.hash < b.hash;
}

// Sorts entries by (score, hash) with a bitonic network in which every comparison puts the lower one first. So a number of
// entries that is no power of two needs no others: those behind the end would stay there.
DLRM_DEVICE void sort_in_block(Entry* entries, uint32_t count) {
  for (int of_size = 1; (1u << (of_size - 1)) < count; ++of_size) {  // sorted parts of 2^of_size entries
    for (int bit = of_size - 1; bit >= 0; --bit) {
      const uint32_t stride = 1u << bit, num_pairs = ((count + 2 * stride - 1) >> (bit + 1)) << bit;
      __syncthreads();
      for (uint32_t pair = threadIdx.x; pair < num_pairs; pair += kOfBucket) {
        const uint32_t base = pair >> bit << (bit + 1), offset = pair & (stride - 1), low = base + offset;
        const uint32_t high = bit == of_size - 1 ? base + 2 * stride - 1 - offset : low + stride;
        if (high >= count) continue;
        const Entry a = entries[low], b = entries[high];
        if (!below(b, a)) continue;
        entries[low] = b;
        entries[high] = a;
      }
    }
  }
  __syncthreads();
}

// Rows of a bucket that may be evicted: those with a key that call number `call` has not touched.
struct Candidates {
  Bucket of;
  uint32_t call;

  // each(row, state) for every candidate, by all threads of the block.
  template <class Each>
  DLRM_DEVICE void for_each(const Each& each) const {
    for (int64_t row = threadIdx.x; row < of.num_rows; row += kOfBucket) {
      const RowState state = of.rows[row];
      if (state.call != 0 && state.call != call) each(row, state);
    }
  }
};

// How many candidates there are, for all threads; scratch->all and any become what their scores have in common.
DLRM_DEVICE int64_t count_candidates(Scratch* scratch, const Candidates& candidates) {
  __syncthreads();
  if (threadIdx.x == 0) scratch->all = ~uint64_t{0}, scratch->any = 0;
  __syncthreads();
  uint32_t count = 0;
  uint64_t all = ~uint64_t{0}, any = 0;
  candidates.for_each([&](int64_t, const RowState& state) {
    ++count;
    all &= ordered(state.score);
    any |= ordered(state.score);
  });
  if (count > 0) {
    atomicAnd(reinterpret_cast<unsigned long long*>(&scratch->all), static_cast<unsigned long long>(all));
    atomicOr(reinterpret_cast<unsigned long long*>(&scratch->any), static_cast<unsigned long long>(any));
  }
  return sum_in_block(scratch, count);
}

// The upper digits of the highest (score, hash) that is wanted, as far as they are known.
struct Limit {
  uint64_t score = 0, score_mask = 0, hash = 0, hash_mask = 0;

  DLRM_DEVICE bool reaches(uint64_t of) const { return (of & score_mask) == score; }
  DLRM_DEVICE bool includes(uint64_t of, const Bucket& bucket, int64_t row) const {
    if (!reaches(of)) return (of & score_mask) < score;
    return hash_mask == 0 || (hash_of(bucket.keys[row]) & hash_mask) <= hash;
  }
};

// One digit of the limit, of the hash or else of the score. left: how many rows are wanted among the candidates that reach
// the limit. Returns whether these are exactly the candidates that reach it now.
DLRM_DEVICE bool next_digit(Scratch* scratch, const Candidates& candidates, int shift, bool of_hash, Limit* limit,
                            int64_t* left) {
  __syncthreads();
  for (int i = threadIdx.x; i < 256; i += kOfBucket) scratch->counts[i] = 0;
  __syncthreads();
  candidates.for_each([&](int64_t row, const RowState& state) {
    uint64_t of = ordered(state.score);
    if (!limit->reaches(of)) return;
    if (of_hash) {
      of = hash_of(candidates.of.keys[row]);
      if ((of & limit->hash_mask) != limit->hash) return;
    }
    atomicAdd(&scratch->counts[of >> shift & 255], 1u);
  });
  __syncthreads();
  if (threadIdx.x == 0) {
    int64_t before = 0;
    int digit = 0;
    while (before + scratch->counts[digit] < *left) before += scratch->counts[digit++];
    scratch->numbers[1] = digit;
    scratch->numbers[2] = *left - before;
  }
  __syncthreads();
  const uint64_t digit = static_cast<uint64_t>(scratch->numbers[1]);
  *left = scratch->numbers[2];
  (of_hash ? limit->hash : limit->score) |= digit << shift;
  (of_hash ? limit->hash_mask : limit->score_mask) |= uint64_t{255} << shift;
  return scratch->counts[digit] == *left;
}

// Writes the `wanted` lowest candidates to entries, in order, after count_candidates found at least so many.
DLRM_DEVICE void take_lowest(Scratch* scratch, const Candidates& candidates, int64_t wanted, Entry* entries) {
  if (wanted == 0) return;
  const uint64_t differ = scratch->all ^ scratch->any, same = scratch->all;
  Limit limit;
  int64_t left = wanted;
  bool exact = false;
  for (int digit = 0; digit < 16 && !exact; ++digit) {
    const int shift = 56 - digit % 8 * 8;
    if (digit < 8 && (differ >> shift & 255) == 0) {
      limit.score |= same & uint64_t{255} << shift;
      limit.score_mask |= uint64_t{255} << shift;
    } else {
      exact = next_digit(scratch, candidates, shift, digit >= 8, &limit, &left);
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) scratch->words[0] = 0;
  __syncthreads();
  candidates.for_each([&](int64_t row, const RowState& state) {
    if (!limit.includes(ordered(state.score), candidates.of, row)) return;
    const int64_t key = candidates.of.keys[row];
    entries[atomicAdd(&scratch->words[0], 1u)] = {ordered(state.score), hash_of(key), key, static_cast<int32_t>(row),
                                                   state.step};
  });
  sort_in_block(entries, static_cast<uint32_t>(wanted));
}

}  // namespace table
