// Which row of a bucket is evicted next: the lowest (score, hash of the key) of the rows that the call does not touch.
#pragma once

#include <stdint.h>

#include <algorithm>
#include <functional>
#include <tuple>
#include <vector>

#include "key_hash.h"

namespace dlrm {

// What is kept for a row besides its weights and the state of its optimizer.
struct StoredRow {
  int64_t key, score;
  uint32_t step;  // of the last touch
  uint32_t call;  // number of the last call that touched the row; 0 for a row without a key
};
constexpr uint32_t kNoCall = 1;  // for a row with a key that no call has touched; calls have higher numbers

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
  template <class AskFor>
  bool take_lowest(const StoredRow* rows, int64_t num_rows, uint32_t call, const AskFor& ask_for, Entry* lowest) {
    while (!all_touched_) {
      while (take(lowest, ask_for)) {
        const StoredRow& row = rows[lowest->row];
        if (row.call == 0 || row.score < lowest->score || hash_of(row.key) != lowest->hash) continue;
        if (row.score > lowest->score) {
          if (row.score <= bound_) push({row.score, lowest->hash, lowest->row});
        } else if (row.call == call) {
          aside_.push_back(*lowest);
        } else {
          return true;
        }
      }
      all_touched_ = !scan(rows, num_rows, call);
    }
    return false;
  }

  void give_back(const Entry& entry) { push(entry); }

  // To be called when a row gets a key, or its score falls.
  void wrote(const Entry& entry, bool touched) {
    if (!bounded_ || entry.score > bound_) return;
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
  bool scan(const StoredRow* rows, int64_t num_rows, uint32_t call) {
    std::vector<int64_t> scores;
    for (int64_t i = 0; i < num_rows; ++i) {
      if (rows[i].call != 0 && rows[i].call != call) scores.push_back(rows[i].score);
    }
    if (scores.empty()) return false;
    const auto middle = scores.begin() + static_cast<int64_t>(scores.size() / 16);
    std::nth_element(scores.begin(), middle, scores.end());
    bound_ = *middle;
    bounded_ = true;
    aside_.clear();
    for (int64_t i = 0; i < num_rows; ++i) {
      if (rows[i].call == 0 || rows[i].score > bound_) continue;
      const Entry entry = {rows[i].score, hash_of(rows[i].key), static_cast<int32_t>(i)};
      (rows[i].call == call ? aside_ : sorted_).push_back(entry);
    }
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
