// Which keys are stored: after how many occurrences, and with which probability. Used by one thread at a time a bucket.
#pragma once

#include <stdint.h>

#include <algorithm>
#include <vector>

#include "bucket.h"
#include "key_index.h"

namespace dlrm {

// Counts of keys that are not stored, exactly, as long as there is room: buckets whose scores are the counts.
class ExactCounter {
 public:
  bool make(int64_t num_buckets, int64_t keys_of_bucket) {
    return buckets_.make(num_buckets, keys_of_bucket, nullptr);
  }

  int64_t count(int64_t bucket, int64_t key, uint64_t hash) const {
    const int64_t slot = buckets_[bucket].groups().find(key, hash);
    return slot < 0 ? 0 : buckets_[bucket].score(buckets_[bucket].groups().row(slot));
  }

  void set(int64_t bucket, int64_t key, uint64_t hash, int64_t count) {
    Bucket& of = buckets_[bucket];
    const int64_t slot = of.groups().find(key, hash);
    if (slot >= 0) return of.assign(of.groups().row(slot), count, 0);
    if (of.full()) {
      Eviction::Entry lowest = {};
      of.take_lowest(Calls::kBusy, &lowest);
      of.erase(lowest.row, lowest.hash);
    }
    of.insert(key, hash, count, 0, Calls::kNone);
    of.end_call();
  }

  void forget(int64_t bucket, int64_t key, uint64_t hash) {
    Bucket& of = buckets_[bucket];
    const int64_t slot = of.groups().find(key, hash);
    if (slot >= 0) of.erase(of.groups().row(slot), hash);
  }

  const Bucket& bucket(int64_t i) const { return buckets_[i]; }

 private:
  BucketArray buckets_;
};

// A count-min sketch for each bucket: kLines lines of cells. The count of a key is the lowest of its cells, at least how
// often it occurred, up to 65535. Source: Estan and Varghese, "New Directions in Traffic Measurement" (2002), for the
// conservative update, which raises only the cells that are too low.
class Sketch {
 public:
  static constexpr int kLines = 4;
  static constexpr int64_t kMost = UINT16_MAX;

  bool make(int64_t num_buckets, int64_t cells_of_line) {
    width_ = cells_of_line;
    return cells_.take(num_buckets * cells_of_bucket());
  }

  int64_t cells_of_bucket() const { return kLines * width_; }
  uint16_t* cells(int64_t bucket) const { return cells_.data() + bucket * cells_of_bucket(); }

  // The count of a key after `occurrences` more.
  int64_t add(int64_t bucket, uint64_t hash, int64_t occurrences) {
    uint16_t* found[kLines];
    int64_t lowest = kMost;
    for (int line = 0; line < kLines; ++line) {
      const uint64_t bits = mix64(hash + static_cast<uint64_t>(line + 1) * kGamma);
      found[line] = cells(bucket) + line * width_ + below(static_cast<uint32_t>(bits >> 32), width_);
      lowest = std::min<int64_t>(lowest, *found[line]);
    }
    const int64_t count = std::min(kMost, lowest + occurrences);
    for (uint16_t* cell : found) *cell = std::max(*cell, static_cast<uint16_t>(count));
    return count;
  }

 private:
  int64_t width_ = 0;
  ZeroPages<uint16_t> cells_;
};

class Admission {
 public:
  // False where the system has no memory. Counts are lost.
  bool make(const DlrmIndexBuckets& buckets, const DlrmIndexRules& rules) {
    rules_ = rules;
    if (!counts()) return true;
    const int64_t owned = buckets.last_bucket - buckets.first_bucket;
    const int64_t share = rules.counter_size / buckets.num_buckets;  // of each bucket
    if (rules.counter == DLRM_COUNT_EXACT) return exact_.make(owned, std::max<int64_t>(1, share));
    return sketch_.make(owned, std::max<int64_t>(1, share / Sketch::kLines / static_cast<int64_t>(sizeof(uint16_t))));
  }

  bool counts() const { return rules_.admit_after > 1; }
  bool any() const { return counts() || rules_.admit_probability < 1; }

  // Whether a key that occurs `occurrences` times in this call, and is not stored, may be stored. Counts it.
  bool admits(int64_t bucket, int64_t key, uint64_t hash, int64_t occurrences, int64_t step) {
    if (rules_.admit_probability < 1) {
      const uint64_t bits = mix64(mix64(mix64(rules_.seed) + static_cast<uint64_t>(step) * kGamma) ^ hash);
      if (static_cast<double>(bits >> 11) * 0x1p-53 >= rules_.admit_probability) return false;
    }
    if (!counts()) return true;
    if (rules_.counter == DLRM_COUNT_SKETCH) return sketch_.add(bucket, hash, occurrences) >= rules_.admit_after;
    const int64_t count = exact_.count(bucket, key, hash) + occurrences;
    if (count >= rules_.admit_after) return true;
    exact_.set(bucket, key, hash, count);
    return false;
  }

  // The key is stored: its exact count is forgotten.
  void stored(int64_t bucket, int64_t key, uint64_t hash) {
    if (counts() && rules_.counter == DLRM_COUNT_EXACT) exact_.forget(bucket, key, hash);
  }

  ExactCounter& exact() { return exact_; }
  Sketch& sketch() { return sketch_; }

 private:
  DlrmIndexRules rules_ = {};
  ExactCounter exact_;
  Sketch sketch_;
};

}  // namespace dlrm
