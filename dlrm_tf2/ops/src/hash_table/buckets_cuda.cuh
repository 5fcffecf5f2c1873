// The buckets of a hash table in a GPU's memory: the index of their keys, their rows, and which rows are free.
//
// Searches begin and end as in key_groups.h. Many threads may store keys of a bucket at the same time, or erase keys, but not
// both. Which slot of a group a key lies in then depends on the threads; nothing that a call answers does.
#pragma once

#include "cuda_primitives.cuh"
#include "key_hash.h"
#include "key_index_cuda.h"

namespace table {

using dlrm::hash_of;

constexpr int kThreads = 256;  // of a block that takes one key a thread
#ifdef DLRM_EMULATE
constexpr int kOfBucket = 64;  // of the block that works on a bucket: any multiple of 32 that is at least 32
#else
constexpr int kOfBucket = 512;
#endif
constexpr uint32_t kNoCall = 1;  // for a row with a key that no call has touched; calls have higher numbers

struct alignas(64) Group {
  static constexpr int kSlots = 5;
  int64_t keys[kSlots];
  int32_t rows[kSlots];  // row + 1; 0 for an empty slot
  uint32_t overflow;     // stored keys that passed by because the group was full
};
static_assert(sizeof(Group) == 64, "two sectors");

// What is kept for a row besides its key, its weights and the state of its optimizer.
struct alignas(16) RowState {
  int64_t score;
  uint32_t step;  // of the last touch
  uint32_t call;  // number of the last call that touched the row; 0 for a row without a key
};

struct BucketState {
  int32_t unused;     // the rows from here on never had a key
  int32_t num_freed;  // rows that lost theirs; the last one is taken first
};

// The first of all memory of an index.
struct Header {
  uint32_t call;  // number of the last call that touched rows
  uint32_t step;  // the highest one given
  DlrmIndexCounters counters;
};

struct Bucket {
  BucketState* state;
  Group* groups;
  int64_t* keys;
  RowState* rows;
  int32_t* freed;
  int64_t num_groups, num_rows;

  DLRM_DEVICE int64_t num_free() const { return state->num_freed + num_rows - state->unused; }
};

// Several buckets of the same size.
struct Buckets {
  BucketState* states;
  Group* groups;
  int64_t* keys;
  RowState* rows;
  int32_t* freed;
  int64_t num_buckets, rows_of_bucket, groups_of_bucket;
};

DLRM_DEVICE Bucket bucket_at(const Buckets& all, int64_t number) {
  const int64_t row = number * all.rows_of_bucket;
  return {all.states + number, all.groups + number * all.groups_of_bucket, all.keys + row, all.rows + row,
          all.freed + row,     all.groups_of_bucket,                       all.rows_of_bucket};
}

// An index, as every kernel gets it.
struct Table {
  Header* header;
  Buckets stored;
  Buckets counted;      // keys that are not stored, with their counts as scores; no buckets without an exact counter
  uint16_t* cells;      // of the sketch; null without one
  int64_t cells_of_line;
  DlrmIndexBuckets owned;
  DlrmIndexRules rules;

  DLRM_DEVICE int64_t bucket_of(uint64_t hash) const {
    return dlrm::bucket_of(hash, owned.num_buckets) - owned.first_bucket;
  }
  DLRM_DEVICE bool owns(int64_t bucket) const { return bucket >= 0 && bucket < stored.num_buckets; }
  DLRM_DEVICE int64_t table_row(int64_t bucket, int32_t row) const {
    return (owned.first_bucket + bucket) * owned.rows_per_bucket + row;
  }
};

DLRM_DEVICE void add(int64_t* to, int64_t number) {
  if (number != 0) atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(number));
}

DLRM_DEVICE void complain(DlrmIndexOutcome* outcome, int64_t key) {
  add(&outcome->num_bad, 1);
  outcome->bad_key = key;
}

DLRM_DEVICE int64_t home(const Bucket& of, uint64_t hash) {
  return dlrm::below(static_cast<uint32_t>(hash), of.num_groups);
}
DLRM_DEVICE int64_t next(const Bucket& of, int64_t group) { return group + 1 == of.num_groups ? 0 : group + 1; }

// The row of a key in its bucket; -1 where it is not stored.
DLRM_DEVICE int32_t find(const Bucket& of, int64_t key, uint64_t hash) {
  int64_t at = home(of, hash);
  for (int64_t left = of.num_groups; left > 0; --left, at = next(of, at)) {
    const Group group = of.groups[at];  // as a whole: its loads are under way at the same time
    int32_t row = 0;
#pragma unroll
    for (int i = 0; i < Group::kSlots; ++i) row |= group.keys[i] == key ? group.rows[i] : 0;
    if (row > 0 || group.overflow == 0) return row - 1;
  }
  return -1;
}

// Puts a key that is not in the index of its bucket there. There is an empty slot as long as there are no more keys than rows.
DLRM_DEVICE void insert_key(const Bucket& of, int64_t key, uint64_t hash, int32_t row) {
  for (int64_t at = home(of, hash);; at = next(of, at)) {
    Group& group = of.groups[at];
    for (int i = 0; i < Group::kSlots; ++i) {
      if (group.rows[i] != 0 || atomicCAS(&group.rows[i], 0, row + 1) != 0) continue;
      group.keys[i] = key;
      return;
    }
    atomicAdd(&group.overflow, 1u);
  }
}

// Takes a key out of the index of its bucket.
DLRM_DEVICE void erase_key(const Bucket& of, int64_t key, uint64_t hash) {
  for (int64_t at = home(of, hash);; at = next(of, at)) {
    Group& group = of.groups[at];
    for (int i = 0; i < Group::kSlots; ++i) {
      if (group.keys[i] != key || group.rows[i] == 0) continue;
      group.rows[i] = 0;
      return;
    }
    atomicAdd(&group.overflow, ~0u);  // one less
  }
}

// ---- a block that works on a bucket ----------------------------------------------------------------------------------

// Shared memory of such a block.
struct Scratch {
  uint32_t words[kOfBucket / 32];
  uint32_t counts[256];
  uint32_t sum;
  uint64_t all, any;   // bits that all scores have, and that any has
  int64_t numbers[3];  // what one thread tells the others
};

// How many threads before this one have the flag; num: how many of the block. For all threads of the block.
DLRM_DEVICE uint32_t place_in_block(Scratch* scratch, bool flag, uint32_t* num) {
  const int word = threadIdx.x / 32, bit = threadIdx.x % 32;
  __syncthreads();  // nobody reads the words of the last call any more
  if (bit == 0) scratch->words[word] = 0;
  __syncthreads();
  if (flag) atomicOr(&scratch->words[word], 1u << bit);
  __syncthreads();
  uint32_t before = __popc(scratch->words[word] & ((1u << bit) - 1));
  *num = 0;
  for (int i = 0; i < kOfBucket / 32; ++i) {
    const uint32_t of_word = __popc(scratch->words[i]);
    before += i < word ? of_word : 0;
    *num += of_word;
  }
  return before;
}

// The sum of a number of each thread, below 2^32, for all threads of the block. In 32 bits, for which shared memory has an
// addition.
DLRM_DEVICE uint32_t sum_in_block(Scratch* scratch, uint32_t number) {
  __syncthreads();
  if (threadIdx.x == 0) scratch->sum = 0;
  __syncthreads();
  if (number != 0) atomicAdd(&scratch->sum, number);
  __syncthreads();
  return scratch->sum;
}

}  // namespace table
