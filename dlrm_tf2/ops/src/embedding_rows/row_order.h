// Occurrences in the order of their rows.
#pragma once

#include <utility>
#include <vector>

#include "occurrences.h"

namespace dlrm {

// What a task needs while it runs.
struct Scratch {
  Buffer<uint64_t> pairs, other;
  Buffer<char> vectors;
  Buffer<float> sums;
  std::vector<uint32_t> counts;
};

// Sorts the occurrences of a task by row into scratch->pairs, as row << 32 | occurrence: a radix sort, the least
// significant digit first, whose first pass reads the rows where they were found. Returns false where memory is missing.
inline bool sort_by_row(const Occurrences& occurrences, const Task& task, Scratch* scratch, int64_t* num_pairs) {
  const int64_t num_rows = occurrences.group_of(task).num_rows;
  int bits = 1;
  while (int64_t{1} << bits < num_rows) ++bits;
  const int passes = (bits + 10) / 11, digit = (bits + passes - 1) / passes;
  const uint32_t mask = (1u << digit) - 1;
  std::vector<uint32_t>& histograms = scratch->counts;
  histograms.assign(static_cast<size_t>(passes) << digit, 0);
  int64_t count = 0;
  occurrences.for_each(task, [&](uint32_t row, uint32_t) {
    for (int pass = 0; pass < passes; ++pass) {
      ++histograms[(static_cast<size_t>(pass) << digit) + (row >> pass * digit & mask)];
    }
    ++count;
  });
  *num_pairs = count;
  uint64_t* from = scratch->other.take(passes > 1 ? count : 0);
  uint64_t* to = scratch->pairs.take(count);
  if (count > 0 && (to == nullptr || (passes > 1 && from == nullptr))) return false;
  if (passes % 2 == 0) std::swap(from, to);  // so that the last pass ends in scratch->pairs
  for (int pass = 0; pass < passes; ++pass) {
    uint32_t* const place = histograms.data() + (static_cast<size_t>(pass) << digit);
    uint32_t sum = 0;
    for (uint32_t value = 0; value <= mask; ++value) sum += std::exchange(place[value], sum);
    const int shift = 32 + pass * digit;
    if (pass == 0) {
      occurrences.for_each(task, [&](uint32_t row, uint32_t occurrence) {
        to[place[row & mask]++] = static_cast<uint64_t>(row) << 32 | occurrence;
      });
    } else {
      for (int64_t i = 0; i < count; ++i) to[place[from[i] >> shift & mask]++] = from[i];
    }
    std::swap(from, to);
  }
  return true;
}

}  // namespace dlrm
