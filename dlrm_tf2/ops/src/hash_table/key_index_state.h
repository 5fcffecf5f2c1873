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
#include "key_search.h"
#include "partition.h"

namespace dlrm {

// A key with what a list says about it.
struct Listed {
  int64_t key, row, score, step;
};

// What a call did in some buckets, which one thread worked on.
struct Part {
  std::vector<std::pair<int64_t, int64_t>> fresh;  // (row, key)
  std::vector<Listed> listed;
  DlrmIndexCounters counters;

  void clear() {
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
  Calls calls;
  int64_t highest_score = INT64_MIN;                 // at least every score
  uint32_t step = 0;                                 // the highest one given
  std::vector<Part> parts;                           // of the last call, in the order of the buckets
  int64_t num_parts = 0;
  Partition partition;

  bool make() {
    erased.assign(static_cast<size_t>(num_buckets()), {});
    calls.forget();
    highest_score = INT64_MIN;
    return buckets.make(num_buckets(), owned.rows_per_bucket, &calls) && admission.make(owned, rules);
  }

  int64_t num_buckets() const { return owned.last_bucket - owned.first_bucket; }

  IndexShape shape() const {
    return {buckets.groups(), KeyGroups::groups_for(owned.rows_per_bucket), owned.num_buckets, owned.first_bucket};
  }

  // The bucket of a hash, from 0 for the first one of this index; another number where it is another index's.
  int64_t bucket_of_hash(uint64_t hash) const { return bucket_of(hash, owned.num_buckets) - owned.first_bucket; }
  bool owns(int64_t bucket) const { return static_cast<uint64_t>(bucket) < static_cast<uint64_t>(num_buckets()); }

  // The table's row.
  int64_t table_row(int64_t bucket, int32_t row) const {
    return (owned.first_bucket + bucket) * owned.rows_per_bucket + row;
  }

  // DLRM_BAD_ID, and which, where a key is of another index's bucket.
  int check(const int64_t* keys, int64_t count, int64_t* bad_key) const {
    if (num_buckets() == owned.num_buckets) return DLRM_OK;
    for (int64_t i = 0; i < count; ++i) {
      if (owns(bucket_of_hash(hash_of(keys[i])))) continue;
      *bad_key = keys[i];
      return DLRM_BAD_ID;
    }
    return DLRM_OK;
  }

  void end_call() {
    for (int64_t bucket = 0; bucket < num_buckets(); ++bucket) buckets[bucket].end_call();
  }

  // Where the search for a key with this hash begins.
  const KeyGroup* place(uint64_t hash) const { return buckets[bucket_of_hash(hash)].groups().first(hash); }

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

  // What a list says about a row with a key.
  Listed listed(int64_t bucket, int32_t at) const {
    const Bucket& of = buckets[bucket];
    return {of.key(at), table_row(bucket, at), of.score(at), of.step(at)};
  }

  // Takes a key out of its bucket, and notes it where that is asked for.
  void erase(int64_t bucket, int32_t at, uint64_t hash, uint32_t in_step) {
    if (rules.log_erased) {
      erased[static_cast<size_t>(bucket)].push_back({in_step, buckets[bucket].key(at)});
    }
    buckets[bucket].erase(at, hash);
  }

  // Erases the lowest row of a full bucket, if it is below (score, hash), and lists it. False where there is none.
  bool evict(int64_t bucket, Part* part, int64_t score_limit, uint64_t hash_limit, uint16_t touched_call) {
    Bucket& of = buckets[bucket];
    Eviction::Entry lowest = {};
    if (rules.score == DLRM_SCORE_NO_EVICTION || !of.take_lowest(touched_call, &lowest)) return false;
    if (std::make_pair(lowest.score, lowest.hash) > std::make_pair(score_limit, hash_limit)) {
      of.give_back(lowest);
      return false;
    }
    part->listed.push_back(listed(bucket, lowest.row));
    ++part->counters.evicted;
    erase(bucket, lowest.row, lowest.hash, step);
    return true;
  }
};

// How a call is divided among threads: into chunks of its keys, and later into parts of the buckets. Nothing that is stored
// or answered depends on it.
class Threads {
 public:
  Threads(DlrmParallelFor parallel_for, void* threads, int64_t num_threads)
      : parallel_for_(parallel_for), threads_(threads), num_threads_(num_threads) {}

  template <class Run>
  void operator()(int64_t count, const Run& run) const {
    if (count == 1) return run(0);
    in_parallel(parallel_for_, threads_, count, run);
  }

  // Chunks for `count` keys, at least 1 and at most `most`.
  int64_t chunks(int64_t count, int64_t most = INT64_MAX) const {
    constexpr int64_t kLeastKeys = 1024, kPerThread = 4;  // so that a thread that was held up does not keep the others
    if (num_threads_ == 1) return 1;
    return std::max<int64_t>(1, std::min({count / kLeastKeys, kPerThread * num_threads_, most}));
  }

 private:
  const DlrmParallelFor parallel_for_;
  void* const threads_;
  const int64_t num_threads_;
};

// Adds counters to counters.
inline void add(DlrmIndexCounters* to, const DlrmIndexCounters& from) {
  static_assert(sizeof(DlrmIndexCounters) % sizeof(int64_t) == 0, "only numbers");
  auto* const sums = reinterpret_cast<int64_t*>(to);
  const auto* const more = reinterpret_cast<const int64_t*>(&from);
  for (size_t i = 0; i < sizeof(DlrmIndexCounters) / sizeof(int64_t); ++i) sums[i] += more[i];
}

}  // namespace dlrm
