// The hash table of a dynamic table behind a C interface: key -> row of the table.
//
// The table has num_buckets * rows_per_bucket rows, and bucket b the rows from b * rows_per_bucket on. A key belongs to one
// bucket (key_hash.h). An index has the keys of the buckets first_bucket .. last_bucket - 1. Whatever decides about a key
// happens in its bucket, new keys are taken in the order of their hashes, and one thread at a time works on a bucket: so
// the same calls store the same, for any order of the keys in a call, any number of threads, and for one index of all
// buckets as for several of some.
//
// Keys are any numbers. In every call `keys` is [count], and a key may occur several times. Rows are rows of the table,
// -1 where a key is not stored. Weights and the state of an optimizer lie elsewhere.
//
// Calls that change an index, and calls that list, need it alone; finds may run at the same time as each other.
#pragma once

#include "kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

// Where the score of a key comes from. The key with the lowest score, then the lowest hash, is evicted first.
enum {
  DLRM_SCORE_TIMESTAMP = 0,   // given in each call: the time
  DLRM_SCORE_STEP = 1,        // the step of the last touch
  DLRM_SCORE_LFU = 2,         // how often the key occurred since it was stored
  DLRM_SCORE_CUSTOM = 3,      // given in each call; of equal keys in a call the highest
  DLRM_SCORE_NO_EVICTION = 4  // 0: a full bucket takes no new keys
};

// How keys that are not stored yet are counted.
enum {
  DLRM_COUNT_EXACT = 0,  // `counter_size` keys at most, over all buckets; the lowest count, then hash, is forgotten first
  DLRM_COUNT_SKETCH = 1  // a count-min sketch of `counter_size` bytes, over all buckets, with conservative update
};

typedef struct {
  int64_t num_buckets, rows_per_bucket;
  int64_t first_bucket, last_bucket;
} DlrmIndexBuckets;

typedef struct {
  int score;                 // one of DLRM_SCORE_...
  int64_t admit_after;       // a key is stored when it occurred so often; 1 for at once
  double admit_probability;  // and with this probability in each call, a function of seed, key and step; 1 for always
  int counter;               // one of DLRM_COUNT_..., where admit_after is above 1
  int64_t counter_size;
  uint64_t seed;
  int log_erased;  // whether the keys that are evicted, expired or erased are noted
} DlrmIndexRules;

// Of all calls so far. Occurrences of keys: found, missed. Keys: the others, each once a call.
typedef struct {
  int64_t inserted, admitted, refused, evicted, expired, erased, not_insertable, found, missed;
} DlrmIndexCounters;

// Returns null where a number is out of range, or where there is no memory. Memory of about 48 bytes a row is taken from
// the system as rows are used.
void* dlrm_index_new(const DlrmIndexBuckets* buckets, const DlrmIndexRules* rules);
void dlrm_index_delete(void* index);

// The row of each key. Changes nothing but the counters. Callable from many threads. Returns DLRM_BAD_ID, and which, for a
// key of another index's bucket; so do the following calls, which then have changed nothing.
int dlrm_index_find(const void* index, const int64_t* keys, int64_t count, int64_t* rows, int64_t* bad_key);

// Scores of a call: the score of key i is scores[i * stride]; a stride of 0 is one score for all.
typedef struct {
  const int64_t* scores;
  int64_t stride;
} DlrmScores;

// How many keys a call has listed.
typedef struct {
  int64_t fresh, evicted;
} DlrmIndexChanges;

// The row of each key, which is stored if it is not, as the rules say. Touches these keys: their step becomes `step`, from
// 0 to 2^32 - 1, and their score as the rules say. A row that the call touches is not evicted in it: where a bucket has no
// other, a key has no row. num_threads: how many threads parallel_for has.
int dlrm_index_find_or_insert(void* index, const int64_t* keys, int64_t count, int64_t step, DlrmScores scores,
                              int64_t* rows, DlrmParallelFor parallel_for, void* threads, int64_t num_threads,
                              DlrmIndexChanges* changes, int64_t* bad_key);

// What the last find_or_insert did: `rows` [fresh] and `keys` [fresh] that it stored, in the order of their hashes.
void dlrm_index_fresh(const void* index, int64_t* rows, int64_t* keys);

// What the last call listed; null for what is not wanted. After find_or_insert: the evicted keys, the rows that they had,
// their scores and steps.
void dlrm_index_listed(const void* index, int64_t* keys, int64_t* rows, int64_t* scores, int64_t* steps);

// Stores keys with these scores and steps, [count] each, whether they are stored already or not, and without admission. Of
// equal keys the last one counts. A full bucket keeps the keys with the highest (score, hash): so what is stored does not
// depend on how a checkpoint is divided into calls. rows: as they are when the call returns.
int dlrm_index_assign(void* index, const int64_t* keys, int64_t count, const int64_t* scores, const int64_t* steps,
                      int64_t* rows, DlrmParallelFor parallel_for, void* threads, int64_t num_threads,
                      int64_t* bad_key);

// was_stored [count]: 1 where the call erased the key; of equal keys the first.
int dlrm_index_erase(void* index, const int64_t* keys, int64_t count, unsigned char* was_stored,
                     DlrmParallelFor parallel_for, void* threads, int64_t num_threads, int64_t* bad_key);

// Erases every key whose step is below `before_step`, and lists it. Returns how many.
int64_t dlrm_index_expire(void* index, int64_t before_step, DlrmParallelFor parallel_for, void* threads);

// Forgets all keys, the counts of keys that are not stored, and the log. The counters stay. DLRM_NO_MEMORY: the index
// cannot be used any more.
int dlrm_index_clear(void* index);

int64_t dlrm_index_size(const void* index);
void dlrm_index_counters(const void* index, DlrmIndexCounters* counters);

// Lists what is stored in the table's rows first_row .. first_row + num_rows - 1, in this order. Returns how many keys.
int64_t dlrm_index_export(void* index, int64_t first_row, int64_t num_rows);

// Lists how often keys that are not stored have occurred, as (key, score). For a sketch, the "keys" are the numbers of its
// cells in the whole table's sketch, without the cells of 0. Returns how many.
int64_t dlrm_index_export_counts(void* index);

// Takes such counts; what belongs to buckets of other indexes is left out. DLRM_BAD_ID: a count below 0 or, in a sketch,
// above 65535, or a cell that it does not have.
int dlrm_index_assign_counts(void* index, const int64_t* keys, int64_t count, const int64_t* counts, int64_t* bad_key);

// Lists the keys that were evicted, expired or erased in step since_step or later, with this step; they may be stored again
// by now. Keys are expired and erased in the highest step of any find_or_insert before. Returns how many.
int64_t dlrm_index_erased(void* index, int64_t since_step);

// Takes the keys of steps before `before_step` out of the log.
void dlrm_index_trim_erased(void* index, int64_t before_step);

// ---- initial values --------------------------------------------------------------------------------------------------

enum { DLRM_CONSTANT = 0, DLRM_UNIFORM = 1, DLRM_NORMAL = 2, DLRM_TRUNCATED_NORMAL = 3 };

// The first values of the row of a key, a function of seed, key and column. uniform: from low_or_mean up to high_or_std.
// truncated_normal: within 2 standard deviations of the mean. Formulas: initial_rows.cc.
typedef struct {
  int kind;
  float low_or_mean, high_or_std;
  uint64_t seed;
} DlrmInitializer;

// Where they go: rows of weights [.., width] of weights_type (bfloat16: the nearest, ties to even), and their optimizer
// state: slots[i] [.., slot_widths[i]], filled with state[i].
typedef struct {
  void* weights;
  int weights_type;  // DLRM_FLOAT32 or DLRM_BFLOAT16
  int64_t width;
  int64_t num_slots;
  float* const* slots;
  const int64_t* slot_widths;
  const float* state;
} DlrmInitialRows;

// Writes rows[i], of key keys[i], for each i below `count`. Callable from many threads, on different rows.
int dlrm_initialize_rows(const DlrmInitialRows* to, const DlrmInitializer* initializer, const int64_t* rows,
                         const int64_t* keys, int64_t count);

#ifdef __cplusplus
}
#endif
