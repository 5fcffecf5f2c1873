// The update on the CPU, in four parts, each divided between threads:
//
// 1. find: the row of every occurrence, 4 bytes each, so that ids are checked and read once.
// 2. order: occurrences are sorted by row. A *task* is the rows of one shard, or of a large shard the rows whose hash has
//    a certain remainder; tasks share no rows. The sort is stable and moves 8 bytes an occurrence, no gradients. A small
//    table needs none: the sums of all of its rows fit the cache.
// 3. update: the same task goes through its rows, sums the gradients of each and applies the optimizer.
// 4. rows with very many occurrences are left out in 3: their chunks are summed by all threads, and then applied.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <numeric>
#include <utility>
#include <vector>

#include "embedding_rows_cpu.h"

namespace {

constexpr uint32_t kElsewhere = UINT32_MAX;  // the row of an id that another rank's shard has
constexpr int64_t kTaskOccurrences = 1 << 17, kMostParts = 64;
constexpr int64_t kLongRun = 4096;  // occurrences of one row that all threads share
constexpr int64_t kFindSamples = 1024;
constexpr int64_t kSmallTableBytes = 256 << 10;  // sums of a small table's rows
// Narrow gradients are copied next to each other before they are read in the order of the rows: each lies on a page of its
// own, and finding pages would take longer than reading.
constexpr int64_t kNarrowBytes = 128, kMostCopiedBytes = 64 << 20;

// Memory that is used again and never filled with zeros.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { free(data_); }
  // At least `count` elements; what was in it is lost. nullptr where the system has no more memory.
  T* take(int64_t count) {
    if (count > size_) {
      free(data_);
      data_ = static_cast<T*>(malloc(static_cast<size_t>(count) * sizeof(T)));
      size_ = data_ == nullptr ? 0 : count;
    }
    return data_;
  }
  T* data() const { return data_; }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

// The bags that look up the same rows of a slab, and how their occurrences are numbered.
struct Group {
  int64_t slab, first_row, num_rows;
  std::vector<int64_t> bags;  // numbers, in order
  int64_t num_occurrences = 0;
  std::vector<const char*> bases;
  std::vector<int64_t> strides;
  std::vector<float> bag_factors;  // of each bags; empty for 1
  int shift = 32;
  bool by_occurrence = false;  // factors differ from id to id
  Buffer<uint32_t> places;
  Buffer<float> factors;
};

struct Task {
  int64_t group, part, num_parts;
};

// The occurrences of one row that a task leaves for later.
struct LongRun {
  const Group* group;
  std::vector<uint64_t> pairs;
  int64_t sums = 0;  // the sums of its chunks start here
};

// What a task needs while it runs.
struct Scratch {
  Buffer<uint64_t> pairs, other;
  Buffer<char> vectors;
  Buffer<float> sums;
  std::vector<uint32_t> counts;
};

// Which part of a large group a row is in: not by its size, because the first rows are the frequent ones.
inline int64_t part_of(uint32_t row, int64_t num_parts) {
  return static_cast<int64_t>((row * 0x9e3779b9u) >> 16) & (num_parts - 1);
}

struct Workspace {
  std::vector<std::unique_ptr<Group>> groups;
  Buffer<uint32_t> rows;
  Buffer<float> sums;
  std::mutex mutex;
  std::vector<std::unique_ptr<Scratch>> idle;  // as many as tasks ever ran at the same time
  std::vector<LongRun> long_runs;

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

template <class Run>
void in_parallel(DlrmParallelFor parallel_for, void* threads, int64_t count, const Run& run) {
  if (count == 0) return;
  const DlrmTask task = [](void* state, int64_t index) { (*static_cast<const Run*>(state))(index); };
  parallel_for(threads, count, task, const_cast<Run*>(&run));
}

class Update {
 public:
  Update(const DlrmSlab* slabs, int64_t num_slabs, const DlrmBags* bags, int64_t num_bags,
         const DlrmOptimizer& optimizer, int vectors_type, const dlrm::RowKernels& kernels, Workspace* workspace)
      : slabs_(slabs), num_slabs_(num_slabs), bags_(bags), num_bags_(num_bags), optimizer_(optimizer),
        vectors_type_(vectors_type), kernels_(kernels), work_(workspace) {}

  int run(DlrmParallelFor parallel_for, void* threads, int64_t num_threads, int* finite, DlrmBadId* bad_id) {
    const auto all = [&](int64_t count, const auto& run) { in_parallel(parallel_for, threads, count, run); };
    make_groups();
    if (const int code = find(all, bad_id)) return code;
    make_tasks(num_threads);
    std::atomic<int> status{DLRM_OK};
    std::atomic<bool> good{true};
    work_->long_runs.clear();
    all(static_cast<int64_t>(tasks_.size()), [&](int64_t number) {
      std::unique_ptr<Scratch> scratch = work_->take_scratch();
      float check = 0;
      if (!run_task(tasks_[static_cast<size_t>(number)], scratch.get(), &check)) status = DLRM_NO_MEMORY;
      if (isnan(check)) good = false;
      work_->give_back(std::move(scratch));
    });
    if (status != DLRM_OK) return status;
    if (!update_long_runs(all, &good)) return DLRM_NO_MEMORY;
    *finite = good;
    return DLRM_OK;
  }

 private:
  // Bags whose rows overlap belong together: shards are apart, but bags that were requested by other ranks name rows of
  // the whole slab.
  void make_groups() {
    std::vector<int64_t> order(static_cast<size_t>(num_bags_));
    std::iota(order.begin(), order.end(), 0);
    const auto begin = [&](int64_t i) { return bags_[i].first_row + bags_[i].first_id; };
    const auto end = [&](int64_t i) { return bags_[i].first_row + bags_[i].last_id; };
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return bags_[a].slab != bags_[b].slab ? bags_[a].slab < bags_[b].slab : begin(a) < begin(b);
    });
    work_->groups.clear();
    for (int64_t i : order) {
      Group* group = work_->groups.empty() ? nullptr : work_->groups.back().get();
      if (group == nullptr || group->slab != bags_[i].slab || begin(i) >= group->first_row + group->num_rows) {
        work_->groups.push_back(std::make_unique<Group>());
        group = work_->groups.back().get();
        group->slab = bags_[i].slab;
        group->first_row = begin(i);
        group->num_rows = 0;
      }
      group->num_rows = std::max(group->num_rows, end(i) - group->first_row);
      group->bags.push_back(i);
    }
    group_first_.resize(static_cast<size_t>(num_bags_));
    for (auto& group : work_->groups) {
      for (int64_t i : group->bags) group_first_[static_cast<size_t>(i)] = group->first_row;
      describe(group.get());
    }
  }

  int64_t occurrences_of(const DlrmBags& bags) const {
    if (bags.num_samples == 0) return 0;
    return bags.hotness < 0 ? bags.row_splits[bags.num_samples] : bags.hotness * bags.num_samples;
  }

  void describe(Group* group) const {
    std::sort(group->bags.begin(), group->bags.end());
    int64_t most_samples = 1;
    bool any_factor = false;
    for (int64_t i : group->bags) {
      const DlrmBags& bags = bags_[i];
      most_samples = std::max(most_samples, bags.num_samples);
      group->num_occurrences += occurrences_of(bags);
      group->bases.push_back(static_cast<const char*>(bags.vectors));
      group->strides.push_back(bags.vector_stride * dlrm::element_bytes(vectors_type_));
      const bool constant = bags.mean && bags.weights == nullptr && bags.hotness > 0;
      group->bag_factors.push_back(constant ? dlrm::factor_of(nullptr, 0, static_cast<float>(bags.hotness)) : 1.0f);
      any_factor |= constant && bags.hotness > 1;
      group->by_occurrence |= bags.weights != nullptr || (bags.mean && bags.hotness < 0);
    }
    if (!any_factor && !group->by_occurrence) group->bag_factors.clear();
    if (group->bags.size() > 1) {
      group->shift = 1;
      while (int64_t{1} << group->shift < most_samples) ++group->shift;
    }
  }

  // Part 1. Fills work_->rows, group after group.
  template <class All>
  int find(const All& all, DlrmBadId* bad_id) {
    struct Piece {
      int64_t bags, first_sample, first;
      Group* group;
    };
    std::vector<Piece> pieces;
    int64_t start = 0;
    for (auto& group : work_->groups) {
      const uint64_t numbers = group->bags.size() == 1 ? static_cast<uint64_t>(bags_[group->bags[0]].num_samples)
                                                       : static_cast<uint64_t>(group->bags.size()) << group->shift;
      if (numbers > UINT32_MAX || group->num_occurrences > UINT32_MAX) return DLRM_TOO_LARGE;
      starts_.push_back(start);
      for (int64_t i : group->bags) {
        for (int64_t sample = 0; sample < bags_[i].num_samples; sample += kFindSamples) {
          pieces.push_back({i, sample, start, group.get()});
        }
        start += occurrences_of(bags_[i]);
      }
    }
    if (work_->rows.take(start) == nullptr && start > 0) return DLRM_NO_MEMORY;
    std::atomic<int> status{DLRM_OK};
    std::mutex mutex;
    // Pieces of the same samples follow each other, because their ids share cache lines.
    std::stable_sort(pieces.begin(), pieces.end(),
                     [](const Piece& a, const Piece& b) { return a.first_sample < b.first_sample; });
    const int64_t at_once = 8;
    all((static_cast<int64_t>(pieces.size()) + at_once - 1) / at_once, [&](int64_t number) {
      const int64_t stop = std::min<int64_t>(static_cast<int64_t>(pieces.size()), (number + 1) * at_once);
      for (int64_t i = number * at_once; i < stop; ++i) {
        DlrmBadId bad;
        const Piece& piece = pieces[static_cast<size_t>(i)];
        const DlrmBags& bags = bags_[piece.bags];
        uint32_t* const rows = work_->rows.data() + piece.first;
        const bool good = bags.ids_type == DLRM_INT32 ? find_piece<int32_t>(piece.bags, piece.first_sample, rows, &bad)
                                                      : find_piece<int64_t>(piece.bags, piece.first_sample, rows, &bad);
        if (good) continue;
        std::lock_guard<std::mutex> lock(mutex);
        *bad_id = bad;
        status = DLRM_BAD_ID;
      }
    });
    return status;
  }

  template <class Id>
  bool find_piece(int64_t number, int64_t first, uint32_t* rows, DlrmBadId* bad) const {
    const DlrmBags& bags = bags_[number];
    const int64_t offset = bags.first_row - group_first_[static_cast<size_t>(number)];
    const int64_t last = std::min(first + kFindSamples, bags.num_samples);
    const bool whole = bags.first_id == 0 && bags.last_id == bags.num_ids;
    for (int64_t sample = first; sample < last; ++sample) {
      const bool ragged = bags.hotness < 0;
      const int64_t from = ragged ? bags.row_splits[sample] : sample * bags.hotness;
      const int64_t count = ragged ? bags.row_splits[sample + 1] - from : bags.hotness;
      const Id* const ids = static_cast<const Id*>(bags.ids) + (ragged ? from : sample * bags.sample_stride);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t id = ids[i];
        if (static_cast<uint64_t>(id) >= static_cast<uint64_t>(bags.num_ids)) {
          *bad = {number, sample, id};
          return false;
        }
        const bool here = whole || (id >= bags.first_id && id < bags.last_id);
        rows[from + i] = here ? static_cast<uint32_t>(id + offset) : kElsewhere;
      }
    }
    return true;
  }

  void make_tasks(int64_t num_threads) {
    for (size_t i = 0; i < work_->groups.size(); ++i) {
      Group& group = *work_->groups[i];
      if (group.by_occurrence) number_occurrences(&group);
      int64_t parts = 1;
      const int64_t wanted = num_threads == 1 ? 1 : group.num_occurrences / kTaskOccurrences;
      while (parts < wanted && parts < kMostParts && parts < 2 * num_threads) parts *= 2;
      for (int64_t part = 0; part < parts; ++part) tasks_.push_back({static_cast<int64_t>(i), part, parts});
    }
    // The largest first, so that threads end together.
    std::stable_sort(tasks_.begin(), tasks_.end(), [&](const Task& a, const Task& b) {
      return work_->groups[static_cast<size_t>(a.group)]->num_occurrences / a.num_parts >
             work_->groups[static_cast<size_t>(b.group)]->num_occurrences / b.num_parts;
    });
  }

  // The place and the factor of every occurrence of a group.
  void number_occurrences(Group* group) const {
    uint32_t* place = group->places.take(group->num_occurrences);
    float* factor = group->factors.take(group->num_occurrences);
    for (size_t b = 0; b < group->bags.size(); ++b) {
      const DlrmBags& bags = bags_[group->bags[b]];
      for (int64_t sample = 0; sample < bags.num_samples; ++sample) {
        const int64_t from = bags.hotness < 0 ? bags.row_splits[sample] : sample * bags.hotness;
        const int64_t count = bags.hotness < 0 ? bags.row_splits[sample + 1] - from : bags.hotness;
        const float* const weights = bags.weights == nullptr ? nullptr : bags.weights + from;
        const float total = bags.mean ? dlrm::total_weight(weights, count) : 1;
        for (int64_t i = 0; i < count; ++i) {
          *place++ = static_cast<uint32_t>((group->shift < 32 ? b << group->shift : 0) | static_cast<uint64_t>(sample));
          *factor++ = dlrm::factor_of(weights, i, total);
        }
      }
    }
  }

  // Calls emit(row, occurrence) for the occurrences of a task, in order.
  template <class Emit>
  void for_each(const Task& task, const Emit& emit) const {
    const Group& group = *work_->groups[static_cast<size_t>(task.group)];
    const uint32_t* row = work_->rows.data() + starts_[static_cast<size_t>(task.group)];
    uint32_t occurrence = 0;
    const auto consider = [&](uint32_t row, uint32_t number) {
      if (row == kElsewhere || (task.num_parts > 1 && part_of(row, task.num_parts) != task.part)) return;
      emit(row, number);
    };
    for (size_t b = 0; b < group.bags.size(); ++b) {
      const DlrmBags& bags = bags_[group.bags[b]];
      const uint32_t base = group.shift < 32 ? static_cast<uint32_t>(b << group.shift) : 0;
      const uint32_t num_samples = static_cast<uint32_t>(bags.num_samples);
      if (group.by_occurrence) {
        for (int64_t left = occurrences_of(bags); left > 0; --left) consider(*row++, occurrence++);
      } else if (bags.hotness == 1) {
        for (uint32_t sample = 0; sample < num_samples; ++sample) consider(*row++, base | sample);
      } else {
        for (uint32_t sample = 0; sample < num_samples; ++sample) {
          int64_t count = bags.hotness < 0 ? bags.row_splits[sample + 1] - bags.row_splits[sample] : bags.hotness;
          for (; count > 0; --count) consider(*row++, base | sample);
        }
      }
    }
  }

  // Parts 2 and 3. `check` becomes NaN when a new number is not finite. Returns false where memory is missing.
  bool run_task(const Task& task, Scratch* scratch, float* check) {
    const Group& group = *work_->groups[static_cast<size_t>(task.group)];
    const int64_t width = slabs_[group.slab].width, sums_bytes = group.num_rows * width * 2 * 4;
    if (task.num_parts == 1 && sums_bytes <= kSmallTableBytes && group.num_rows * 4 <= group.num_occurrences &&
        group.num_occurrences <= 4 * kTaskOccurrences) {
      return update_small_table(task, group, scratch, check);
    }
    int64_t count = 0;
    if (!order(task, scratch, &count) || scratch->sums.take(2 * width) == nullptr) return false;
    *check = update(group, scratch, count);
    return true;
  }

  bool update_small_table(const Task& task, const Group& group, Scratch* scratch, float* check) {
    const int64_t width = slabs_[group.slab].width, size = group.num_rows * width;
    uint64_t* const pairs = scratch->pairs.take(group.num_occurrences);
    float* const sums = scratch->sums.take(2 * size);
    if (pairs == nullptr || sums == nullptr) return false;
    int64_t count = 0;
    for_each(task, [&](uint32_t row, uint32_t occurrence) {
      pairs[count++] = static_cast<uint64_t>(row) << 32 | occurrence;
    });
    scratch->counts.assign(static_cast<size_t>(group.num_rows), 0);
    const dlrm::RowSums of_rows = {scratch->counts.data(), sums, sums + size};
    kernels_.accumulate[vectors_type_](gradients_of(group), pairs, count, width, of_rows);
    const dlrm::RowUpdate update = update_of(group);
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

  // Part 2. A radix sort, least significant digit first, into scratch->pairs; the first pass reads the rows where they
  // were found.
  bool order(const Task& task, Scratch* scratch, int64_t* num_pairs) {
    const int64_t num_rows = work_->groups[static_cast<size_t>(task.group)]->num_rows;
    int bits = 1;
    while (int64_t{1} << bits < num_rows) ++bits;
    const int passes = (bits + 10) / 11, digit = (bits + passes - 1) / passes;
    const uint32_t mask = (1u << digit) - 1;
    std::vector<uint32_t>& histograms = scratch->counts;
    histograms.assign(static_cast<size_t>(passes) << digit, 0);
    int64_t count = 0;
    for_each(task, [&](uint32_t row, uint32_t) {
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
        for_each(task, [&](uint32_t row, uint32_t occurrence) {
          to[place[row & mask]++] = static_cast<uint64_t>(row) << 32 | occurrence;
        });
      } else {
        for (int64_t i = 0; i < count; ++i) to[place[from[i] >> shift & mask]++] = from[i];
      }
      std::swap(from, to);
    }
    return true;
  }

  // Copies narrow gradients next to each other, where that pays. `bases` and `strides` keep where they are then.
  void copy_narrow(const Group& group, int64_t count, Scratch* scratch, dlrm::Gradients* gradients,
                   std::vector<const char*>* bases, std::vector<int64_t>* strides) const {
    const int64_t bytes = slabs_[group.slab].width * dlrm::element_bytes(vectors_type_);
    int64_t num_vectors = 0;
    for (int64_t i : group.bags) num_vectors += bags_[i].num_samples;
    if (bytes > kNarrowBytes || num_vectors > 2 * count || num_vectors * bytes > kMostCopiedBytes) return;
    char* to = scratch->vectors.take(num_vectors * bytes + 64);
    if (to == nullptr) return;
    to += -reinterpret_cast<uintptr_t>(to) % 64;
    for (size_t b = 0; b < group.bags.size(); ++b) {
      bases->push_back(to);
      strides->push_back(bytes);
      const char* from = group.bases[b];
      for (int64_t sample = 0; sample < bags_[group.bags[b]].num_samples; ++sample) {
        __builtin_prefetch(from + 16 * group.strides[b]);
        memcpy(to, from, static_cast<size_t>(bytes));
        from += group.strides[b];
        to += bytes;
      }
    }
    gradients->bases = bases->data();
    gradients->strides = strides->data();
  }

  dlrm::Gradients gradients_of(const Group& group) const {
    const bool by = group.by_occurrence;
    const float* factors = by ? group.factors.data() : group.bag_factors.empty() ? nullptr : group.bag_factors.data();
    const uint32_t mask = group.shift < 32 ? (1u << group.shift) - 1 : UINT32_MAX;
    return {group.bases.data(), group.strides.data(), factors, by ? group.places.data() : nullptr, group.shift, mask};
  }

  dlrm::RowUpdate update_of(const Group& group) const {
    const DlrmSlab& slab = slabs_[group.slab];
    const DlrmOptimizer& o = optimizer_;
    const double step = static_cast<double>(o.step);
    dlrm::RowUpdate update = {};
    update.weights = static_cast<char*>(slab.weights);
    update.slots[0] = slab.slots[0];
    update.slots[1] = slab.slots[1];
    update.width = slab.width;
    update.slot_width = o.kind == DLRM_ROWWISE_ADAGRAD ? 1 : slab.width;
    update.first_row = group.first_row;
    update.weights_type = slab.weights_type;
    update.shards = slab.shards;
    update.num_shards = slab.num_shards;
    update.step = static_cast<uint64_t>(o.step);
    update.learning_rate = o.learning_rate;
    update.epsilon = o.epsilon;
    update.beta1 = static_cast<float>(o.beta1);
    update.beta2 = static_cast<float>(o.beta2);
    update.rest1 = static_cast<float>(1 - o.beta1);
    update.rest2 = static_cast<float>(1 - o.beta2);
    update.correction1 = static_cast<float>(-expm1(step * log(o.beta1)));
    update.correction2 = static_cast<float>(-expm1(step * log(o.beta2)));
    return update;
  }

  dlrm::ApplyRow apply_of(const dlrm::RowUpdate& update) const {
    return kernels_.apply[update.weights_type == DLRM_FLOAT32 ? 0 : 1][optimizer_.kind];
  }

  // Part 3. Returns 0, or NaN when a new number is not finite.
  float update(const Group& group, Scratch* scratch, int64_t count) {
    dlrm::Gradients gradients = gradients_of(group);
    const dlrm::RowUpdate update = update_of(group);
    std::vector<const char*> bases;
    std::vector<int64_t> strides;
    copy_narrow(group, count, scratch, &gradients, &bases, &strides);
    const uint64_t* const pairs = scratch->pairs.data();
    float* const sums = scratch->sums.data();
    float check = 0;
    int64_t done = 0;
    const auto up_to = [&](int64_t stop) {
      check += kernels_.update[vectors_type_](gradients, update, apply_of(update), pairs + done, stop - done, sums);
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
      kernels_.sum[vectors_type_](gradients_of(*chunk.run->group), chunk.run->pairs.data() + chunk.first,
                                  std::min(dlrm::kChunk, left), slabs_[chunk.run->group->slab].width, sums + chunk.sum);
    });
    all(static_cast<int64_t>(work_->long_runs.size()), [&](int64_t i) {
      const LongRun& run = work_->long_runs[static_cast<size_t>(i)];
      const int64_t width = slabs_[run.group->slab].width;
      const int64_t num_chunks = (static_cast<int64_t>(run.pairs.size()) + dlrm::kChunk - 1) / dlrm::kChunk;
      float* const total = sums + run.sums;
      for (int64_t at = width; at < num_chunks * width; at += width) {
        for (int64_t column = 0; column < width; ++column) total[column] += total[at + column];
      }
      const dlrm::RowUpdate update = update_of(*run.group);
      const int64_t row = run.group->first_row + static_cast<int64_t>(run.pairs[0] >> 32);
      if (isnan(apply_of(update)(update, row, total))) *good = false;
    });
    return true;
  }

  const DlrmSlab* slabs_;
  int64_t num_slabs_;
  const DlrmBags* bags_;
  int64_t num_bags_;
  const DlrmOptimizer& optimizer_;
  int vectors_type_;
  const dlrm::RowKernels& kernels_;
  Workspace* work_;
  std::vector<int64_t> group_first_;  // by bags: the first row of their group
  std::vector<int64_t> starts_;       // by group: its first occurrence in work_->rows
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
  return Update(slabs, num_slabs, bags, num_bags, *optimizer, vectors_type, *kernels, static_cast<Workspace*>(workspace))
      .run(parallel_for, threads, num_threads, finite, bad_id);
}

}  // extern "C"
