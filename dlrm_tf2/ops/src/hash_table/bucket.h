// One bucket: the index of its keys, its rows, and which of them are free. Used by one thread at a time.
#pragma once

#include <stdint.h>

#include <vector>

#include "eviction.h"
#include "key_groups.h"
#include "zero_pages.h"

namespace dlrm {

class alignas(64) Bucket {
 public:
  // `groups`: KeyGroups::groups_for(num_rows) groups; `rows`: num_rows rows; zeros both.
  Bucket(KeyGroup* groups, StoredRow* rows, int64_t num_rows)
      : groups_(groups, KeyGroups::groups_for(num_rows)), rows_(rows), num_rows_(num_rows) {}

  const KeyGroups& groups() const { return groups_; }
  StoredRow& row(int32_t at) const { return rows_[at]; }
  int64_t num_rows() const { return num_rows_; }
  int64_t size() const { return unused_ - static_cast<int64_t>(freed_.size()); }
  bool full() const { return unused_ == num_rows_ && freed_.empty(); }
  int32_t find(int64_t key, uint64_t hash) const { return groups_.find(key, hash); }

  // Stores a key that is not stored in a bucket that is not full. Returns its row.
  int32_t insert(const StoredRow& stored, uint64_t hash, bool touched) {
    int32_t at;
    if (freed_.empty()) {
      at = static_cast<int32_t>(unused_++);
    } else {
      at = freed_.back();
      freed_.pop_back();
    }
    rows_[at] = stored;
    groups_.insert(stored.key, hash, at);
    eviction_.wrote({stored.score, hash, at}, touched);
    return at;
  }

  void erase(int32_t at, uint64_t hash) {
    groups_.erase(rows_[at].key, hash);
    rows_[at].call = 0;
    freed_.push_back(at);
  }

  // Writes the score of a row, which is touched.
  void set_score(int32_t at, int64_t score, bool touched) {
    const bool falls = score < rows_[at].score;
    rows_[at].score = score;
    if (__builtin_expect(falls, false)) eviction_.wrote({score, hash_of(rows_[at].key), at}, touched);
  }

  // The lowest row that the call has not touched, as in eviction.h.
  bool take_lowest(uint32_t call, Eviction::Entry* lowest) {
    const auto ask_for = [this](const Eviction::Entry& entry) {
      __builtin_prefetch(&rows_[entry.row], 1);
      __builtin_prefetch(groups_.first(entry.hash), 1);
    };
    return eviction_.take_lowest(rows_, num_rows_, call, ask_for, lowest);
  }
  void give_back(const Eviction::Entry& entry) { eviction_.give_back(entry); }
  void end_call() { eviction_.end_call(num_rows_); }

 private:
  KeyGroups groups_;
  StoredRow* rows_;
  int64_t num_rows_;
  int64_t unused_ = 0;          // the rows from here on never had a key
  std::vector<int32_t> freed_;  // rows that lost theirs; the last one is taken first
  Eviction eviction_;
};

// Several buckets of the same size in one piece of memory.
class BucketArray {
 public:
  // False where the system has no memory. What was stored is lost.
  bool make(int64_t count, int64_t num_rows) {
    const int64_t num_groups = KeyGroups::groups_for(num_rows);
    buckets_.clear();
    if (!groups_.take(count * num_groups) || !rows_.take(count * num_rows)) return false;
    for (int64_t i = 0; i < count; ++i) {
      buckets_.emplace_back(groups_.data() + i * num_groups, rows_.data() + i * num_rows, num_rows);
    }
    return true;
  }

  Bucket& operator[](int64_t i) { return buckets_[static_cast<size_t>(i)]; }
  const Bucket& operator[](int64_t i) const { return buckets_[static_cast<size_t>(i)]; }
  int64_t size() const { return static_cast<int64_t>(buckets_.size()); }

 private:
  ZeroPages<KeyGroup> groups_;
  ZeroPages<StoredRow> rows_;
  std::vector<Bucket> buckets_;
};

}  // namespace dlrm
