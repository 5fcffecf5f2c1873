// One bucket: the index of its keys, its rows, and which of them are free. Used by one thread at a time, unless it says so.
#pragma once

#include <stdint.h>

#include <vector>

#include "eviction.h"
#include "key_groups.h"
#include "touches.h"
#include "zero_pages.h"

namespace dlrm {

class alignas(64) Bucket {
 public:
  // `groups`: KeyGroups::groups_for(num_rows) groups; `rows`: num_rows rows; zeros both. `calls`: of the index; null where
  // all scores are in the rows.
  Bucket(KeyGroup* groups, StoredRow* rows, int64_t num_rows, const Calls* calls)
      : groups_(groups, KeyGroups::groups_for(num_rows)), rows_(rows), num_rows_(num_rows), calls_(calls) {}

  const KeyGroups& groups() const { return groups_; }
  StoredRow& row(int32_t at) const { return rows_[at]; }
  int64_t num_rows() const { return num_rows_; }
  int64_t size() const { return unused_ - static_cast<int64_t>(freed_.size()); }
  bool full() const { return unused_ == num_rows_ && freed_.empty(); }

  // Of a row with a key.
  bool has_key(int32_t at) const { return rows_[at].slot != 0; }
  int64_t slot(int32_t at) const { return static_cast<int64_t>(rows_[at].slot) - 1; }
  const KeyGroup* group(int32_t at) const { return groups_.of_slot(slot(at)); }
  int64_t key(int32_t at) const { return groups_.key(slot(at)); }
  uint16_t call(int32_t at) const { return groups_.call(slot(at)); }
  int64_t score(int32_t at) const { return score(at, call(at)); }
  uint32_t step(int32_t at) const { return step(at, call(at)); }

  // The same, where the call that touched the row last is known.
  int64_t score(int32_t at, uint16_t call) const {
    return call == Calls::kNone || calls_->scores_in_rows(call) ? rows_[at].score : calls_->score(call);
  }
  uint32_t step(int32_t at, uint16_t call) const { return call == Calls::kNone ? rows_[at].step : calls_->step(call); }

  // Stores a key that is not stored in a bucket that is not full, as touched by `call`, a number or Calls::kNone.
  // Returns its row.
  int32_t insert(int64_t key, uint64_t hash, int64_t score, uint32_t step, uint16_t call) {
    int32_t at;
    if (freed_.empty()) {
      at = static_cast<int32_t>(unused_++);
    } else {
      at = freed_.back();
      freed_.pop_back();
    }
    const int64_t slot = groups_.insert(key, hash, at);
    groups_.call(slot) = call;
    rows_[at] = {score, step, static_cast<uint32_t>(slot + 1)};
    eviction_.wrote({score, hash, at}, call != Calls::kNone);
    return at;
  }

  void erase(int32_t at, uint64_t hash) {
    groups_.erase(slot(at), hash);
    rows_[at].slot = 0;
    freed_.push_back(at);
  }

  // Writes score and step into the row, as no call gives them.
  void assign(int32_t at, int64_t score, uint32_t step) {
    const bool falls = score < this->score(at);
    rows_[at].score = score;
    rows_[at].step = step;
    groups_.call(slot(at)) = Calls::kNone;
    if (falls) eviction_.wrote({score, hash_of(key(at)), at}, false);
  }

  // Whether fell() must be called for a key whose score falls to this one. Several threads may call it.
  bool watches(int64_t score) const { return eviction_.watches(score); }
  // The current call touched a row and gave it a lower score than it had.
  void fell(int32_t at) { eviction_.wrote({score(at), hash_of(key(at)), at}, true); }

  // The lowest row that the call has not touched, as in eviction.h.
  bool take_lowest(uint16_t call, Eviction::Entry* lowest) { return eviction_.take_lowest(*this, call, lowest); }
  void give_back(const Eviction::Entry& entry) { eviction_.give_back(entry); }
  void end_call() { eviction_.end_call(num_rows_); }

  // Writes all scores and steps into the rows.
  void forget_calls() {
    for (int64_t slot = 0; slot < groups_.num_slots(); ++slot) {
      const int32_t at = groups_.row(slot);
      const uint16_t call = groups_.call(slot);
      if (at < 0 || call == Calls::kNone) continue;
      rows_[at].score = score(at, call);
      rows_[at].step = step(at, call);
      groups_.call(slot) = Calls::kNone;
    }
  }

 private:
  KeyGroups groups_;
  StoredRow* rows_;
  int64_t num_rows_;
  const Calls* calls_;
  int64_t unused_ = 0;          // the rows from here on never had a key
  std::vector<int32_t> freed_;  // rows that lost theirs; the last one is taken first
  Eviction eviction_;
};

// Several buckets of the same size in one piece of memory.
class BucketArray {
 public:
  // False where the system has no memory. What was stored is lost.
  bool make(int64_t count, int64_t num_rows, const Calls* calls) {
    const int64_t num_groups = KeyGroups::groups_for(num_rows);
    buckets_.clear();
    if (!groups_.take(count * num_groups) || !rows_.take(count * num_rows)) return false;
    for (int64_t i = 0; i < count; ++i) {
      buckets_.emplace_back(groups_.data() + i * num_groups, rows_.data() + i * num_rows, num_rows, calls);
    }
    return true;
  }

  Bucket& operator[](int64_t i) { return buckets_[static_cast<size_t>(i)]; }
  const Bucket& operator[](int64_t i) const { return buckets_[static_cast<size_t>(i)]; }
  int64_t size() const { return static_cast<int64_t>(buckets_.size()); }
  KeyGroup* groups() const { return groups_.data(); }  // bucket after bucket

 private:
  ZeroPages<KeyGroup> groups_;
  ZeroPages<StoredRow> rows_;
  std::vector<Bucket> buckets_;
};

}  // namespace dlrm
