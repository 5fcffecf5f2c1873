// What an update on the CPU keeps from call to call, and what its tasks hand on.
#pragma once

#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "occurrences.h"
#include "row_order.h"

namespace dlrm {

// The occurrences of one row that a task leaves for later.
struct LongRun {
  const Group* group;
  std::vector<uint64_t> pairs;
  int64_t sums = 0;  // the sums of its chunks start here
};

// Rows and the sums of their gradients, where nothing is updated.
struct Sums {
  std::vector<int64_t> rows;
  std::vector<float> sums;
};

struct Workspace {
  Buffer<uint32_t> rows;
  Buffer<float> sums;
  std::mutex mutex;
  std::vector<std::unique_ptr<Scratch>> idle;  // as many as tasks ever ran at the same time
  std::vector<LongRun> long_runs;
  std::vector<Sums> sums_of;  // of each task, then of each long run

  std::unique_ptr<Scratch> take_scratch() {
    std::lock_guard<std::mutex> lock(mutex);
    if (idle.empty()) return std::make_unique<Scratch>();
    std::unique_ptr<Scratch> taken = std::move(idle.back());
    idle.pop_back();
    return taken;
  }

  void give_back(std::unique_ptr<Scratch> scratch) {
    std::lock_guard<std::mutex> lock(mutex);
    idle.push_back(std::move(scratch));
  }
};

// Stands in the place of an optimizer: keeps the row and its sum. `weights` is where to.
inline float keep_sum(const RowUpdate& update, int64_t row, const float* sum) {
  Sums* const kept = reinterpret_cast<Sums*>(update.weights);
  kept->rows.push_back(row);
  kept->sums.insert(kept->sums.end(), sum, sum + update.width);
  return 0;
}

}  // namespace dlrm
