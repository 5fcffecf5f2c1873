// What the calls of key_index.h have in common: the index, and a batch of keys on its way through it.
#pragma once

#include <stdint.h>

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "admission.h"
#include "bucket.h"
#include "key_index.h"
#include "partition.h"

namespace dlrm {

// A key with what a list says about it.
struct Listed {
  int64_t key, row, score, step;
};

// A key of a batch that is not stored: all of a batch, sorted by hash, are sorted by bucket too.
struct Missing {
  uint64_t hash;
  int64_t position;
};

// What a call did in some buckets, which one thread worked on.
struct Part {
  std::vector<Missing> missing;
  std::vector<std::pair<int64_t, int64_t>> fresh;  // (row, key)
  std::vector<Listed> listed;
  DlrmIndexCounters counters;

  void clear() {
    missing.clear();
    fresh.clear();
    listed.clear();
    counters = {};
  }
};

struct KeyIndex {
  DlrmIndexBuckets owned;
  DlrmIndexRules rules;
  BucketArray buckets;
  Admission admission;
  std::vector<std::vector<std::pair<uint32_t, int64_t>>> erased;  // by bucket: (step, key) in the order of the steps
  DlrmIndexCounters counters = {};
  mutable std::atomic<int64_t> found{0}, missed{0};  // by finds
  uint32_t call = kNoCall;                           // number of the last call that touched rows
  uint32_t step = 0;                                 // the highest one given
  std::vector<Part> parts;                           // of the last call, in the order of the buckets
  int64_t num_parts = 0;
  Partition partition;

  bool make() {
    erased.assign(static_cast<size_t>(num_buckets()), {});
    call = kNoCall;
    return buckets.make(num_buckets(), owned.rows_per_bucket) && admission.make(owned, rules);
  }

  int64_t num_buckets() const { return owned.last_bucket - owned.first_bucket; }

  // The bucket of a hash, from 0 for the first one of this index; another number where it is another index's.
  int64_t bucket_of_hash(uint64_t hash) const { return bucket_of(hash, owned.num_buckets) - owned.first_bucket; }
  bool owns(int64_t bucket) const { return static_cast<uint64_t>(bucket) < static_cast<uint64_t>(num_buckets()); }

  // The table's row.
  int64_t table_row(int64_t bucket, int32_t row) const {
    return (owned.first_bucket + bucket) * owned.rows_per_bucket + row;
  }

  // DLRM_BAD_ID, and which, where a key is of another index's bucket.
  int check(const int64_t* keys, int64_t count, int64_t* bad_key) const {
    for (int64_t i = 0; i < count; ++i) {
      if (owns(bucket_of_hash(hash_of(keys[i])))) continue;
      *bad_key = keys[i];
      return DLRM_BAD_ID;
    }
    return DLRM_OK;
  }

  // Begins a call that touches rows.
  void begin_call() {
    if (call == UINT32_MAX) {
      for (int64_t i = 0; i < buckets.size(); ++i) {
        for (int32_t at = 0; at < owned.rows_per_bucket; ++at) {
          uint32_t& of_row = buckets[i].row(at).call;
          of_row = of_row == 0 ? 0 : kNoCall;
        }
      }
      call = kNoCall;
    }
    ++call;
  }

  // Begins a list that is made in `count` parts.
  void begin_parts(int64_t count) {
    if (static_cast<int64_t>(parts.size()) < count) parts.resize(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) parts[static_cast<size_t>(i)].clear();
    num_parts = count;
  }

  template <class Each>
  void for_each_part(const Each& each) const {
    for (int64_t i = 0; i < num_parts; ++i) each(parts[static_cast<size_t>(i)]);
  }

  int64_t num_listed() const {
    int64_t count = 0;
    for_each_part([&](const Part& part) { count += static_cast<int64_t>(part.listed.size()); });
    return count;
  }

  // Takes a key out of its bucket, and notes it where that is asked for.
  void erase(int64_t bucket, int32_t at, uint64_t hash, uint32_t in_step) {
    if (rules.log_erased) {
      erased[static_cast<size_t>(bucket)].push_back({in_step, buckets[bucket].row(at).key});
    }
    buckets[bucket].erase(at, hash);
  }

  // Erases the lowest row of a full bucket, if it is below (score, hash), and lists it. False where there is none.
  bool evict(int64_t bucket, Part* part, int64_t score_limit, uint64_t hash_limit, uint32_t touched_call) {
    Bucket& of = buckets[bucket];
    Eviction::Entry lowest = {};
    if (rules.score == DLRM_SCORE_NO_EVICTION || !of.take_lowest(touched_call, &lowest)) return false;
    if (std::make_pair(lowest.score, lowest.hash) > std::make_pair(score_limit, hash_limit)) {
      of.give_back(lowest);
      return false;
    }
    const StoredRow& row = of.row(lowest.row);
    part->listed.push_back({row.key, table_row(bucket, lowest.row), row.score, row.step});
    ++part->counters.evicted;
    erase(bucket, lowest.row, lowest.hash, step);
    return true;
  }
};

// Adds counters to counters.
inline void add(DlrmIndexCounters* to, const DlrmIndexCounters& from) {
  static_assert(sizeof(DlrmIndexCounters) % sizeof(int64_t) == 0, "only numbers");
  auto* const sums = reinterpret_cast<int64_t*>(to);
  const auto* const more = reinterpret_cast<const int64_t*>(&from);
  for (size_t i = 0; i < sizeof(DlrmIndexCounters) / sizeof(int64_t); ++i) sums[i] += more[i];
}

}  // namespace dlrm
