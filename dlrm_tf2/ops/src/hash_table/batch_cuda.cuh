// The keys of a call, sorted by their hashes: so by their buckets too, and equal keys are next to each other. A *run* is all
// occurrences of a key, and stands at its first place in the order, which is the first occurrence in the call.
#pragma once

#include "lowest_cuda.cuh"

namespace table {

constexpr int32_t kMissing = -1, kNotFirst = -2;  // in place of a row

struct Batch {
  const int64_t* keys;  // as given
  int64_t count;
  DlrmScores scores;
  const int64_t* steps;    // of each key, in place of one step for all; null in find_or_insert
  const uint32_t* order;   // [count]: positions of keys, sorted by (hash, position)
  const uint32_t* high;    // [count]: the high halves of the hashes, sorted
  int32_t* rows;           // [count]: of a run the row in its bucket or kMissing
  uint32_t* sizes;         // [count]: of a run its occurrences
  int64_t* best;           // [count]: of a run the highest score given; null where all scores are one
  uint32_t* missing;       // [count]: each bucket's runs that are to be stored, from the bucket's first place on
  Entry* evicted;          // [count]: each bucket's, from the bucket's first place on
  uint32_t *num_missing, *num_stored, *num_evicted;  // of each bucket
  DlrmIndexOutcome* outcome;

  DLRM_DEVICE int64_t key_at(int64_t place) const { return keys[order[place]]; }
  DLRM_DEVICE bool same_key(int64_t a, int64_t b) const { return high[a] == high[b] && key_at(a) == key_at(b); }
  DLRM_DEVICE int64_t last_position(int64_t run) const { return order[run + sizes[run] - 1]; }
  DLRM_DEVICE int64_t given_score(int64_t position) const { return scores.scores[position * scores.stride]; }
};

// The last i with yes(i), where yes(0) holds and yes becomes no once, below `limit`: by steps that double.
template <class Yes>
DLRM_DEVICE int64_t last_that(int64_t limit, const Yes& yes) {
  int64_t low = 0, step = 1;
  while (low + step < limit && yes(low + step)) {
    low += step;
    step *= 2;
  }
  for (; step > 0; step /= 2) {
    if (low + step < limit && yes(low + step)) low += step;
  }
  return low;
}

// The place of the run that a place belongs to.
DLRM_DEVICE int64_t run_of(const Batch& batch, int64_t place) {
  return place - last_that(place + 1, [&](int64_t back) { return batch.same_key(place - back, place); });
}

// The first place of a bucket or a later one.
DLRM_DEVICE int64_t first_place(const Table& table, const Batch& batch, int64_t bucket) {
  int64_t low = 0, high = batch.count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (table.bucket_of(static_cast<uint64_t>(batch.high[middle]) << 32) < bucket) low = middle + 1;
    else high = middle;
  }
  return low;
}

// ---- kernels that take one key a thread --------------------------------------------------------------------------------

DLRM_DEVICE int64_t number_of_thread() { return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; }

// Adds up numbers of all threads, in all below 2^32; one addition to global memory a block. Shared memory: one number.
DLRM_DEVICE void add_all(int64_t* to, uint32_t number) {
  DLRM_SHARED(memory);
  uint32_t* const sum = reinterpret_cast<uint32_t*>(memory);
  __syncthreads();
  if (threadIdx.x == 0) *sum = 0;
  __syncthreads();
  if (number != 0) atomicAdd(sum, number);
  __syncthreads();
  if (threadIdx.x == 0) add(to, *sum);
}

__global__ void __launch_bounds__(kThreads) find_keys(Table table, Batch batch, int64_t* rows, bool counts) {
  const int64_t i = number_of_thread();
  uint32_t found = 0, missed = 0;
  if (i < batch.count) {
    const uint64_t hash = hash_of(batch.keys[i]);
    const int64_t bucket = table.bucket_of(hash);
    int32_t row = kMissing;
    if (table.owns(bucket)) row = find(bucket_at(table.stored, bucket), batch.keys[i], hash);
    else if (counts) complain(batch.outcome, batch.keys[i]);
    rows[i] = row < 0 ? -1 : table.table_row(bucket, row);
    found = row >= 0;
    missed = row < 0;
  }
  if (!counts) return;
  add_all(&table.header->counters.found, found);
  add_all(&table.header->counters.missed, missed);
}

__global__ void __launch_bounds__(kThreads)
    write_buckets(const int64_t* keys, int64_t count, int64_t num_buckets, int32_t* buckets) {
  const int64_t i = number_of_thread();
  if (i < count) buckets[i] = static_cast<int32_t>(dlrm::bucket_of(hash_of(keys[i]), num_buckets));
}

// What keys are sorted by first: the low halves of their hashes; or, for `by_bucket`, their buckets and nothing else.
__global__ void __launch_bounds__(kThreads)
    low_halves(Table table, Batch batch, uint32_t* low, uint32_t* positions, bool by_bucket) {
  const int64_t i = number_of_thread();
  if (i >= batch.count) return;
  const uint64_t hash = hash_of(batch.keys[i]);
  const int64_t bucket = table.bucket_of(hash);
  low[i] = by_bucket ? static_cast<uint32_t>(table.owns(bucket) ? bucket : table.stored.num_buckets)
                     : static_cast<uint32_t>(hash);
  positions[i] = static_cast<uint32_t>(i);
  const bool is_bad_step = batch.steps != nullptr && (batch.steps[i] < 0 || batch.steps[i] > UINT32_MAX);
  if (is_bad_step || (!by_bucket && !table.owns(bucket))) complain(batch.outcome, batch.keys[i]);
}

__global__ void __launch_bounds__(kThreads) high_halves(Batch batch, uint32_t* high, const uint32_t* positions) {
  const int64_t i = number_of_thread();
  if (i < batch.count) high[i] = static_cast<uint32_t>(hash_of(batch.keys[positions[i]]) >> 32);
}

// When the numbers of calls have reached the last one, they begin again.
__global__ void __launch_bounds__(kThreads) renumber_calls(Table table, int64_t num_rows) {
  if (table.header->call != UINT32_MAX) return;
  for (int64_t row = number_of_thread(); row < num_rows; row += static_cast<int64_t>(gridDim.x) * kThreads) {
    uint32_t& call = table.stored.rows[row].call;
    call = call == 0 ? 0 : kNoCall;
  }
}

__global__ void begin_call(Header* header, uint32_t step) {
  header->call = header->call < kNoCall || header->call == UINT32_MAX ? kNoCall + 1 : header->call + 1;
  header->step = header->step < step ? step : header->step;
}

// Finds each run's row and size.
__global__ void __launch_bounds__(kThreads) find_runs(Table table, Batch batch) {
  const int64_t i = number_of_thread();
  if (i >= batch.count) return;
  if (batch.best != nullptr) batch.best[i] = INT64_MIN;
  if (i > 0 && batch.same_key(i - 1, i)) {
    batch.rows[i] = kNotFirst;
    return;
  }
  const int64_t key = batch.key_at(i);
  const uint64_t hash = hash_of(key);
  const int64_t bucket = table.bucket_of(hash);
  batch.rows[i] = table.owns(bucket) ? find(bucket_at(table.stored, bucket), key, hash) : kMissing;
  batch.sizes[i] =
      static_cast<uint32_t>(1 + last_that(batch.count - i, [&](int64_t ahead) { return batch.same_key(i, i + ahead); }));
}

__global__ void __launch_bounds__(kThreads) find_best_scores(Batch batch) {
  const int64_t i = number_of_thread();
  if (i >= batch.count) return;
  atomicMax(reinterpret_cast<long long*>(batch.best + run_of(batch, i)),
            static_cast<long long>(batch.given_score(batch.order[i])));
}

// The score of a run that is touched or stored in this call; `before`: its score before, or 0.
DLRM_DEVICE int64_t score_of_run(const Table& table, const Batch& batch, int64_t run, int64_t before, uint32_t step) {
  switch (table.rules.score) {
    case DLRM_SCORE_NO_EVICTION: return 0;
    case DLRM_SCORE_LFU: return before + batch.sizes[run];
    case DLRM_SCORE_STEP: return step;
  }
  return batch.best == nullptr ? batch.scores.scores[0] : batch.best[run];
}

// Touches the rows that were found, each by one thread; for `assign`, with the last score and step given.
__global__ void __launch_bounds__(kThreads) touch_runs(Table table, Batch batch, uint32_t step) {
  const int64_t i = number_of_thread();
  const int32_t row = i < batch.count ? batch.rows[i] : kNotFirst;
  const uint32_t size = row == kNotFirst ? 0 : batch.sizes[i];
  if (row >= 0) {
    RowState& state = bucket_at(table.stored, table.bucket_of(hash_of(batch.key_at(i)))).rows[row];
    if (batch.steps == nullptr) {
      state = {score_of_run(table, batch, i, state.score, step), step, table.header->call};
    } else {
      const int64_t last = batch.last_position(i);
      state = {batch.given_score(last), static_cast<uint32_t>(batch.steps[last]), state.call};
    }
  }
  if (batch.steps != nullptr) return;
  add_all(&table.header->counters.found, row >= 0 ? size : 0);
  add_all(&table.header->counters.missed, row >= 0 ? 0 : size);
}

// Writes the table's row of every key.
__global__ void __launch_bounds__(kThreads) write_rows(Table table, Batch batch, int64_t* rows) {
  const int64_t i = number_of_thread();
  if (i >= batch.count) return;
  const int32_t row = batch.rows[batch.rows[i] == kNotFirst ? run_of(batch, i) : i];
  rows[batch.order[i]] = row < 0 ? -1 : table.table_row(table.bucket_of(hash_of(batch.key_at(i))), row);
}

}  // namespace table
