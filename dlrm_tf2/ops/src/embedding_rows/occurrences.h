// Where the gradients of an update are: its occurrences, which are the ids of its bags, in groups that share no rows.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <numeric>
#include <vector>

#include "embedding_rows_cpu.h"
#include "parallel.h"

namespace dlrm {

constexpr uint32_t kElsewhere = UINT32_MAX;  // the row of an id that another rank's shard has
constexpr int64_t kFindSamples = 1024;

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

// The rows of a group whose hash has the remainder `part` of `num_parts`, a power of two.
struct Task {
  int64_t group, part, num_parts;
};

// Which part of a large group a row is in: not by its size, because the first rows are the frequent ones.
inline int64_t part_of(uint32_t row, int64_t num_parts) {
  return static_cast<int64_t>((row * 0x9e3779b9u) >> 16) & (num_parts - 1);
}

class Occurrences {
 public:
  // `rows` is memory that the next update uses again.
  Occurrences(const DlrmBags* bags, int64_t num_bags, int vectors_type, Buffer<uint32_t>* rows)
      : bags_(bags), num_bags_(num_bags), vectors_type_(vectors_type), rows_(rows) {
    make_groups();
  }

  const std::vector<std::unique_ptr<Group>>& groups() const { return groups_; }
  const Group& group_of(const Task& task) const { return *groups_[static_cast<size_t>(task.group)]; }

  // Finds the row of every occurrence, 4 bytes each, so that ids are checked and read once.
  template <class All>
  int find(const All& all, DlrmBadId* bad_id) {
    struct Piece {
      int64_t bags, first_sample, first;
      Group* group;
    };
    std::vector<Piece> pieces;
    int64_t start = 0;
    for (auto& group : groups_) {
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
    if (rows_->take(start) == nullptr && start > 0) return DLRM_NO_MEMORY;
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
        uint32_t* const rows = rows_->data() + piece.first;
        const bool good = bags.ids_type == DLRM_INT32 ? find_piece<int32_t>(piece.bags, piece.first_sample, rows, &bad)
                                                      : find_piece<int64_t>(piece.bags, piece.first_sample, rows, &bad);
        if (good) continue;
        std::lock_guard<std::mutex> lock(mutex);
        *bad_id = bad;
        status = DLRM_BAD_ID;
      }
    });
    if (status != DLRM_OK) return status;
    for (auto& group : groups_) {
      if (group->by_occurrence && !number_occurrences(group.get())) return DLRM_NO_MEMORY;
    }
    return DLRM_OK;
  }

  // Calls emit(row, occurrence) for the occurrences of a task, in order.
  template <class Emit>
  void for_each(const Task& task, const Emit& emit) const {
    const Group& group = group_of(task);
    const uint32_t* row = rows_->data() + starts_[static_cast<size_t>(task.group)];
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

  Gradients gradients_of(const Group& group) const {
    const bool by = group.by_occurrence;
    const float* factors = by ? group.factors.data() : group.bag_factors.empty() ? nullptr : group.bag_factors.data();
    const uint32_t mask = group.shift < 32 ? (1u << group.shift) - 1 : UINT32_MAX;
    return {group.bases.data(), group.strides.data(), factors, by ? group.places.data() : nullptr, group.shift, mask};
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
    for (int64_t i : order) {
      Group* group = groups_.empty() ? nullptr : groups_.back().get();
      if (group == nullptr || group->slab != bags_[i].slab || begin(i) >= group->first_row + group->num_rows) {
        groups_.push_back(std::make_unique<Group>());
        group = groups_.back().get();
        group->slab = bags_[i].slab;
        group->first_row = begin(i);
        group->num_rows = 0;
      }
      group->num_rows = std::max(group->num_rows, end(i) - group->first_row);
      group->bags.push_back(i);
    }
    group_first_.resize(static_cast<size_t>(num_bags_));
    for (auto& group : groups_) {
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
      group->strides.push_back(bags.vector_stride * element_bytes(vectors_type_));
      const bool constant = bags.mean && bags.weights == nullptr && bags.hotness > 0;
      group->bag_factors.push_back(constant ? factor_of(nullptr, 0, static_cast<float>(bags.hotness)) : 1.0f);
      any_factor |= constant && bags.hotness > 1;
      group->by_occurrence |= bags.weights != nullptr || (bags.mean && bags.hotness < 0);
    }
    if (!any_factor && !group->by_occurrence) group->bag_factors.clear();
    if (group->bags.size() > 1) {
      group->shift = 1;
      while (int64_t{1} << group->shift < most_samples) ++group->shift;
    }
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

  // The place and the factor of every occurrence of a group.
  bool number_occurrences(Group* group) const {
    uint32_t* place = group->places.take(group->num_occurrences);
    float* factor = group->factors.take(group->num_occurrences);
    if (group->num_occurrences > 0 && (place == nullptr || factor == nullptr)) return false;
    for (size_t b = 0; b < group->bags.size(); ++b) {
      const DlrmBags& bags = bags_[group->bags[b]];
      for (int64_t sample = 0; sample < bags.num_samples; ++sample) {
        const int64_t from = bags.hotness < 0 ? bags.row_splits[sample] : sample * bags.hotness;
        const int64_t count = bags.hotness < 0 ? bags.row_splits[sample + 1] - from : bags.hotness;
        const float* const weights = bags.weights == nullptr ? nullptr : bags.weights + from;
        const float total = bags.mean ? total_weight(weights, count) : 1;
        for (int64_t i = 0; i < count; ++i) {
          *place++ = static_cast<uint32_t>((group->shift < 32 ? b << group->shift : 0) | static_cast<uint64_t>(sample));
          *factor++ = factor_of(weights, i, total);
        }
      }
    }
    return true;
  }

  const DlrmBags* bags_;
  int64_t num_bags_;
  int vectors_type_;
  Buffer<uint32_t>* rows_;
  std::vector<std::unique_ptr<Group>> groups_;
  std::vector<int64_t> group_first_;  // by bags: the first row of their group
  std::vector<int64_t> starts_;       // by group: its first occurrence in *rows_
};

}  // namespace dlrm
