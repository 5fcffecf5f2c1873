// Which row of a bucket is evicted next: the lowest (score, hash of the key) of the rows that the call does not touch.
#pragma once

#include <stdint.h>

#include <algorithm>
#include <functional>
#include <tuple>
#include <vector>

#include "key_hash.h"

namespace dlrm {

// Entries of the lowest rows, the lowest first.
//
// Every row with a key and a score <= bound_ has an entry with this score or a lower one. A score that rises leaves its
// entry behind, and the entry is put right when it is the lowest; a score that falls makes an entry of its own. When no
// entry is left, a scan of the bucket sets a bound below which an eighth of the rows lie. The entries of a scan are
// sorted, so that the memory of the next ones can be asked for; later ones go into a heap.
class Eviction {
 public:
  struct Entry {
    int64_t score;
    uint64_t hash;
    int32_t row;
    bool operator>(const Entry& other) const { return std::tie(score, hash) > std::tie(other.score, other.hash); }
  };

  // Takes the entry of the lowest row that call number `call` has not touched, which the caller evicts or gives back.
  // False where the call has touched all rows.
  template <class Bucket>
  bool take_lowest(const Bucket& of, uint16_t call, Entry* lowest) {
    while (!all_touched_) {
      while (take(lowest, of)) {
        const int32_t row = lowest->row;
        if (!of.has_key(row) || hash_of(of.key(row)) != lowest->hash) continue;
        const int64_t score = of.score(row);
        if (score < lowest->score) continue;
        if (score > lowest->score) {
          if (score <= bound_) push({score, lowest->hash, row});
        } else if (of.call(row) == call) {
          aside_.push_back(*lowest);
        } else {
          return true;
        }
      }
      all_touched_ = !scan(of, call);
    }
    return false;
  }

  void give_back(const Entry& entry) { push(entry); }

  // Whether a row with this score needs an entry.
  bool watches(int64_t score) const { return bounded_ && score <= bound_; }

  // To be called when a row gets a key, or its score falls.
  void wrote(const Entry& entry, bool touched) {
    if (!watches(entry.score)) return;
    if (touched) aside_.push_back(entry);
    else push(entry);
  }

  // The rows that the call touched may be evicted again.
  void end_call(int64_t num_rows) {
    all_touched_ = false;
    for (const Entry& entry : aside_) push(entry);
    aside_.clear();
    if (static_cast<int64_t>(heap_.size()) <= 2 * num_rows + 64) return;
    heap_.clear();  // left behind by scores that fell again and again
    sorted_.clear();
    bounded_ = false;
  }

 private:
  static constexpr size_t kAhead = 16, kShare = 8;

  // New entries, and a higher bound. False where the call has touched all rows.
  template <class Bucket>
  bool scan(const Bucket& of, uint16_t current) {
    struct Row {
      int64_t score;
      int32_t row;
      bool touched;
    };
    std::vector<Row> rows;
    std::vector<int64_t> scores;
    rows.reserve(static_cast<size_t>(of.num_rows()));
    scores.reserve(static_cast<size_t>(of.num_rows()));
    const int32_t num_rows = static_cast<int32_t>(of.num_rows()), ahead = static_cast<int32_t>(kAhead);
    for (int32_t row = 0; row < num_rows; ++row) {
      if (row < num_rows - ahead && of.has_key(row + ahead)) __builtin_prefetch(of.group(row + ahead));
      if (!of.has_key(row)) continue;
      const uint16_t call = of.call(row);
      rows.push_back({of.score(row, call), row, call == current});
      if (call != current) scores.push_back(rows.back().score);
    }
    if (scores.empty()) return false;
    const auto middle = scores.begin() + static_cast<int64_t>(scores.size() / kShare);
    std::nth_element(scores.begin(), middle, scores.end());
    bound_ = *middle;
    bounded_ = true;
    aside_.clear();
    for (const Row& row : rows) {
      if (row.score > bound_) continue;
      (row.touched ? aside_ : sorted_).push_back({row.score, hash_of(of.key(row.row)), row.row});
    }
    std::sort(sorted_.begin(), sorted_.end(), std::greater<>());
    return true;
  }

  // The lowest entry of all. False where there is none.
  template <class Bucket>
  bool take(Entry* lowest, const Bucket& of) {
    if (!heap_.empty() && (sorted_.empty() || sorted_.back() > heap_.front())) {
      std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
      *lowest = heap_.back();
      heap_.pop_back();
      return true;
    }
    if (sorted_.empty()) return false;
    *lowest = sorted_.back();
    sorted_.pop_back();
    if (sorted_.size() >= kAhead) {  // the memory that evicting a later one needs
      const Entry& later = sorted_[sorted_.size() - kAhead];
      __builtin_prefetch(&of.row(later.row), 1);
      __builtin_prefetch(of.groups().first(later.hash), 1);
    }
    return true;
  }

  void push(const Entry& entry) {
    heap_.push_back(entry);
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  }

  std::vector<Entry> sorted_;  // the lowest last
  std::vector<Entry> heap_;
  std::vector<Entry> aside_;  // of rows that this call touches
  int64_t bound_ = 0;
  bool bounded_ = false;  // whether there was a scan
  bool all_touched_ = false;
};

}  // namespace dlrm
