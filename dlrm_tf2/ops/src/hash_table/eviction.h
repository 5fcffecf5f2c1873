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
// entry is left, a scan of the bucket sets a bound below which a sixteenth of the rows lie. The entries of a scan are
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
  // False where the call has touched all rows. ask_for(entry): asks for the memory that evicting it needs.
  template <class Bucket, class AskFor>
  bool take_lowest(const Bucket& of, uint16_t call, const AskFor& ask_for, Entry* lowest) {
    while (!all_touched_) {
      while (take(lowest, ask_for)) {
        const int32_t row = lowest->row;
        if (!of.has_key(row) || hash_of(of.row(row).key) != lowest->hash) continue;
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
  static constexpr size_t kAhead = 8;

  // New entries, and a higher bound. False where the call has touched all rows.
  template <class Bucket>
  bool scan(const Bucket& of, uint16_t call) {
    std::vector<int64_t> scores;
    const auto each_row = [&](const auto& each) {  // in the order of the groups, where the calls are
      for (int64_t slot = 0; slot < of.groups().num_slots(); ++slot) {
        const int32_t row = of.groups().row(slot);
        if (row >= 0) each(slot, row, of.score(row, of.groups().call(slot)));
      }
    };
    each_row([&](int64_t slot, int32_t, int64_t score) {
      if (of.groups().call(slot) != call) scores.push_back(score);
    });
    if (scores.empty()) return false;
    const auto middle = scores.begin() + static_cast<int64_t>(scores.size() / 16);
    std::nth_element(scores.begin(), middle, scores.end());
    bound_ = *middle;
    bounded_ = true;
    aside_.clear();
    each_row([&](int64_t slot, int32_t row, int64_t score) {
      if (score > bound_) return;
      (of.groups().call(slot) == call ? aside_ : sorted_).push_back({score, hash_of(of.groups().key(slot)), row});
    });
    std::sort(sorted_.begin(), sorted_.end(), std::greater<>());
    return true;
  }

  // The lowest entry of all. False where there is none.
  template <class AskFor>
  bool take(Entry* lowest, const AskFor& ask_for) {
    if (!heap_.empty() && (sorted_.empty() || sorted_.back() > heap_.front())) {
      std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
      *lowest = heap_.back();
      heap_.pop_back();
      return true;
    }
    if (sorted_.empty()) return false;
    *lowest = sorted_.back();
    sorted_.pop_back();
    if (sorted_.size() >= kAhead) ask_for(sorted_[sorted_.size() - kAhead]);
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
