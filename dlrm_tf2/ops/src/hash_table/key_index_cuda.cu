// The C interface of the hash table on a GPU: checks, memory, launches.
#include "key_index_cuda.h"

#include "call_cuda.h"

namespace {

using namespace table;

constexpr int64_t kMostBuckets = 65536, kMostRows = int64_t{1} << 32;

bool scores_are_given(const Table& table) {
  return table.rules.score == DLRM_SCORE_TIMESTAMP || table.rules.score == DLRM_SCORE_CUSTOM;
}

// The rows of an index, or of its exact counter.
Selected selected(const Table& table, const DlrmIndexSelection& of) {
  Selected rows = {table.stored, of.first_row, of.first_row + of.num_rows, 0, kRowsOfBlock, of.before_step};
  if (of.of_counter) {
    rows.from = table.counted;
  } else {
    rows.first_row = table.owned.first_bucket * table.owned.rows_per_bucket;
    rows.first -= rows.first_row;
    rows.last -= rows.first_row;
  }
  const int64_t num_rows = rows.from.num_buckets * rows.from.rows_of_bucket;
  rows.first = rows.first < 0 ? 0 : rows.first;
  rows.last = rows.last > num_rows ? num_rows : rows.last;
  return rows;
}

int64_t blocks_of(const Selected& of) { return of.first < of.last ? blocks_for(of.last - of.first, kRowsOfBlock) : 0; }

}  // namespace

extern "C" {

int dlrm_index_cuda_bytes(const DlrmCudaIndex* index, int64_t* bytes) {
  if (!good(*index)) return DLRM_BAD_ARGUMENT;
  const int64_t owned = index->buckets.last_bucket - index->buckets.first_bucket, rows = index->buckets.rows_per_bucket;
  const int64_t counted = index->rules.counter_size / index->buckets.num_buckets;
  if (owned > kMostBuckets || rows >= INT32_MAX || counted >= INT32_MAX) return DLRM_TOO_LARGE;
  if (owned * rows >= kMostRows || owned * counted >= kMostRows) return DLRM_TOO_LARGE;
  const DlrmCudaIndex nowhere = {index->buckets, index->rules, nullptr};
  table_of(nowhere, bytes);
  return DLRM_OK;
}

int dlrm_index_cuda_call_bytes(const DlrmCudaIndex* index, int64_t count, int64_t* bytes) {
  if (!good(*index) || count < 0) return DLRM_BAD_ARGUMENT;
  if (count >= int64_t{1} << 31) return DLRM_TOO_LARGE;
  int64_t of_table;
  const Parts parts(table_of(*index, &of_table), DlrmCudaCall{}, count);
  *bytes = parts.used;
  return code_of(parts.error);
}

int dlrm_index_make_cuda(const DlrmCudaIndex* index, void* stream) {
  int64_t bytes = 0;
  const int code = dlrm_index_cuda_bytes(index, &bytes);
  if (code != DLRM_OK) return code;
  if (!dlrm::fits(index->memory, 256)) return DLRM_BAD_ARGUMENT;
  return code_of(fill_with_zeros(index->memory, bytes, stream));
}

int dlrm_index_clear_cuda(const DlrmCudaIndex* index, void* stream) {
  int64_t bytes = 0;
  const Table table = table_of(*index, &bytes);
  char* const first = reinterpret_cast<char*>(table.stored.states);  // after the header
  const int64_t header = first - static_cast<char*>(index->memory);
  return code_of(fill_with_zeros(first, bytes - header, stream));
}

int dlrm_index_find_cuda(const DlrmCudaIndex* index, const int64_t* keys, int64_t count, int64_t* rows,
                         const DlrmCudaCall* of) {
  Call call(index, of, count);
  call.parts.batch.keys = keys;
  call.begin();
  call.by_key(find_keys, call.table, call.parts.batch, rows, true);
  return call.code;
}

int dlrm_index_find_or_insert_cuda(const DlrmCudaIndex* index, const int64_t* keys, int64_t count, int64_t step,
                                   DlrmScores scores, int64_t* rows, const DlrmCudaCall* of) {
  if (step < 0 || step > UINT32_MAX) return DLRM_BAD_ARGUMENT;
  Call call(index, of, count);
  Batch& batch = call.parts.batch;
  batch.keys = keys;
  batch.scores = scores;
  if (!scores_are_given(call.table) || scores.stride == 0) batch.best = nullptr;
  call.begin();
  call.sort();
  if (call.code == DLRM_OK) {
    call.code = code_of(launch(begin_call, 1, 1, 0, of->stream, call.table.header, static_cast<uint32_t>(step)));
  }
  call.by_key(find_runs, call.table, batch);
  if (batch.best != nullptr) call.by_key(find_best_scores, batch);
  call.by_key(touch_runs, call.table, batch, static_cast<uint32_t>(step));
  call.by_bucket(store_missing, call.table, batch, static_cast<uint32_t>(step));
  call.by_key(write_rows, call.table, batch, rows);
  return call.code;
}

int dlrm_index_fresh_cuda(const DlrmCudaIndex* index, const int64_t* keys, int64_t count, int64_t* fresh_rows,
                          int64_t* fresh_keys, const DlrmCudaCall* of) {
  Call call(index, of, count);
  call.parts.batch.keys = keys;
  if (count == 0) return call.code;
  call.use_order();
  call.by_bucket(list_fresh, call.table, call.parts.batch, Lists{fresh_keys, fresh_rows, nullptr, nullptr});
  return call.code;
}

int dlrm_index_evicted_cuda(const DlrmCudaIndex* index, int64_t count, int64_t* const lists[4], const DlrmCudaCall* of) {
  Call call(index, of, count);
  if (count == 0) return call.code;
  call.use_order();
  call.by_bucket(list_evicted, call.table, call.parts.batch, Lists{lists[0], lists[1], lists[2], lists[3]});
  return call.code;
}

int dlrm_index_assign_cuda(const DlrmCudaIndex* index, const int64_t* keys, int64_t count, const int64_t* scores,
                           const int64_t* steps, int64_t* rows, const DlrmCudaCall* of) {
  Call call(index, of, count);
  Batch& batch = call.parts.batch;
  batch.keys = keys;
  batch.scores = {scores, 1};
  batch.steps = steps;
  batch.best = nullptr;
  call.begin();
  call.sort();
  call.by_key(find_runs, call.table, batch);
  call.by_key(touch_runs, call.table, batch, 0u);
  if (count > 0) call.by_bucket(store_missing, call.table, batch, 0u);
  call.by_key(find_keys, call.table, batch, rows, false);  // a key that was found may have left since then
  return call.code;
}

int dlrm_index_erase_cuda(const DlrmCudaIndex* index, const int64_t* keys, int64_t count, unsigned char* was_stored,
                          const DlrmCudaCall* of) {
  Call call(index, of, count);
  call.parts.batch.keys = keys;
  call.parts.batch.best = nullptr;
  call.begin();
  if (count == 0 || call.code != DLRM_OK) return call.code;
  call.sort();
  call.by_key(find_runs, call.table, call.parts.batch);
  if (call.code == DLRM_OK) call.code = code_of(fill_with_zeros(was_stored, count, of->stream));
  call.by_bucket(erase_keys, call.table, call.parts.batch, was_stored);
  return call.code;
}

int dlrm_index_count_cuda(const DlrmCudaIndex* index, DlrmIndexSelection of, const DlrmCudaCall* arguments) {
  Call call(index, arguments, 0);
  const Selected rows = selected(call.table, of);
  call.begin();
  call.by_block(blocks_of(rows), count_rows, rows, call.parts.counts, arguments->outcome);
  return call.code;
}

int dlrm_index_list_cuda(const DlrmCudaIndex* index, DlrmIndexSelection of, int64_t* const lists[4],
                         const DlrmCudaCall* arguments) {
  Call call(index, arguments, 0);
  const Selected rows = selected(call.table, of);
  call.by_block(blocks_of(rows), list_rows, rows, call.parts.counts, Lists{lists[0], lists[1], lists[2], lists[3]});
  return call.code;
}

int dlrm_index_expire_cuda(const DlrmCudaIndex* index, int64_t before_step, const DlrmCudaCall* of) {
  Call call(index, of, 0);
  call.begin();
  call.by_bucket(expire_keys, call.table, before_step, of->outcome);
  return call.code;
}

int dlrm_index_size_cuda(const DlrmCudaIndex* index, int64_t* size, void* stream) {
  int64_t bytes;
  return code_of(launch(count_stored, 1, kOfBucket, kShared, stream, table_of(*index, &bytes), size));
}

int dlrm_index_counters_cuda(const DlrmCudaIndex* index, int64_t* counters, void* stream) {
  int64_t bytes;
  return code_of(copy_memory(counters, &table_of(*index, &bytes).header->counters, sizeof(DlrmIndexCounters), stream));
}

int dlrm_index_sketch_cuda(const DlrmCudaIndex* index, uint16_t** cells, int64_t* num_cells, int64_t* first_cell) {
  if (!good(*index)) return DLRM_BAD_ARGUMENT;
  int64_t bytes;
  const Table table = table_of(*index, &bytes);
  const int64_t of_bucket = kLines * table.cells_of_line;
  *cells = table.cells;
  *num_cells = table.stored.num_buckets * of_bucket;
  *first_cell = index->buckets.first_bucket * of_bucket;
  return DLRM_OK;
}

int dlrm_bucket_of_cuda(const int64_t* keys, int64_t count, int64_t num_buckets, int32_t* buckets, void* stream) {
  if (count == 0) return DLRM_OK;
  return code_of(
      launch(write_buckets, blocks_for(count, kThreads), kThreads, 0, stream, keys, count, num_buckets, buckets));
}

int dlrm_index_assign_counts_cuda(const DlrmCudaIndex* index, const int64_t* keys, int64_t count, const int64_t* counts,
                                  const DlrmCudaCall* of) {
  Call call(index, of, count);
  if (call.code == DLRM_OK && call.table.counted.num_buckets == 0 && count > 0) return DLRM_BAD_ARGUMENT;
  call.parts.batch.keys = keys;
  call.begin();
  if (count == 0) return call.code;
  call.sort_by_bucket();
  call.by_bucket(assign_counts, call.table, call.parts.batch, counts);
  return call.code;
}

}  // extern "C"
