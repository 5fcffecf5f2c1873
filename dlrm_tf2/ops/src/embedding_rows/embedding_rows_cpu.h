// Between the drivers (lookup_cpu.cc, weight_gradient_cpu.cc, update_cpu.cc) and the kernels, one translation unit per
// instruction set.
#pragma once

#include <stdint.h>

#include "embedding_rows.h"

namespace dlrm {

// Some bags of one piece, with their rows found.
struct PoolBlock {
  const char* const* rows;  // the rows of all bags
  const float* factors;     // of each row; null for 1
  const int64_t* counts;    // rows of each bag; null where every bag has `count`
  int64_t count;
  int64_t num_bags;
  char* to;           // the vector of bag 0
  int64_t to_stride;  // bytes to the next bag's
  int64_t width;
  bool stream;  // write past the caches, which the vectors of a large batch do not fit; whole cache lines only
};

// Where the gradients of a task's rows are. A *place* names a vector: number of its bags << shift | sample.
struct Gradients {
  const char* const* bases;  // by bags: the vector of sample 0
  const int64_t* strides;    // by bags: bytes to the next sample's
  const float* factors;      // by bags; or, with `places`, by occurrence. null for 1
  const uint32_t* places;    // by occurrence: its place; null where occurrences are places themselves
  int shift;
  uint32_t mask;
};

// A step of an optimizer on the rows of one slab, with what it needs ready.
struct RowUpdate {
  char* weights;
  float* slots[2];
  int64_t width, slot_width;
  int64_t first_row;  // row r of a task is row first_row + r
  int weights_type;
  const DlrmShard* shards;
  int64_t num_shards;
  uint64_t step;
  float learning_rate, epsilon, beta1, beta2, rest1, rest2;  // rest = 1 - beta
  float correction1, correction2;                            // 1 - beta**step
};

constexpr int64_t kChunk = 256;  // occurrences of a row that are summed one after the other

// Sums of the rows of a small table, while their gradients arrive in any order.
struct RowSums {
  uint32_t* counts;  // [rows]
  float* chunks;     // [rows, width]: of the last up to kChunk occurrences of each row
  float* totals;     // [rows, width]: of the whole chunks before them
};

// Sums the gradients of up to kChunk occurrences into sum[width].
using SumChunk = void (*)(const Gradients& gradients, const uint64_t* pairs, int64_t count, int64_t width, float* sum);

// Updates one row by the gradient sum[width]. Returns 0, or NaN when the new numbers are not finite.
using ApplyRow = float (*)(const RowUpdate& update, int64_t row, const float* sum);

struct RowKernels {
  void (*pool[2][3])(const PoolBlock& block);  // by type of the weights (0: float32, 1: bfloat16), type of the vectors
  // to[i] = dot of row i and the vector, both of `width`. By the same types.
  void (*dots[2][3])(const char* vector, const char* const* rows, int64_t count, int64_t width, float* to);
  SumChunk sum[3];                             // by type of the gradients
  ApplyRow apply[2][4];                        // by type of the weights, optimizer
  // Adds the gradients of pairs in any order to the sums of their rows. `counts` [rows] starts at 0, and becomes how often
  // each row occurred; then add_up gives its sum.
  void (*accumulate[3])(const Gradients& gradients, const uint64_t* pairs, int64_t count, int64_t width,
                        const RowSums& sums);
  // Updates all rows of sorted pairs (row << 32 | occurrence), runs of one row after each other. `scratch`: 2 vectors.
  float (*update[3])(const Gradients& gradients, const RowUpdate& update, ApplyRow apply, const uint64_t* pairs,
                     int64_t count, float* scratch);
};

extern const RowKernels kRowsScalar;
#ifdef DLRM_X86
extern const RowKernels kRowsAvx2;
extern const RowKernels kRowsAvx512;
#endif

// The kernels of an instruction set, -1 for the chosen one; null where the processor does not have it.
const RowKernels* row_kernels(int instruction_set);

// The sum of a bag's weights, in order; `weights` null for 1 each.
static inline float total_weight(const float* weights, int64_t count) {
  if (weights == nullptr) return static_cast<float>(count);
  float total = 0;
  for (int64_t i = 0; i < count; ++i) total += weights[i];
  return total;
}

// Weight over total, 0 where the total is 0.
static inline float factor_of(const float* weights, int64_t i, float total) {
  const float weight = weights == nullptr ? 1 : weights[i];
  return total == 0 ? 0 : weight / total;
}

static inline int64_t element_bytes(int element_type) { return element_type == DLRM_FLOAT32 ? 4 : 2; }

// Whether every number of slabs and bags is in its range.
bool good_arguments(const DlrmSlab* slabs, int64_t num_slabs, const DlrmBags* bags, int64_t num_bags, int vectors_type);

}  // namespace dlrm
