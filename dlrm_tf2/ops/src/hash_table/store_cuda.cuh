// Stores the missing keys of a batch, a block a bucket: which ones, which keys leave for them, and which row each one gets is
// known before anything is written, so that all threads of the block then write at the same time.
//
// The first keys in the order get the free rows, the next ones the rows of the lowest keys, lowest first. Taking one key
// after the other has the same result, because a key that is stored in a call is never the lowest one in it.
#pragma once

#include "admission_cuda.cuh"

namespace table {

// The keys of one bucket in a batch.
struct Segment {
  int64_t first, last;
};

DLRM_DEVICE Segment segment_of(Scratch* scratch, const Table& table, const Batch& batch, int64_t bucket) {
  __syncthreads();
  if (threadIdx.x < 2) scratch->numbers[threadIdx.x] = first_place(table, batch, bucket + threadIdx.x);
  __syncthreads();
  const Segment segment = {scratch->numbers[0], scratch->numbers[1]};
  __syncthreads();
  return segment;
}

// Lists the runs of a segment that yes(run) is true for, in order; returns how many.
template <class Yes>
DLRM_DEVICE uint32_t list_runs(Scratch* scratch, const Segment& segment, uint32_t* list, const Yes& yes) {
  uint32_t listed = 0;
  for (int64_t tile = segment.first; tile < segment.last; tile += kOfBucket) {
    const int64_t run = tile + threadIdx.x;
    const bool is_listed = run < segment.last && yes(run);
    uint32_t num;
    const uint32_t place = place_in_block(scratch, is_listed, &num);
    if (is_listed) list[listed + place] = static_cast<uint32_t>(run);
    listed += num;
  }
  __syncthreads();
  return listed;
}

// What a block does with its bucket.
struct Storing {
  Scratch* scratch;
  Bucket of;
  uint32_t* missing;  // runs to be stored, in order
  uint32_t num_missing;
  Entry* evicted;
  int64_t num_free, num_evicted;

  DLRM_DEVICE int64_t num_stored() const {
    return num_missing < num_free + num_evicted ? num_missing : num_free + num_evicted;
  }
  // The row of the i-th key.
  DLRM_DEVICE int32_t row_for(int64_t i) const {
    const int32_t num_freed = of.state->num_freed;
    if (i < num_freed) return of.freed[num_freed - 1 - i];
    return i < num_free ? static_cast<int32_t>(of.state->unused + i - num_freed) : evicted[i - num_free].row;
  }
};

// Finds the keys that leave for the last `wanted` of the missing ones; they are still there.
DLRM_DEVICE void choose_evicted(Storing* storing, int64_t wanted, int64_t num_candidates, uint32_t call) {
  storing->num_evicted = wanted < num_candidates ? wanted : num_candidates;
  take_lowest(storing->scratch, {storing->of, call}, storing->num_evicted, storing->evicted);
}

// Puts the keys to be assigned in order, the highest (score, hash) first; `entries` is room for them.
DLRM_DEVICE void order_to_assign(const Batch& batch, uint32_t* missing, uint32_t count, Entry* entries) {
  for (uint32_t i = threadIdx.x; i < count; i += kOfBucket) {
    const int64_t run = missing[i], key = batch.key_at(run);
    entries[i] = {~ordered(batch.given_score(batch.last_position(run))), ~hash_of(key), key, static_cast<int32_t>(run), 0};
  }
  sort_in_block(entries, count);
  for (uint32_t i = threadIdx.x; i < count; i += kOfBucket) missing[i] = static_cast<uint32_t>(entries[i].row);
  __syncthreads();
}

// Leaves out evictions of keys that are above the key that would come for them. Evicted keys rise and coming keys fall in the
// order, so these are the last ones.
DLRM_DEVICE void keep_higher_keys(const Batch& batch, Storing* storing) {
  uint32_t lower = 0;
  for (int64_t i = threadIdx.x; i < storing->num_evicted; i += kOfBucket) {
    const int64_t run = storing->missing[storing->num_free + i];
    const Entry coming = {ordered(batch.given_score(batch.last_position(run))), hash_of(batch.key_at(run)), 0, 0, 0};
    lower += below(storing->evicted[i], coming);
  }
  storing->num_evicted = sum_in_block(storing->scratch, lower);
}

// Erases the evicted keys, and writes the stored ones.
DLRM_DEVICE void replace_keys(const Table& table, const Batch& batch, const Storing& storing, uint32_t step) {
  const Bucket& of = storing.of;
  for (int64_t i = threadIdx.x; i < storing.num_evicted; i += kOfBucket) {
    erase_key(of, storing.evicted[i].key, storing.evicted[i].hash);
  }
  __syncthreads();
  const int64_t num_stored = storing.num_stored();
  for (int64_t i = threadIdx.x; i < num_stored; i += kOfBucket) {
    const int64_t run = storing.missing[i], key = batch.key_at(run);
    const int32_t row = storing.row_for(i);
    RowState state = {score_of_run(table, batch, run, 0, step), step, table.header->call};
    if (batch.steps != nullptr) {
      const int64_t last = batch.last_position(run);
      state = {batch.given_score(last), static_cast<uint32_t>(batch.steps[last]), kNoCall};
    }
    of.keys[row] = key;
    of.rows[row] = state;
    insert_key(of, key, hash_of(key), row);
    batch.rows[run] = row;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  const int64_t of_freed = num_stored < of.state->num_freed ? num_stored : of.state->num_freed;
  const int64_t of_free = num_stored < storing.num_free ? num_stored : storing.num_free;
  of.state->num_freed -= static_cast<int32_t>(of_freed);
  of.state->unused += static_cast<int32_t>(of_free - of_freed);
}

// A block for each bucket; shared memory: Scratch.
__global__ void __launch_bounds__(kOfBucket) store_missing(Table table, Batch batch, uint32_t step) {
  DLRM_SHARED(memory);
  Scratch* const scratch = reinterpret_cast<Scratch*>(memory);
  const int64_t bucket = blockIdx.x;
  const bool assigns = batch.steps != nullptr;
  const Segment segment = segment_of(scratch, table, batch, bucket);
  const Bucket of = bucket_at(table.stored, bucket);
  Storing storing = {scratch, of, batch.missing + segment.first, 0, batch.evicted + segment.first, of.num_free(), 0};
  uint32_t refused = 0;
  storing.num_missing = list_runs(scratch, segment, storing.missing, [&](int64_t run) {
    if (batch.rows[run] != kMissing) return false;
    const bool admits = assigns || admits_by_chance(table.rules, hash_of(batch.key_at(run)), step);
    refused += !admits;
    return admits;
  });
  refused = sum_in_block(scratch, refused);
  if (assigns) order_to_assign(batch, storing.missing, storing.num_missing, storing.evicted);

  const uint32_t call = assigns ? 0 : table.header->call;  // touched rows stay; in `assign` there are none
  const bool evicts = table.rules.score != DLRM_SCORE_NO_EVICTION && storing.num_missing > storing.num_free;
  const int64_t num_candidates = evicts ? count_candidates(scratch, {of, call}) : 0;
  if (!assigns && table.rules.admit_after > 1) {
    const uint64_t all = scratch->all, any = scratch->any;
    const uint32_t admitted = admit_by_count(scratch, table, batch, storing.missing, storing.num_missing,
                                             storing.num_free + num_candidates);
    refused += storing.num_missing - admitted;
    storing.num_missing = admitted;
    if (threadIdx.x == 0) scratch->all = all, scratch->any = any;
    __syncthreads();
  }
  if (evicts && storing.num_missing > storing.num_free) {
    choose_evicted(&storing, storing.num_missing - storing.num_free, num_candidates, call);
    if (assigns) keep_higher_keys(batch, &storing);
  }
  const int64_t num_stored = storing.num_stored();
  replace_keys(table, batch, storing, step);
  if (threadIdx.x != 0) return;
  batch.num_missing[bucket] = storing.num_missing;
  batch.num_stored[bucket] = static_cast<uint32_t>(num_stored);
  batch.num_evicted[bucket] = static_cast<uint32_t>(storing.num_evicted);
  DlrmIndexCounters* const counters = &table.header->counters;
  const bool admission = !assigns && (table.rules.admit_after > 1 || table.rules.admit_probability < 1);
  add(&counters->inserted, num_stored);
  add(&counters->admitted, admission ? num_stored : 0);
  add(&counters->refused, refused);
  add(&counters->evicted, storing.num_evicted);
  add(&counters->not_insertable, storing.num_missing - num_stored);
  add(&batch.outcome->changes.fresh, num_stored);
  add(&batch.outcome->changes.evicted, storing.num_evicted);
}

// ---- lists -----------------------------------------------------------------------------------------------------------

// How many entries the buckets before this one have, for all threads of the block.
DLRM_DEVICE int64_t listed_before(Scratch* scratch, const uint32_t* counts, int64_t bucket) {
  uint32_t before = 0;
  for (int64_t i = threadIdx.x; i < bucket; i += kOfBucket) before += counts[i];
  return sum_in_block(scratch, before);
}

// Keys, rows, scores and steps; null for what is not wanted.
struct Lists {
  int64_t *keys, *rows, *scores, *steps;

  DLRM_DEVICE void write(int64_t place, int64_t key, int64_t row, const RowState& state) const {
    if (keys != nullptr) keys[place] = key;
    if (rows != nullptr) rows[place] = row;
    if (scores != nullptr) scores[place] = state.score;
    if (steps != nullptr) steps[place] = state.step;
  }
};

// The keys that were stored, in the order of their hashes.
__global__ void __launch_bounds__(kOfBucket) list_fresh(Table table, Batch batch, Lists lists) {
  DLRM_SHARED(memory);
  Scratch* const scratch = reinterpret_cast<Scratch*>(memory);
  const int64_t bucket = blockIdx.x, before = listed_before(scratch, batch.num_stored, bucket);
  const Segment segment = segment_of(scratch, table, batch, bucket);
  for (int64_t i = threadIdx.x; i < batch.num_stored[bucket]; i += kOfBucket) {
    const int64_t run = batch.missing[segment.first + i];
    lists.write(before + i, batch.key_at(run), table.table_row(bucket, batch.rows[run]), RowState{});
  }
}

__global__ void __launch_bounds__(kOfBucket) list_evicted(Table table, Batch batch, Lists lists) {
  DLRM_SHARED(memory);
  Scratch* const scratch = reinterpret_cast<Scratch*>(memory);
  const int64_t bucket = blockIdx.x, before = listed_before(scratch, batch.num_evicted, bucket);
  const Segment segment = segment_of(scratch, table, batch, bucket);
  for (int64_t i = threadIdx.x; i < batch.num_evicted[bucket]; i += kOfBucket) {
    const Entry& entry = batch.evicted[segment.first + i];
    lists.write(before + i, entry.key, table.table_row(bucket, entry.row), {score_of(entry.score), entry.step, 0});
  }
}

}  // namespace table
