// The host's half of the hash table on a GPU: what is where in the memory of an index and of a call, and its launches.
#pragma once

#include "cuda_host.h"
#include "embedding_rows/sort_cuda.h"
#include "upkeep_cuda.cuh"

namespace table {

using dlrm::blocks_for;
using dlrm::code_of;
using dlrm::Memory;

constexpr int64_t kRowsOfBlock = 8 * kOfBucket, kShared = sizeof(Scratch);

inline bool good(const DlrmCudaIndex& index) {
  const DlrmIndexBuckets& b = index.buckets;
  const DlrmIndexRules& r = index.rules;
  return b.num_buckets >= 1 && b.num_buckets <= INT32_MAX && b.rows_per_bucket >= 1 && b.first_bucket >= 0 &&
         b.first_bucket <= b.last_bucket && b.last_bucket <= b.num_buckets && r.score >= DLRM_SCORE_TIMESTAMP &&
         r.score <= DLRM_SCORE_NO_EVICTION && r.admit_after >= 1 && r.admit_probability >= 0 && r.admit_probability <= 1 &&
         r.counter_size >= 0 && (r.counter == DLRM_COUNT_EXACT || r.counter == DLRM_COUNT_SKETCH) &&
         (r.counter == DLRM_COUNT_EXACT || r.admit_after <= kMostCount);
}

inline Buckets take_buckets(Memory* memory, int64_t num_buckets, int64_t rows_of_bucket) {
  const int64_t groups = blocks_for(3 * rows_of_bucket, 2 * Group::kSlots), num_rows = num_buckets * rows_of_bucket;
  Buckets all = {};
  all.states = memory->take<BucketState>(num_buckets);
  all.groups = memory->take<Group>(num_buckets * groups);
  all.keys = memory->take<int64_t>(num_rows);
  all.rows = memory->take<RowState>(num_rows);
  all.freed = memory->take<int32_t>(num_rows);
  all.num_buckets = num_buckets;
  all.rows_of_bucket = rows_of_bucket;
  all.groups_of_bucket = groups;
  return all;
}

// The parts of an index in its memory; bytes: of all of them.
inline Table table_of(const DlrmCudaIndex& index, int64_t* bytes) {
  Memory memory(index.memory);
  const DlrmIndexRules& rules = index.rules;
  const int64_t owned = index.buckets.last_bucket - index.buckets.first_bucket;
  const int64_t share = rules.counter_size / index.buckets.num_buckets;
  Table table = {};
  table.header = memory.take<Header>(1);
  table.stored = take_buckets(&memory, owned, index.buckets.rows_per_bucket);
  if (rules.admit_after > 1 && rules.counter == DLRM_COUNT_EXACT) {
    table.counted = take_buckets(&memory, owned, share < 1 ? 1 : share);
  } else if (rules.admit_after > 1) {
    table.cells_of_line = share / kLines / 2 < 1 ? 1 : share / kLines / 2;
    table.cells = memory.take<uint16_t>(owned * kLines * table.cells_of_line);
  }
  table.owned = index.buckets;
  table.rules = rules;
  *bytes = memory.used();
  return table;
}

// The parts of a call's memory.
struct Parts {
  Batch batch = {};
  uint32_t *sorted[2] = {}, *order[2] = {}, *counts;
  void* sort_memory = nullptr;
  int64_t sort_bytes = 0, used = 0;
  int error = 0;

  Parts(const Table& table, const DlrmCudaCall& call, int64_t count) {
    Memory memory(call.memory);
    const int64_t num_buckets = table.stored.num_buckets;
    batch.count = count;
    batch.outcome = call.outcome;
    batch.num_missing = memory.take<uint32_t>(num_buckets);
    batch.num_stored = memory.take<uint32_t>(num_buckets);
    batch.num_evicted = memory.take<uint32_t>(num_buckets);
    if (count > 0) {
      for (int i = 0; i < 2; ++i) sorted[i] = memory.take<uint32_t>(count), order[i] = memory.take<uint32_t>(count);
      batch.rows = memory.take<int32_t>(count);
      batch.sizes = memory.take<uint32_t>(count);
      batch.best = memory.take<int64_t>(count);
      batch.missing = memory.take<uint32_t>(count);
      batch.evicted = memory.take<Entry>(count);
      error = rows::sort_bytes(count, 32, &sort_bytes);
      sort_memory = memory.take<char>(sort_bytes);
    }
    const Buckets& larger = table.counted.rows_of_bucket > table.stored.rows_of_bucket ? table.counted : table.stored;
    counts = memory.take<uint32_t>(blocks_for(num_buckets * larger.rows_of_bucket, kRowsOfBlock));
    used = memory.used();
  }
};

// One call: its checks, then its kernels one after the other, until one cannot be queued.
class Call {
 public:
  Call(const DlrmCudaIndex* index, const DlrmCudaCall* call, int64_t count)
      : table(table_of(*index, &table_bytes)), parts(table, *call, count), stream_(call->stream) {
    if (!good(*index) || count < 0 || count >= int64_t{1} << 31 || !dlrm::fits(call->memory, 256) ||
        call->bytes < parts.used) {
      code = DLRM_BAD_ARGUMENT;
    } else {
      code = code_of(parts.error);
    }
  }

  // Begins a call that is not the second one on the same memory.
  void begin() {
    if (code == DLRM_OK) code = code_of(fill_with_zeros(parts.batch.outcome, sizeof(DlrmIndexOutcome), stream_));
  }

  template <class Kernel, class... Arguments>
  void by_key(Kernel kernel, Arguments... arguments) {
    const int64_t blocks = blocks_for(parts.batch.count, kThreads);
    if (code == DLRM_OK && blocks > 0) code = code_of(launch(kernel, blocks, kThreads, 8, stream_, arguments...));
  }

  template <class Kernel, class... Arguments>
  void by_block(int64_t blocks, Kernel kernel, Arguments... arguments) {
    if (code == DLRM_OK && blocks > 0) code = code_of(launch(kernel, blocks, kOfBucket, kShared, stream_, arguments...));
  }
  template <class Kernel, class... Arguments>
  void by_bucket(Kernel kernel, Arguments... arguments) {
    by_block(table.stored.num_buckets, kernel, arguments...);
  }

  // Sorts the batch by hash, and finds its runs.
  void sort() {
    Batch& batch = parts.batch;
    const int64_t num_rows = table.stored.num_buckets * table.stored.rows_of_bucket;
    by_key(renumber_calls, table, num_rows);
    by_key(low_halves, table, batch, parts.sorted[0], parts.order[0], false);
    sort_once();
    by_key(high_halves, batch, parts.sorted[0], parts.order[0]);
    sort_once();
    use_order();
  }

  // Sorts the batch by bucket, and nothing else.
  void sort_by_bucket() {
    by_key(low_halves, table, parts.batch, parts.sorted[0], parts.order[0], true);
    sort_once();
    use_order();
  }

  // The batch has been sorted, perhaps by an earlier call in the same memory.
  void use_order() {
    parts.batch.high = parts.sorted[0];
    parts.batch.order = parts.order[0];
  }

  int64_t table_bytes = 0;
  const Table table;
  Parts parts;
  int code;

 private:
  // Sorts both halves' [0], where the result is too.
  void sort_once() {
    const int64_t bytes = parts.batch.count * 4;
    if (code != DLRM_OK || bytes == 0) return;
    int at = 0;
    code = code_of(rows::sort_by_row(parts.sort_memory, parts.sort_bytes, parts.sorted, parts.order, parts.batch.count, 32,
                                     &at, stream_));
    if (code != DLRM_OK || at == 0) return;
    code = code_of(copy_memory(parts.sorted[0], parts.sorted[1], bytes, stream_));
    if (code == DLRM_OK) code = code_of(copy_memory(parts.order[0], parts.order[1], bytes, stream_));
  }

  void* const stream_;
};

}  // namespace table
