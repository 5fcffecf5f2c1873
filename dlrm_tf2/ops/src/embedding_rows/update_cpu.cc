// The update on the CPU, in four parts, each divided between threads:
//
// 1. find: the row of every occurrence, 4 bytes each, so that ids are checked and read once.
// 2. order: occurrences are sorted by row. A *task* is the rows of one shard, or of a large shard the rows whose hash has
//    a certain remainder; tasks share no rows. The sort is stable and moves 8 bytes an occurrence, no gradients. A small
//    table needs none: the sums of all of its rows fit the cache.
// 3. update: the same task goes through its rows, sums the gradients of each and applies the optimizer.
// 4. rows with very many occurrences are left out in 3: their chunks are summed by all threads, and then applied.
#include <math.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "update_tasks.h"
#include "update_workspace.h"

namespace {

using dlrm::Group;
using dlrm::LongRun;
using dlrm::Scratch;
using dlrm::Sums;
using dlrm::Task;
using dlrm::Workspace;

constexpr int64_t kLongRun = 4096;  // occurrences of one row that all threads share
constexpr int64_t kSmallTableBytes = 256 << 10;  // sums of a small table's rows

class Update {
 public:
  Update(const DlrmSlab* slabs, const DlrmBags* bags, int64_t num_bags, const DlrmOptimizer* optimizer,
         int vectors_type, const dlrm::RowKernels& kernels, Workspace* workspace)
      : slabs_(slabs), bags_(bags), optimizer_(optimizer), vectors_type_(vectors_type), kernels_(kernels),
        work_(workspace), occurrences_(bags, num_bags, vectors_type, &workspace->rows) {}

  int run(DlrmParallelFor parallel_for, void* threads, int64_t num_threads, int* finite, DlrmBadId* bad_id) {
    const auto all = [&](int64_t count, const auto& run) { dlrm::in_parallel(parallel_for, threads, count, run); };
    if (const int code = occurrences_.find(all, bad_id)) return code;
    tasks_ = dlrm::tasks_of(occurrences_, num_threads);
    std::atomic<int> status{DLRM_OK};
    std::atomic<bool> good{true};
    work_->long_runs.clear();
    work_->sums_of.assign(optimizer_ == nullptr ? tasks_.size() : 0, {});
    all(static_cast<int64_t>(tasks_.size()), [&](int64_t number) {
      std::unique_ptr<Scratch> scratch = work_->take_scratch();
      float check = 0;
      if (!run_task(number, scratch.get(), &check)) status = DLRM_NO_MEMORY;
      if (isnan(check)) good = false;
      work_->give_back(std::move(scratch));
    });
    if (status != DLRM_OK) return status;
    if (!update_long_runs(all, &good)) return DLRM_NO_MEMORY;
    *finite = good;
    return DLRM_OK;
  }

 private:
  // Parts 2 and 3. `check` becomes NaN when a new number is not finite. Returns false where memory is missing.
  bool run_task(int64_t number, Scratch* scratch, float* check) {
    const Task& task = tasks_[static_cast<size_t>(number)];
    const Group& group = occurrences_.group_of(task);
    const int64_t width = slabs_[group.slab].width, sums_bytes = group.num_rows * width * 2 * 4;
    if (task.num_parts == 1 && sums_bytes <= kSmallTableBytes && group.num_rows * 4 <= group.num_occurrences &&
        group.num_occurrences <= 4 * dlrm::kTaskOccurrences) {
      return update_small_table(number, group, scratch, check);
    }
    int64_t count = 0;
    if (!sort_by_row(occurrences_, task, scratch, &count) || scratch->sums.take(2 * width) == nullptr) return false;
    *check = update(number, scratch, count);
    return true;
  }

  bool update_small_table(int64_t number, const Group& group, Scratch* scratch, float* check) {
    const int64_t width = slabs_[group.slab].width, size = group.num_rows * width;
    uint64_t* const pairs = scratch->pairs.take(group.num_occurrences);
    float* const sums = scratch->sums.take(2 * size);
    if (pairs == nullptr || sums == nullptr) return false;
    int64_t count = 0;
    occurrences_.for_each(tasks_[static_cast<size_t>(number)], [&](uint32_t row, uint32_t occurrence) {
      pairs[count++] = static_cast<uint64_t>(row) << 32 | occurrence;
    });
    scratch->counts.assign(static_cast<size_t>(group.num_rows), 0);
    const dlrm::RowSums of_rows = {scratch->counts.data(), sums, sums + size};
    kernels_.accumulate[vectors_type_](occurrences_.gradients_of(group), pairs, count, width, of_rows);
    const dlrm::RowUpdate update = update_of(group, number);
    for (int64_t row = 0; row < group.num_rows; ++row) {
      const uint32_t occurrences = of_rows.counts[row];
      if (occurrences == 0) continue;
      float* sum = of_rows.chunks + row * width;
      if (occurrences > dlrm::kChunk) {
        float* const total = of_rows.totals + row * width;
        for (int64_t column = 0; column < width; ++column) total[column] += sum[column];
        sum = total;
      }
      *check += apply_of(update)(update, group.first_row + row, sum);
    }
    return true;
  }

  // `number`: of the task, or of the long run after all tasks.
  dlrm::RowUpdate update_of(const Group& group, int64_t number) const {
    const DlrmSlab& slab = slabs_[group.slab];
    if (optimizer_ != nullptr) return dlrm::row_update(slab, *optimizer_, group.first_row);
    dlrm::RowUpdate update = {};
    update.weights = reinterpret_cast<char*>(&work_->sums_of[static_cast<size_t>(number)]);
    update.width = slab.width;
    update.first_row = group.first_row;
    return update;
  }

  dlrm::ApplyRow apply_of(const dlrm::RowUpdate& update) const {
    if (optimizer_ == nullptr) return dlrm::keep_sum;
    return kernels_.apply[update.weights_type == DLRM_FLOAT32 ? 0 : 1][optimizer_->kind];
  }

  // Part 3. Returns 0, or NaN when a new number is not finite.
  float update(int64_t number, Scratch* scratch, int64_t count) {
    const Group& group = occurrences_.group_of(tasks_[static_cast<size_t>(number)]);
    const dlrm::RowUpdate update = update_of(group, number);
    const int64_t bytes = slabs_[group.slab].width * dlrm::element_bytes(vectors_type_);
    const dlrm::TaskGradients gradients(occurrences_.gradients_of(group), group, bags_, bytes, count,
                                        &scratch->vectors);
    const uint64_t* const pairs = scratch->pairs.data();
    float* const sums = scratch->sums.data();
    float check = 0;
    int64_t done = 0;
    const auto up_to = [&](int64_t stop) {
      check += kernels_.update[vectors_type_](gradients.get(), update, apply_of(update), pairs + done, stop - done, sums);
    };
    // A run of 2 * kLongRun contains a multiple of kLongRun before which half of kLongRun is of the same row.
    for (int64_t probe = kLongRun; probe < count; probe += kLongRun) {
      const uint64_t row = pairs[probe] >> 32;
      if (probe < done || pairs[probe - kLongRun / 2] >> 32 != row) continue;
      const auto in_row = std::equal_range(pairs + done, pairs + count, row << 32,
                                           [](uint64_t a, uint64_t b) { return a >> 32 < b >> 32; });
      const int64_t first = in_row.first - pairs, last = in_row.second - pairs;
      if (last - first < kLongRun) continue;
      up_to(first);
      done = last;
      std::lock_guard<std::mutex> lock(work_->mutex);
      work_->long_runs.push_back({&group, std::vector<uint64_t>(pairs + first, pairs + last)});
    }
    up_to(count);
    return check;
  }

  // Part 4.
  template <class All>
  bool update_long_runs(const All& all, std::atomic<bool>* good) {
    struct Chunk {
      const LongRun* run;
      int64_t first, sum;
    };
    std::vector<Chunk> chunks;
    int64_t floats = 0;
    for (LongRun& run : work_->long_runs) {
      run.sums = floats;
      for (int64_t first = 0; first < static_cast<int64_t>(run.pairs.size()); first += dlrm::kChunk) {
        chunks.push_back({&run, first, floats});
        floats += slabs_[run.group->slab].width;
      }
    }
    float* const sums = work_->sums.take(floats);
    if (sums == nullptr && floats > 0) return false;
    all(static_cast<int64_t>(chunks.size()), [&](int64_t i) {
      const Chunk& chunk = chunks[static_cast<size_t>(i)];
      const int64_t left = static_cast<int64_t>(chunk.run->pairs.size()) - chunk.first;
      kernels_.sum[vectors_type_](occurrences_.gradients_of(*chunk.run->group), chunk.run->pairs.data() + chunk.first,
                                  std::min(dlrm::kChunk, left), slabs_[chunk.run->group->slab].width, sums + chunk.sum);
    });
    if (optimizer_ == nullptr) work_->sums_of.resize(tasks_.size() + work_->long_runs.size());
    all(static_cast<int64_t>(work_->long_runs.size()), [&](int64_t i) {
      const LongRun& run = work_->long_runs[static_cast<size_t>(i)];
      const int64_t width = slabs_[run.group->slab].width;
      const int64_t num_chunks = (static_cast<int64_t>(run.pairs.size()) + dlrm::kChunk - 1) / dlrm::kChunk;
      float* const total = sums + run.sums;
      for (int64_t at = width; at < num_chunks * width; at += width) {
        for (int64_t column = 0; column < width; ++column) total[column] += total[at + column];
      }
      const dlrm::RowUpdate update = update_of(*run.group, static_cast<int64_t>(tasks_.size()) + i);
      const int64_t row = run.group->first_row + static_cast<int64_t>(run.pairs[0] >> 32);
      if (isnan(apply_of(update)(update, row, total))) *good = false;
    });
    return true;
  }

  const DlrmSlab* slabs_;
  const DlrmBags* bags_;
  const DlrmOptimizer* optimizer_;  // null: the sums are kept, and nothing is updated
  int vectors_type_;
  const dlrm::RowKernels& kernels_;
  Workspace* work_;
  dlrm::Occurrences occurrences_;
  std::vector<Task> tasks_;
};

}  // namespace

extern "C" {

void* dlrm_embedding_workspace_new(void) { return new Workspace; }

void dlrm_embedding_workspace_delete(void* workspace) { delete static_cast<Workspace*>(workspace); }

int dlrm_embedding_update_cpu(const DlrmSlab* slabs, int64_t num_slabs, const DlrmBags* bags, int64_t num_bags,
                              const DlrmOptimizer* optimizer, int vectors_type, int instruction_set, void* workspace,
                              DlrmParallelFor parallel_for, void* threads, int64_t num_threads, int* finite,
                              DlrmBadId* bad_id) {
  if (optimizer->kind < DLRM_SGD || optimizer->kind > DLRM_ADAM || num_threads < 1 ||
      !dlrm::good_arguments(slabs, num_slabs, bags, num_bags, vectors_type)) {
    return DLRM_BAD_ARGUMENT;
  }
  const dlrm::RowKernels* const kernels = dlrm::row_kernels(instruction_set);
  if (kernels == nullptr) return DLRM_NO_INSTRUCTION_SET;
  return Update(slabs, bags, num_bags, optimizer, vectors_type, *kernels, static_cast<Workspace*>(workspace))
      .run(parallel_for, threads, num_threads, finite, bad_id);
}

int dlrm_embedding_sum_cpu(const DlrmSlab* slab, const DlrmBags* bags, int64_t num_bags, int vectors_type,
                           int instruction_set, void* workspace, DlrmParallelFor parallel_for, void* threads,
                           int64_t num_threads, int64_t* num_rows, DlrmBadId* bad_id) {
  if (num_threads < 1 || !dlrm::good_arguments(slab, 1, bags, num_bags, vectors_type)) return DLRM_BAD_ARGUMENT;
  const dlrm::RowKernels* const kernels = dlrm::row_kernels(instruction_set);
  if (kernels == nullptr) return DLRM_NO_INSTRUCTION_SET;
  Workspace* const work = static_cast<Workspace*>(workspace);
  int finite = 1;
  const int code = Update(slab, bags, num_bags, nullptr, vectors_type, *kernels, work)
                       .run(parallel_for, threads, num_threads, &finite, bad_id);
  *num_rows = 0;
  for (const Sums& sums : work->sums_of) *num_rows += static_cast<int64_t>(sums.rows.size());
  return code;
}

void dlrm_embedding_sums(const void* workspace, int64_t* rows, float* sums) {
  for (const Sums& of : static_cast<const Workspace*>(workspace)->sums_of) {
    rows = std::copy(of.rows.begin(), of.rows.end(), rows);
    sums = std::copy(of.sums.begin(), of.sums.end(), sums);
  }
}

}  // extern "C"
