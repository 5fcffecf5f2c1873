// The tasks of an update on the CPU: how rows are divided between them, and what each of them reads.
#pragma once

#include <math.h>
#include <string.h>

#include <algorithm>
#include <vector>

#include "occurrences.h"
#include "row_order.h"

namespace dlrm {

constexpr int64_t kTaskOccurrences = 1 << 17, kMostParts = 64;
// Narrow gradients are copied next to each other before they are read in the order of the rows: each lies on a page of its
// own, and finding pages would take longer than reading.
constexpr int64_t kNarrowBytes = 128, kMostCopiedBytes = 64 << 20;

// The largest first, so that threads end together.
inline std::vector<Task> tasks_of(const Occurrences& occurrences, int64_t num_threads) {
  int64_t all_occurrences = 0;
  for (const auto& group : occurrences.groups()) all_occurrences += group->num_occurrences;
  const int64_t share = std::max<int64_t>(4096, all_occurrences / (4 * num_threads));  // so that no thread waits long
  std::vector<Task> tasks;
  for (size_t i = 0; i < occurrences.groups().size(); ++i) {
    const Group& group = *occurrences.groups()[i];
    int64_t parts = 1;
    const int64_t wanted = num_threads == 1 ? 1 : group.num_occurrences / std::min(kTaskOccurrences, share);
    while (parts < wanted && parts < kMostParts && parts < 2 * num_threads) parts *= 2;
    for (int64_t part = 0; part < parts; ++part) tasks.push_back({static_cast<int64_t>(i), part, parts});
  }
  std::stable_sort(tasks.begin(), tasks.end(), [&](const Task& a, const Task& b) {
    return occurrences.group_of(a).num_occurrences / a.num_parts > occurrences.group_of(b).num_occurrences / b.num_parts;
  });
  return tasks;
}

// The gradients of a task, in a copy where they are narrow and that pays.
class TaskGradients {
 public:
  // bytes: of a vector. count: occurrences of the task. The copy lies in `memory`.
  TaskGradients(const Gradients& gradients, const Group& group, const DlrmBags* bags, int64_t bytes, int64_t count,
                Buffer<char>* memory)
      : gradients_(gradients) {
    int64_t num_vectors = 0;
    for (int64_t i : group.bags) num_vectors += bags[i].num_samples;
    if (bytes > kNarrowBytes || num_vectors > 2 * count || num_vectors * bytes > kMostCopiedBytes) return;
    char* to = memory->take(num_vectors * bytes + 64);
    if (to == nullptr) return;
    to += -reinterpret_cast<uintptr_t>(to) % 64;
    for (size_t b = 0; b < group.bags.size(); ++b) {
      bases_.push_back(to);
      strides_.push_back(bytes);
      const char* from = group.bases[b];
      for (int64_t sample = 0; sample < bags[group.bags[b]].num_samples; ++sample) {
        __builtin_prefetch(from + 16 * group.strides[b]);
        memcpy(to, from, static_cast<size_t>(bytes));
        from += group.strides[b];
        to += bytes;
      }
    }
    gradients_.bases = bases_.data();
    gradients_.strides = strides_.data();
  }

  const Gradients& get() const { return gradients_; }

 private:
  Gradients gradients_;
  std::vector<const char*> bases_;
  std::vector<int64_t> strides_;
};

// The step of an optimizer on rows from `first_row` on.
inline RowUpdate row_update(const DlrmSlab& slab, const DlrmOptimizer& optimizer, int64_t first_row) {
  const double step = static_cast<double>(optimizer.step);
  RowUpdate update = {};
  update.weights = static_cast<char*>(slab.weights);
  update.slots[0] = slab.slots[0];
  update.slots[1] = slab.slots[1];
  update.width = slab.width;
  update.slot_width = optimizer.kind == DLRM_ROWWISE_ADAGRAD ? 1 : slab.width;
  update.first_row = first_row;
  update.weights_type = slab.weights_type;
  update.shards = slab.shards;
  update.num_shards = slab.num_shards;
  update.step = static_cast<uint64_t>(optimizer.step);
  update.learning_rate = optimizer.learning_rate;
  update.epsilon = optimizer.epsilon;
  update.beta1 = static_cast<float>(optimizer.beta1);
  update.beta2 = static_cast<float>(optimizer.beta2);
  update.rest1 = static_cast<float>(1 - optimizer.beta1);
  update.rest2 = static_cast<float>(1 - optimizer.beta2);
  update.correction1 = static_cast<float>(-expm1(step * log(optimizer.beta1)));
  update.correction2 = static_cast<float>(-expm1(step * log(optimizer.beta2)));
  return update;
}

}  // namespace dlrm
