// CUB's radix sort: only the digits that the largest row has, and no memory but the second half of rows and values.
#include "sort_cuda.h"

#include <cub/device/device_radix_sort.cuh>

namespace {

int sort(void* memory, size_t* bytes, cub::DoubleBuffer<uint32_t>* rows, cub::DoubleBuffer<uint32_t>* values,
         int64_t count, int bits, void* stream) {
  return static_cast<int>(cub::DeviceRadixSort::SortPairs(memory, *bytes, *rows, *values, static_cast<uint32_t>(count), 0,
                                                          bits, static_cast<cudaStream_t>(stream)));
}

}  // namespace

namespace rows {

int sort_bytes(int64_t count, int bits, int64_t* bytes) {
  cub::DoubleBuffer<uint32_t> none;
  size_t needed = 0;
  const int error = sort(nullptr, &needed, &none, &none, count, bits, nullptr);
  *bytes = static_cast<int64_t>(needed);
  return error;
}

int sort_by_row(void* memory, int64_t bytes, uint32_t* const (&rows)[2], uint32_t* const (&values)[2], int64_t count,
                int bits, int* sorted, void* stream) {
  cub::DoubleBuffer<uint32_t> both_rows(rows[0], rows[1]), both_values(values[0], values[1]);
  size_t given = static_cast<size_t>(bytes);
  const int error = sort(memory, &given, &both_rows, &both_values, count, bits, stream);
  *sorted = both_rows.selector;
  return error;
}

}  // namespace rows
