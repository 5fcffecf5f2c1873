// Erasing keys, listing rows, and taking counts, on a GPU.
#pragma once

#include "store_cuda.cuh"

namespace table {

// Erases the keys of a batch that are stored, a block a bucket. Their rows become free in the order of their hashes, as the runs are.
__global__ void __launch_bounds__(kOfBucket) erase_keys(Table table, Batch batch, unsigned char* was_stored) {
  DLRM_SHARED(memory);
  Scratch* const scratch = reinterpret_cast<Scratch*>(memory);
  const int64_t bucket = blockIdx.x;
  const Segment segment = segment_of(scratch, table, batch, bucket);
  const Bucket of = bucket_at(table.stored, bucket);
  const uint32_t num =
      list_runs(scratch, segment, batch.missing + segment.first, [&](int64_t run) { return batch.rows[run] >= 0; });
  const int32_t num_freed = of.state->num_freed;
  for (uint32_t i = threadIdx.x; i < num; i += kOfBucket) {
    const int64_t run = batch.missing[segment.first + i], key = batch.key_at(run);
    const int32_t row = batch.rows[run];
    erase_key(of, key, hash_of(key));
    of.rows[row].call = 0;
    of.freed[num_freed + i] = row;
    was_stored[batch.order[run]] = 1;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  of.state->num_freed = num_freed + static_cast<int32_t>(num);
  add(&table.header->counters.erased, num);
}

// Erases the keys of a bucket that were touched last before a step.
__global__ void __launch_bounds__(kOfBucket) expire_keys(Table table, int64_t before_step, DlrmIndexOutcome* outcome) {
  DLRM_SHARED(memory);
  Scratch* const scratch = reinterpret_cast<Scratch*>(memory);
  const Bucket of = bucket_at(table.stored, blockIdx.x);
  const int32_t num_freed = of.state->num_freed;
  uint32_t expired = 0;
  for (int64_t tile = 0; tile < of.num_rows; tile += kOfBucket) {
    const int64_t row = tile + threadIdx.x;
    const bool is_old = row < of.num_rows && of.rows[row].call != 0 && of.rows[row].step < before_step;
    uint32_t num;
    const uint32_t place = place_in_block(scratch, is_old, &num);
    if (is_old) {
      erase_key(of, of.keys[row], hash_of(of.keys[row]));
      of.rows[row].call = 0;
      of.freed[num_freed + expired + place] = static_cast<int32_t>(row);
    }
    expired += num;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  of.state->num_freed = num_freed + static_cast<int32_t>(expired);
  add(&table.header->counters.expired, expired);
  add(&outcome->listed, expired);
}

__global__ void __launch_bounds__(kOfBucket) count_stored(Table table, int64_t* size) {
  DLRM_SHARED(memory);
  uint32_t count = 0;
  for (int64_t i = threadIdx.x; i < table.stored.num_buckets; i += kOfBucket) {
    count += static_cast<uint32_t>(table.stored.states[i].unused - table.stored.states[i].num_freed);
  }
  count = sum_in_block(reinterpret_cast<Scratch*>(memory), count);
  if (threadIdx.x == 0) *size = count;
}

// ---- lists of rows -----------------------------------------------------------------------------------------------------

// Rows first .. last - 1 of buckets, counted from their first row on; of the table they are first_row more. Each block has
// rows_of_block of them.
struct Selected {
  Buckets from;
  int64_t first, last, first_row, rows_of_block, before_step;

  DLRM_DEVICE bool includes(int64_t row) const {
    return row < last && from.rows[row].call != 0 && from.rows[row].step < before_step;
  }
};

__global__ void __launch_bounds__(kOfBucket) count_rows(Selected of, uint32_t* counts, DlrmIndexOutcome* outcome) {
  DLRM_SHARED(memory);
  const int64_t first = of.first + blockIdx.x * of.rows_of_block;
  uint32_t count = 0;
  for (int64_t i = threadIdx.x; i < of.rows_of_block; i += kOfBucket) count += of.includes(first + i);
  count = sum_in_block(reinterpret_cast<Scratch*>(memory), count);
  if (threadIdx.x != 0) return;
  counts[blockIdx.x] = count;
  add(&outcome->listed, count);
}

__global__ void __launch_bounds__(kOfBucket) list_rows(Selected of, const uint32_t* counts, Lists lists) {
  DLRM_SHARED(memory);
  Scratch* const scratch = reinterpret_cast<Scratch*>(memory);
  int64_t listed = listed_before(scratch, counts, blockIdx.x);
  const int64_t first = of.first + blockIdx.x * of.rows_of_block;
  for (int64_t tile = 0; tile < of.rows_of_block; tile += kOfBucket) {
    const int64_t row = first + tile + threadIdx.x;
    const bool is_listed = tile + threadIdx.x < of.rows_of_block && of.includes(row);
    uint32_t num;
    const uint32_t place = place_in_block(scratch, is_listed, &num);
    if (is_listed) lists.write(listed + place, of.from.keys[row], of.first_row + row, of.from.rows[row]);
    listed += num;
  }
}

// ---- counts of keys that are not stored --------------------------------------------------------------------------------

// Sets counts, one after the other in each bucket, in the order of the call. The batch is sorted by bucket: high has buckets.
__global__ void __launch_bounds__(kOfBucket) assign_counts(Table table, Batch batch, const int64_t* counts) {
  DLRM_SHARED(memory);
  Scratch* const scratch = reinterpret_cast<Scratch*>(memory);
  const uint32_t bucket = blockIdx.x;
  const Bucket of = bucket_at(table.counted, bucket);
  const auto first_of = [&](uint32_t number) {
    if (batch.high[0] >= number) return int64_t{0};
    return 1 + last_that(batch.count, [&](int64_t place) { return batch.high[place] < number; });
  };
  const int64_t last = first_of(bucket + 1);
  for (int64_t place = first_of(bucket); place < last; ++place) {
    const int64_t key = batch.key_at(place), count = counts[batch.order[place]];
    const uint64_t hash = hash_of(key);
    if (count < 0) {
      if (threadIdx.x == 0) complain(batch.outcome, key);
      continue;
    }
    const bool is_full = of.num_free() == 0 && find(of, key, hash) < 0;
    __syncthreads();  // all have seen this
    if (is_full) forget_lowest(scratch, of);
    if (threadIdx.x == 0) set_count(of, key, hash, count);
    __syncthreads();
  }
}

}  // namespace table
