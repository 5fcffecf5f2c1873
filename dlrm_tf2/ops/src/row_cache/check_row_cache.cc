// A program for the sanitizers: a million rows of random batches through caches of several sizes. Exit code 0 says that
// every row had the value that was written to it last, and that no sanitizer objected.
#include "row_cache.h"

#include <stdio.h>

#include <random>
#include <vector>

namespace {

// Returns whether a cache of `num_slots` slots keeps the values of `num_rows` rows.
bool check(int64_t num_rows, int64_t num_slots, int64_t batch) {
  dlrm::RowCache cache(num_rows, num_slots);
  if (!cache.has_memory()) return false;
  std::vector<int64_t> file(static_cast<size_t>(num_rows), 0), expected(file), slots(static_cast<size_t>(num_slots), -1);
  std::mt19937_64 random(static_cast<uint64_t>(num_rows + num_slots));
  std::vector<int64_t> rows(static_cast<size_t>(batch)), fresh, leaving;
  std::vector<dlrm::RowMove> moves;
  for (int64_t step = 1; step * batch <= 1000000; ++step) {
    for (int64_t& row : rows) {
      const auto drawn = static_cast<int64_t>(random() % static_cast<uint64_t>(num_rows));
      row = drawn * static_cast<int64_t>(random() % 1000) / 1000 - (drawn % 50 == 0);
    }
    const bool written = step % 3 != 0;
    fresh.clear();
    if (written && rows[0] >= 0) fresh.push_back(rows[0]);
    if (step % 4 == 0 && rows.back() >= 0 && cache.ask(rows.back())) cache.append_leaving(batch, &leaving);
    const int64_t different = cache.place(rows.data(), batch, fresh.data(), static_cast<int64_t>(fresh.size()), written, &moves);
    if (different > num_slots) continue;
    for (const dlrm::RowMove& move : moves) {
      int64_t& slot = slots[static_cast<size_t>(move.slot)];
      if (move.leaves >= 0) file[static_cast<size_t>(move.leaves)] = slot;
      slot = move.comes >= 0 ? file[static_cast<size_t>(move.comes)] : -1;
    }
    for (const int64_t row : fresh) slots[static_cast<size_t>(cache.slot(row))] = expected[static_cast<size_t>(row)] = -step;
    for (const int64_t row : rows) {
      if (row < 0) continue;
      int64_t& slot = slots[static_cast<size_t>(cache.slot(row))];
      if (slot != expected[static_cast<size_t>(row)]) return false;
      if (written) slot = expected[static_cast<size_t>(row)] = step;
    }
  }
  for (int64_t row = 0; row < num_rows; ++row) {
    const int64_t found = cache.is_cached(row) ? slots[static_cast<size_t>(cache.slot(row))] : file[static_cast<size_t>(row)];
    if (found != expected[static_cast<size_t>(row)]) return false;
  }
  return cache.hits > 0 && (cache.misses > 0 || num_slots == num_rows);
}

}  // namespace

int main() {
  int checked = 0;
  for (const int64_t num_slots : {int64_t{40}, int64_t{64}, int64_t{700}, int64_t{1000}}) {
    if (!check(1000, num_slots, 50)) {
      printf("check_row_cache: %lld slots: a row has another value\n", static_cast<long long>(num_slots));
      return 1;
    }
    ++checked;
  }
  printf("check_row_cache: %d cases agree\n", checked);
  return 0;
}
