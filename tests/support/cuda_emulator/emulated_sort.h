// In place of sort_cuda.cu, for the processor.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "embedding_rows/sort_cuda.h"

namespace rows {

// In place of CUB's sort. Like it, it leaves the result in either half.
inline int sort_bytes(int64_t count, int, int64_t* bytes) {
  *bytes = 8 * count;
  return 0;
}

inline int sort_by_row(void* memory, int64_t bytes, uint32_t* const (&rows)[2], uint32_t* const (&values)[2], int64_t count,
                int bits, int* sorted, void*) {
  must(bytes >= 8 * count, "too little memory for the sort");
  const uint32_t mask = static_cast<uint32_t>((uint64_t{1} << bits) - 1);  // bits above are not looked at
  int64_t* const order = static_cast<int64_t*>(memory);
  std::iota(order, order + count, 0);
  std::stable_sort(order, order + count, [&](int64_t a, int64_t b) { return (rows[0][a] & mask) < (rows[0][b] & mask); });
  for (int64_t i = 0; i < count; ++i) {
    rows[1][i] = rows[0][order[i]];
    values[1][i] = values[0][order[i]];
  }
  *sorted = bits % 2;
  std::vector<uint32_t> free(static_cast<size_t>(count), 0xffffffffu);
  if (*sorted == 0) {
    std::copy(rows[1], rows[1] + count, rows[0]);
    std::copy(values[1], values[1] + count, values[0]);
  }
  std::copy(free.begin(), free.end(), rows[1 - *sorted]);
  std::copy(free.begin(), free.end(), values[1 - *sorted]);
  return 0;
}

}  // namespace rows
