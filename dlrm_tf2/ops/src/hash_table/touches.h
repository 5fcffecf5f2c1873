// When keys were touched last, and their scores.
//
// Most calls give all of their keys one step and one score. So a touch writes no more than the number of the call, two bytes
// in the line of the key, which a search has read anyway, and the index notes what the call gave. Where keys have scores of
// their own, a touch writes the score in the key's row too.
#pragma once

#include <stdint.h>

#include <algorithm>
#include <vector>

namespace dlrm {

// What is kept for a row besides its key, its weights and the state of its optimizer.
struct StoredRow {
  int64_t score;
  uint32_t step;
  uint32_t slot;  // of the row's key, + 1; 0 for a row without a key
};

// What the calls so far gave the keys that they touched. Calls have the numbers 1, 2, ...
class Calls {
 public:
  static constexpr uint16_t kNone = 0;           // no call: score and step are in the row
  static constexpr uint16_t kBusy = UINT16_MAX;  // a thread is writing the score; as a call, one that has touched no key

  uint16_t current() const { return static_cast<uint16_t>(calls_.size()); }
  int64_t given() const { return calls_.back().score; }  // in the current call

  // Whether there is no number for another call: then all calls must be forgotten, and no key may have one's number.
  bool used_up() const { return calls_.size() == kBusy - 1; }
  void forget() { calls_.clear(); }

  // Begins a call. scores_in_rows: whether the rows of the keys have their scores, and not `score`.
  void begin(int64_t score, uint32_t step, bool scores_in_rows) { calls_.push_back({score, step, scores_in_rows}); }

  int64_t score(uint16_t call) const { return of(call).score; }
  uint32_t step(uint16_t call) const { return of(call).step; }
  bool scores_in_rows(uint16_t call) const { return of(call).scores_in_rows; }

 private:
  struct Call {
    int64_t score;
    uint32_t step;
    bool scores_in_rows;
  };

  const Call& of(uint16_t call) const { return calls_[call - 1u]; }

  std::vector<Call> calls_;
};

// ---- touches by several threads at once: the same for any order -----------------------------------------------------

inline uint16_t call_now(const uint16_t& call) { return __atomic_load_n(&call, __ATOMIC_RELAXED); }

// Notes the call. False where it was noted already.
inline bool touch(uint16_t* call, uint16_t current) {
  if (call_now(*call) == current) return false;
  __atomic_store_n(call, current, __ATOMIC_RELAXED);
  return true;
}

inline void count_touch(int64_t* score) { __atomic_fetch_add(score, 1, __ATOMIC_RELAXED); }

// Gives a key a score of its own; of several in a call the highest. Returns whether this call's first score of the key is
// below the score that it had, which `score_before(call)` says.
template <class ScoreBefore>
bool touch_with_score(uint16_t* call, int64_t* score, uint16_t current, int64_t given, const ScoreBefore& score_before) {
  uint16_t before = __atomic_load_n(call, __ATOMIC_ACQUIRE);
  while (before != current) {
    if (before == Calls::kBusy) {
      before = __atomic_load_n(call, __ATOMIC_ACQUIRE);
    } else if (__atomic_compare_exchange_n(call, &before, Calls::kBusy, false, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE)) {
      const bool falls = given < score_before(before);
      __atomic_store_n(score, given, __ATOMIC_RELAXED);
      __atomic_store_n(call, current, __ATOMIC_RELEASE);
      return falls;
    }
  }
  int64_t highest = __atomic_load_n(score, __ATOMIC_RELAXED);
  while (highest < given) {
    if (__atomic_compare_exchange_n(score, &highest, given, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) break;
  }
  return false;
}

}  // namespace dlrm
