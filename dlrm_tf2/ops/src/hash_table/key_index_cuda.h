// The hash table of key_index.h in a GPU's memory, behind a C interface. The same calls store the same as on the CPU: the
// same keys, scores and steps in the same rows, evicted and counted alike, for any order in which the GPU's threads run.
//
// All calls queue kernels on a stream, and none waits. Addresses are of the GPU's memory, but for the structs themselves.
// The state is all in `memory`, so a CUDA graph may capture the calls; step and before_step are then the same in every replay.
//
// In every call `keys` is [count], below 2^31. A key of another index's bucket counts as missing, has row -1, is not
// stored, and is noted in the outcome. rules.log_erased is not read: who calls may keep the lists of evicted keys.
#pragma once

#include "key_index.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
  DlrmIndexBuckets buckets;
  DlrmIndexRules rules;
  void* memory;  // dlrm_index_cuda_bytes bytes at a multiple of 256
} DlrmCudaIndex;

// What a call found, in the GPU's memory; each call begins by filling it with zeros.
typedef struct {
  DlrmIndexChanges changes;  // of find_or_insert
  int64_t listed;            // of the calls that count
  int64_t num_bad;           // keys of buckets that are not here, or counts that are out of range
  int64_t bad_key;           // one of them
} DlrmIndexOutcome;

// What every call needs besides its arguments. memory: dlrm_index_cuda_call_bytes bytes at a multiple of 256, of any
// content; other streams must not use them until the call has run.
typedef struct {
  void* memory;
  int64_t bytes;
  DlrmIndexOutcome* outcome;
  void* stream;
} DlrmCudaCall;

// Bytes of an index, of about 47 a row, and of a call with `count` keys, of about 100 a key. `memory` is not read.
// DLRM_BAD_ARGUMENT where a number is out of range; DLRM_TOO_LARGE above 2^31 rows in a bucket, 2^32 in all, or
// 65,536 buckets.
int dlrm_index_cuda_bytes(const DlrmCudaIndex* index, int64_t* bytes);
int dlrm_index_cuda_call_bytes(const DlrmCudaIndex* index, int64_t count, int64_t* bytes);

// An empty index with counters of 0, in memory of any content.
int dlrm_index_make_cuda(const DlrmCudaIndex* index, void* stream);

// Forgets all keys and the counts of keys that are not stored. The counters stay.
int dlrm_index_clear_cuda(const DlrmCudaIndex* index, void* stream);

int dlrm_index_find_cuda(const DlrmCudaIndex* index, const int64_t* keys, int64_t count, int64_t* rows,
                         const DlrmCudaCall* call);

// scores.scores: in the GPU's memory. The lists follow with the same memory of the call, when outcome.changes says how
// long they are: in the same order as on the CPU. Any of their addresses may be null.
int dlrm_index_find_or_insert_cuda(const DlrmCudaIndex* index, const int64_t* keys, int64_t count, int64_t step,
                                   DlrmScores scores, int64_t* rows, const DlrmCudaCall* call);
int dlrm_index_fresh_cuda(const DlrmCudaIndex* index, const int64_t* keys, int64_t count, int64_t* fresh_rows,
                          int64_t* fresh_keys, const DlrmCudaCall* call);
int dlrm_index_evicted_cuda(const DlrmCudaIndex* index, int64_t count, int64_t* const lists[4],
                            const DlrmCudaCall* call);  // keys, rows, scores, steps

// The key of a step that is not from 0 to 2^32 - 1 is noted; the step's lower 32 bits count.
int dlrm_index_assign_cuda(const DlrmCudaIndex* index, const int64_t* keys, int64_t count, const int64_t* scores,
                           const int64_t* steps, int64_t* rows, const DlrmCudaCall* call);

int dlrm_index_erase_cuda(const DlrmCudaIndex* index, const int64_t* keys, int64_t count, unsigned char* was_stored,
                          const DlrmCudaCall* call);

// Stored keys in the table's rows first_row .. first_row + num_rows - 1 that were touched last before a step; INT64_MAX for
// all. of_counter: of the exact counter, whose rows are numbered from 0, in place of the index.
typedef struct {
  int64_t first_row, num_rows, before_step;
  int of_counter;
} DlrmIndexSelection;

// outcome.listed becomes how many are selected; then `list` writes keys, rows, scores and steps of them in the order of the
// rows, with the same memory of the call. Bytes of the call: as for `count` = 0 keys.
int dlrm_index_count_cuda(const DlrmCudaIndex* index, DlrmIndexSelection of, const DlrmCudaCall* call);
int dlrm_index_list_cuda(const DlrmCudaIndex* index, DlrmIndexSelection of, int64_t* const lists[4],
                         const DlrmCudaCall* call);

// Erases every key whose step is below `before_step`; outcome.listed becomes how many. List them before.
int dlrm_index_expire_cuda(const DlrmCudaIndex* index, int64_t before_step, const DlrmCudaCall* call);

// One number, and the fields of DlrmIndexCounters.
int dlrm_index_size_cuda(const DlrmCudaIndex* index, int64_t* size, void* stream);
int dlrm_index_counters_cuda(const DlrmCudaIndex* index, int64_t* counters, void* stream);

// The cells of a sketch of the buckets that are here, one after the other: [cells] of 16 bits in the index's memory. Null
// and 0 where there is no sketch. The sketch of the whole table has them from number first_cell on.
int dlrm_index_sketch_cuda(const DlrmCudaIndex* index, uint16_t** cells, int64_t* num_cells, int64_t* first_cell);

// Takes counts of an exact counter; keys of buckets of other indexes are left out. Counts below 0 are noted and left out.
int dlrm_index_assign_counts_cuda(const DlrmCudaIndex* index, const int64_t* keys, int64_t count, const int64_t* counts,
                                  const DlrmCudaCall* call);

// The bucket of each key, of a table with num_buckets.
int dlrm_bucket_of_cuda(const int64_t* keys, int64_t count, int64_t num_buckets, int32_t* buckets, void* stream);

// As dlrm_initialize_rows, with all addresses and the arrays `rows` and `keys` in the GPU's memory. Rows that are not from
// 0 to num_rows - 1 are noted in the outcome with their number and left out.
int dlrm_initialize_rows_cuda(const DlrmInitialRows* to, const DlrmInitializer* initializer, const int64_t* rows,
                              const int64_t* keys, int64_t count, int64_t num_rows, DlrmIndexOutcome* outcome,
                              void* stream);

#ifdef __cplusplus
}
#endif
