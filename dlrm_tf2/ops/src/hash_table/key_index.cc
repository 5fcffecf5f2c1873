// The index from its making to find_or_insert.
//
// find_or_insert has two passes over the keys of a bucket: stored keys are touched, whose rows no later eviction may take;
// then the missing keys are sorted by hash and taken one after the other. A large batch is sorted into buckets first, and
// threads take bucket after bucket.
#include "key_index.h"

#include <algorithm>
#include <limits>
#include <memory>

#include "key_index_state.h"
#include "probe.h"

namespace {

using dlrm::Bucket;
using dlrm::KeyIndex;
using dlrm::Missing;
using dlrm::Part;
using dlrm::StoredRow;

constexpr int64_t kSmallBatch = 4096;  // keys that one thread takes as they are
constexpr int64_t kAhead = 8;          // missing keys whose groups are asked for

class FindOrInsert {
 public:
  FindOrInsert(KeyIndex* index, const int64_t* keys, int64_t step, const DlrmScores& scores, int64_t* rows)
      : index_(index), keys_(keys), step_(static_cast<uint32_t>(step)), scores_(scores), rows_(rows) {}

  // `keys`: all of the call's that are of buckets first .. last - 1; positions: theirs in the call, null for 0, 1, 2 ...
  void run(const int64_t* keys, const uint32_t* positions, int64_t count, int64_t first, int64_t last, Part* part) {
    dlrm::probe<true>(*index_, keys, count, [&](int64_t i, uint64_t hash, int64_t bucket, int32_t row) {
      const int64_t position = positions == nullptr ? i : positions[i];
      if (row < 0) {
        part->missing.push_back({hash, position});
      } else {
        touch(&index_->buckets[bucket], row, position);
        rows_[position] = index_->table_row(bucket, row);
      }
    });
    part->counters.missed = static_cast<int64_t>(part->missing.size());
    part->counters.found = count - part->counters.missed;
    store_missing(part);
    for (int64_t bucket = first; bucket < last; ++bucket) index_->buckets[bucket].end_call();
  }

 private:
  int64_t given_score(int64_t position) const { return scores_.scores[position * scores_.stride]; }

  void touch(Bucket* bucket, int32_t at, int64_t position) {
    StoredRow& row = bucket->row(at);
    const bool again = row.call == index_->call;
    row.call = index_->call;
    row.step = step_;
    switch (index_->rules.score) {
      case DLRM_SCORE_NO_EVICTION: break;
      case DLRM_SCORE_LFU: ++row.score; break;
      case DLRM_SCORE_STEP: bucket->set_score(at, step_, true); break;
      default: {
        const int64_t score = given_score(position);
        bucket->set_score(at, again ? std::max(row.score, score) : score, true);
      }
    }
  }

  // The score of a key that is stored now, with its occurrences.
  int64_t first_score(const Missing* first, const Missing* last) const {
    switch (index_->rules.score) {
      case DLRM_SCORE_NO_EVICTION: return 0;
      case DLRM_SCORE_LFU: return last - first;
      case DLRM_SCORE_STEP: return step_;
    }
    int64_t score = std::numeric_limits<int64_t>::min();
    for (const Missing* one = first; one < last; ++one) score = std::max(score, given_score(one->position));
    return score;
  }

  void store_missing(Part* part) {
    std::vector<Missing>& missing = part->missing;
    std::sort(missing.begin(), missing.end(), [](const Missing& a, const Missing& b) { return a.hash < b.hash; });
    const Missing* const end = missing.data() + missing.size();
    for (const Missing* one = missing.data(); one < end;) {
      if (end - one > kAhead) {
        const uint64_t hash = one[kAhead].hash;
        __builtin_prefetch(index_->buckets[index_->bucket_of_hash(hash)].groups().first(hash), 1);
      }
      const Missing* next = one + 1;
      while (next < end && next->hash == one->hash) ++next;
      const int64_t row = store(one, next, part);
      for (; one < next; ++one) rows_[one->position] = row;
    }
  }

  // Stores a key, if that is possible and the rules allow it. Returns the table's row, or -1.
  int64_t store(const Missing* first, const Missing* last, Part* part) {
    const uint64_t hash = first->hash;
    const int64_t key = keys_[first->position], bucket = index_->bucket_of_hash(hash);
    dlrm::Admission& admission = index_->admission;
    if (admission.any() && !admission.admits(bucket, key, hash, last - first, step_)) {
      ++part->counters.refused;
      return -1;
    }
    Bucket& of = index_->buckets[bucket];
    if (of.full() && !index_->evict(bucket, part, std::numeric_limits<int64_t>::max(), UINT64_MAX, index_->call)) {
      ++part->counters.not_insertable;
      return -1;
    }
    const int32_t at = of.insert({key, first_score(first, last), step_, index_->call}, hash, true);
    admission.stored(bucket, key, hash);
    ++part->counters.inserted;
    part->counters.admitted += admission.any();
    const int64_t row = index_->table_row(bucket, at);
    part->fresh.push_back({row, key});
    return row;
  }

  KeyIndex* const index_;
  const int64_t* const keys_;
  const uint32_t step_;
  const DlrmScores scores_;
  int64_t* const rows_;
};

bool good(const DlrmIndexBuckets& buckets, const DlrmIndexRules& rules) {
  return buckets.num_buckets >= 1 && buckets.num_buckets <= INT32_MAX && buckets.rows_per_bucket >= 1 &&
         buckets.rows_per_bucket < INT32_MAX && 0 <= buckets.first_bucket && buckets.first_bucket <= buckets.last_bucket &&
         buckets.last_bucket <= buckets.num_buckets && rules.score >= DLRM_SCORE_TIMESTAMP &&
         rules.score <= DLRM_SCORE_NO_EVICTION && rules.admit_after >= 1 && rules.admit_probability >= 0 &&
         rules.admit_probability <= 1 && rules.counter_size >= 0 &&
         (rules.counter == DLRM_COUNT_EXACT || rules.counter == DLRM_COUNT_SKETCH) &&
         (rules.counter == DLRM_COUNT_EXACT || rules.admit_after <= dlrm::Sketch::kMost);
}

}  // namespace

extern "C" {

void* dlrm_index_new(const DlrmIndexBuckets* buckets, const DlrmIndexRules* rules) {
  if (!good(*buckets, *rules)) return nullptr;
  auto index = std::make_unique<KeyIndex>();
  index->owned = *buckets;
  index->rules = *rules;
  return index->make() ? index.release() : nullptr;
}

void dlrm_index_delete(void* index) { delete static_cast<KeyIndex*>(index); }

int dlrm_index_find(const void* opaque, const int64_t* keys, int64_t count, int64_t* rows, int64_t* bad_key) {
  const KeyIndex& index = *static_cast<const KeyIndex*>(opaque);
  if (const int code = index.check(keys, count, bad_key)) return code;
  int64_t found = 0;
  dlrm::probe<false>(index, keys, count, [&](int64_t i, uint64_t, int64_t bucket, int32_t row) {
    rows[i] = row < 0 ? -1 : index.table_row(bucket, row);
    found += row >= 0;
  });
  index.found += found;
  index.missed += count - found;
  return DLRM_OK;
}

int dlrm_index_find_or_insert(void* opaque, const int64_t* keys, int64_t count, int64_t step, DlrmScores scores,
                              int64_t* rows, DlrmParallelFor parallel_for, void* threads, int64_t num_threads,
                              DlrmIndexChanges* changes, int64_t* bad_key) {
  KeyIndex& index = *static_cast<KeyIndex*>(opaque);
  if (step < 0 || step > UINT32_MAX || count > UINT32_MAX || num_threads < 1) return DLRM_BAD_ARGUMENT;
  const auto all = [&](int64_t n, const auto& run) { dlrm::in_parallel(parallel_for, threads, n, run); };
  const bool whole = count < kSmallBatch || index.num_buckets() <= 1;
  const int code = whole ? index.check(keys, count, bad_key)
                         : index.partition.run(index, keys, count, all, num_threads, bad_key);
  if (code != DLRM_OK) return code;
  index.begin_call();
  index.step = std::max(index.step, static_cast<uint32_t>(step));
  FindOrInsert call(&index, keys, step, scores, rows);
  if (whole) {
    index.begin_parts(1);
    call.run(keys, nullptr, count, 0, index.num_buckets(), &index.parts[0]);
  } else {
    index.begin_parts(index.num_buckets());
    const dlrm::Partition& sorted = index.partition;
    all(index.num_buckets(), [&](int64_t bucket) {
      call.run(sorted.keys(bucket), sorted.positions(bucket), sorted.count(bucket), bucket, bucket + 1,
               &index.parts[static_cast<size_t>(bucket)]);
    });
  }
  *changes = {0, index.num_listed()};
  index.for_each_part([&](const Part& part) {
    changes->fresh += static_cast<int64_t>(part.fresh.size());
    dlrm::add(&index.counters, part.counters);
  });
  return DLRM_OK;
}

void dlrm_index_fresh(const void* index, int64_t* rows, int64_t* keys) {
  static_cast<const KeyIndex*>(index)->for_each_part([&](const Part& part) {
    for (const auto& [row, key] : part.fresh) {
      *rows++ = row;
      *keys++ = key;
    }
  });
}

}  // extern "C"
