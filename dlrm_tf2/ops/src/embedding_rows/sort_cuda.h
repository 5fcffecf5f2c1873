// The one sort of an update on a GPU, apart from the rest because CUB takes long to compile.
#pragma once

#include <stdint.h>

namespace rows {

// Both functions return a cudaError_t.

// The memory that sort_by_row needs for itself.
int sort_bytes(int64_t count, int bits, int64_t* bytes);

// Sorts `count` < 2**31 values by their row, rows and values at [0] to begin with, keeping the order of equal rows.
// bits: of the largest row. sorted: becomes 0 or 1, where rows and values are; the other ones are free then.
int sort_by_row(void* memory, int64_t bytes, uint32_t* const (&rows)[2], uint32_t* const (&values)[2], int64_t count,
                int bits, int* sorted, void* stream);

}  // namespace rows
