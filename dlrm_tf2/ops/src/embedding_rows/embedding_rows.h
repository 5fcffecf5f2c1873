// The embedding rows' kernels behind a C interface: ids -> pooled vectors, and gradients of vectors -> updated rows and
// gradients of the ids' weights.
//
// A *slab* is a matrix of rows: the shards of one rank that have the same width, one below the other. A *bag* is the ids
// of one sample for one piece of the result; its *vector* is the sum of factor * row over its ids. The factor of an id is
// its weight, or 1; for a mean it is the weight over the sum of the bag's weights. The vector of an empty bag is zeros.
//
// Sums are float32 in every type. Products and sums are rounded one by one, in the order of the ids. So the same call
// gives the same bits for any number of threads, and with every instruction set.
#pragma once

#include "kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { DLRM_INT32 = 0, DLRM_INT64 = 1 };

// Rows of a slab that belong to one table: what the rounding of 16-bit weights depends on, so that it does not depend on
// where a row lies.
typedef struct {
  int64_t first_row;     // of the slab; the shards of a slab lie in this order
  int64_t table_row;     // the table's row that lies there
  int64_t table_column;  // the table's column that is column 0 of the slab
  uint64_t key;          // made of the seed and the table's name
} DlrmShard;

typedef struct {
  void* weights;    // [num_rows, width] of weights_type
  float* slots[2];  // adagrad: [num_rows, width]; rowwise_adagrad: [num_rows]; adam: two of [num_rows, width]
  int64_t num_rows, width;
  int weights_type;         // DLRM_FLOAT32 or DLRM_BFLOAT16
  const DlrmShard* shards;  // read in updates of bfloat16 weights only
  int64_t num_shards;
} DlrmSlab;

// The bags of one piece, one for each sample, and where their vectors are.
typedef struct {
  int64_t slab;                // number of the slab
  int64_t first_row;           // id i is row first_row + i of the slab; may be negative
  int64_t num_ids;             // ids of the table: 0 .. num_ids - 1
  int64_t first_id, last_id;   // ids first_id .. last_id - 1 are in this shard; the others count as rows of zeros
  const void* ids;             // of ids_type
  int ids_type;                // DLRM_INT32 or DLRM_INT64
  int64_t hotness;             // ids of each sample; -1 for any number
  int64_t sample_stride;       // fixed hotness: the ids of sample s start at ids + s * sample_stride
  const int64_t* row_splits;   // any number: [samples + 1], the ids of sample s are ids[row_splits[s] .. row_splits[s + 1])
  const float* weights;        // weights of the ids, bag after bag without gaps; null for 1
  int mean;                    // whether factors are divided by the sum of the bag's weights
  void* vectors;               // of vectors_type: the vector of sample s starts at element s * vector_stride
  int64_t vector_stride;       // in elements
  int64_t num_samples;
  int64_t all_ids;             // any number: row_splits[num_samples], for CUDA, whose row_splits the host cannot read
} DlrmBags;

// An id that is not 0 .. num_ids - 1.
typedef struct {
  int64_t bags, sample, id;
} DlrmBadId;

// Pools samples first .. last - 1 of all bags: writes their vectors. Callable from many threads, on disjoint ranges.
// Returns DLRM_BAD_ID, and which one, for an id that the table does not have; vectors may then be half written.
// vectors_type: any element type. instruction_set: one of kernels.h that the processor has, or -1 for the chosen one.
int dlrm_embedding_lookup_cpu(const DlrmSlab* slabs, int64_t num_slabs, const DlrmBags* bags, int64_t num_bags,
                              int64_t first, int64_t last, int vectors_type, int instruction_set, DlrmBadId* bad_id);

// Backward to the weights of ids: `vectors` of the bags are gradients, which are only read. Adds to gradients[i], at the
// places of bags[i].weights, the gradients of these weights: g . row for a sum, and (g . row - g . vector) / total for a
// mean of this total weight; nothing where it is 0. Every dot is summed in one order (dot_kernels.h). Ids of other shards
// count as rows of zeros, so that the gradients of all shards add up. Bags without weights are left out. Samples and
// threads as in a lookup; one array may be the gradients of several bags.
int dlrm_embedding_weight_gradient_cpu(const DlrmSlab* slabs, int64_t num_slabs, const DlrmBags* bags,
                                       int64_t num_bags, int64_t first, int64_t last, int vectors_type,
                                       int instruction_set, float* const* gradients, DlrmBadId* bad_id);

enum { DLRM_SGD = 0, DLRM_ADAGRAD = 1, DLRM_ROWWISE_ADAGRAD = 2, DLRM_ADAM = 3 };

// One step of an optimizer; the formulas are in dlrm_tf2/optim.py.
typedef struct {
  int kind;  // one of the above
  float learning_rate, epsilon;
  double beta1, beta2;
  int64_t step;  // from 1 on
} DlrmOptimizer;

// Memory that updates use and keep: 4 bytes for each id of the largest update, for each thread 16 bytes for each id of the
// largest table, and where vectors are narrower than 128 bytes a copy of this table's vectors. One update at a time.
void* dlrm_embedding_workspace_new(void);
void dlrm_embedding_workspace_delete(void* workspace);

// Backward and optimizer in one pass: `vectors` of the bags are gradients, which are only read. The gradient of a row is
// the sum of factor * gradient over its occurrences, in the order of the bags, samples and ids: 256 occurrences after
// each other, then these sums after each other. Each row that occurs is read and written once, with its state.
// num_threads: how many threads parallel_for has; work is divided accordingly, and the bits are the same for any number.
// finite: becomes 0 if an updated weight or its state is not finite, else 1.
int dlrm_embedding_update_cpu(const DlrmSlab* slabs, int64_t num_slabs, const DlrmBags* bags, int64_t num_bags,
                              const DlrmOptimizer* optimizer, int vectors_type, int instruction_set, void* workspace,
                              DlrmParallelFor parallel_for, void* threads, int64_t num_threads, int* finite,
                              DlrmBadId* bad_id);

// The same sums without an optimizer: the rows of one slab that occur, each with the sum of its gradients, for other
// ranks. `num_rows` becomes how many there are; they stay in the workspace until its next use.
int dlrm_embedding_sum_cpu(const DlrmSlab* slab, const DlrmBags* bags, int64_t num_bags, int vectors_type,
                           int instruction_set, void* workspace, DlrmParallelFor parallel_for, void* threads,
                           int64_t num_threads, int64_t* num_rows, DlrmBadId* bad_id);

// Copies them into rows [num_rows] and sums [num_rows, width].
void dlrm_embedding_sums(const void* workspace, int64_t* rows, float* sums);

// ---- CUDA ------------------------------------------------------------------------------------------------------------
//
// The same slabs and bags, in the same order, with the same bits. Weights, slots, ids, row_splits, weights of ids, vectors
// and what is named below lie in the memory of the current GPU; the arrays of slabs, bags and shards and the optimizer lie
// in the host's, and may be changed when the call returns. Everything is queued on `stream` (a cudaStream_t): no call
// waits for the GPU, or makes the GPU wait for the host. Returns DLRM_OK, or why nothing, or not everything, was queued.

// What the kernels found, in the GPU's memory. They set it, and only dlrm_embedding_check_cuda clears a part of it:
// whoever has filled it with zeros may read it after one step or after many.
typedef struct {
  int32_t found_bad_id;  // one of the numbers below
  int32_t not_finite;    // 1: an updated weight or its state is not finite
  DlrmBadId bad_id;      // one of them
} DlrmCudaStatus;

// Values of found_bad_id. DLRM_FOUND_ID: an id that its table does not have counted as a row of zeros, and was not
// updated. DLRM_FOUND_LENGTH: a length is negative (bad_id: sample, length) and counted as 0, or the lengths add up to
// another number of ids (bad_id: sample -1, the sum).
enum { DLRM_FOUND_ID = 1, DLRM_FOUND_LENGTH = 2 };

// Bytes of memory that a call with these arguments needs on the GPU until it has run: at any address that is a multiple
// of 256, with any content. It must not be used by another stream meanwhile.
int dlrm_embedding_lookup_cuda_bytes(const DlrmSlab* slabs, int64_t num_slabs, const DlrmBags* bags, int64_t num_bags,
                                     int64_t* bytes);
int dlrm_embedding_update_cuda_bytes(const DlrmSlab* slabs, int64_t num_slabs, const DlrmBags* bags, int64_t num_bags,
                                     int64_t* bytes);

// All samples of all bags: one launch for each slab.
int dlrm_embedding_lookup_cuda(const DlrmSlab* slabs, int64_t num_slabs, const DlrmBags* bags, int64_t num_bags,
                               int vectors_type, void* memory, int64_t bytes, DlrmCudaStatus* status, void* stream);

// Backward and optimizer in one pass, slab after slab.
int dlrm_embedding_update_cuda(const DlrmSlab* slabs, int64_t num_slabs, const DlrmBags* bags, int64_t num_bags,
                               const DlrmOptimizer* optimizer, int vectors_type, void* memory, int64_t bytes,
                               DlrmCudaStatus* status, void* stream);

// The same sums without an optimizer, in two calls with the same memory, as much as an update of the slab needs. The first
// call finds the rows that occur; num_rows, in the GPU's memory, becomes how many there are. The second call writes them,
// each once and in any order, into rows [num_rows], and their sums into sums [num_rows, width]. Of the slab only the shape
// is read.
int dlrm_embedding_sum_cuda(const DlrmSlab* slab, const DlrmBags* bags, int64_t num_bags, void* memory, int64_t bytes,
                            int64_t* num_rows, DlrmCudaStatus* status, void* stream);
int dlrm_embedding_sums_cuda(const DlrmSlab* slab, const DlrmBags* bags, int64_t num_bags, int vectors_type,
                             void* memory, int64_t bytes, int64_t* rows, float* sums, void* stream);

// row_splits [num_samples + 1] from the lengths of the samples, none above num_ids. A wrong length is noted as one of
// bags number `bags`.
int dlrm_embedding_row_splits_cuda(const int32_t* lengths, int64_t num_samples, int64_t num_ids, int64_t bags,
                                   int64_t* row_splits, DlrmCudaStatus* status, void* stream);

// check, in the GPU's memory, becomes NaN where the status says that a number is not finite, and the status no longer
// says so; else 0.
int dlrm_embedding_check_cuda(DlrmCudaStatus* status, float* check, void* stream);

// A copy from anywhere to anywhere, and zeros in the GPU's memory.
int dlrm_cuda_copy(void* to, const void* from, int64_t bytes, void* stream);
int dlrm_cuda_zeros(void* to, int64_t bytes, void* stream);

// The one call that waits: until everything on the stream is done.
int dlrm_cuda_wait(void* stream);

#ifdef __cplusplus
}
#endif
