// The index from its making to find_or_insert.
//
// find_or_insert has two passes. The first one, over the keys as they come, finds and touches the stored keys, whose rows no
// later eviction may take. The second one is over the missing keys alone, bucket by bucket in the order of their hashes.
#include "key_index.h"

#include <algorithm>
#include <limits>
#include <memory>

#include "key_index_state.h"
#include "probe.h"

namespace {

using dlrm::BatchKey;
using dlrm::Bucket;
using dlrm::Found;
using dlrm::KeyIndex;
using dlrm::Part;
using dlrm::Threads;

class FindOrInsert {
 public:
  FindOrInsert(KeyIndex* index, const int64_t* keys, int64_t step, const DlrmScores& scores, int64_t* rows)
      : index_(index), keys_(keys), step_(static_cast<uint32_t>(step)), scores_(scores), rows_(rows) {}

  // Fills `rows`, and the parts of the index. Returns DLRM_NO_MEMORY, and has changed nothing then.
  int run(int64_t count, const Threads& threads) {
    dlrm::Partition& missing = index_->partition;
    const int64_t num_chunks = threads.chunks(count);
    if (!missing.begin(count, num_chunks)) return DLRM_NO_MEMORY;
    begin_call(count, threads);
    fallen_.resize(static_cast<size_t>(num_chunks));
    threads(num_chunks, [&](int64_t chunk) { find_and_touch(chunk); });
    bool fell = false;
    for (const auto& of_chunk : fallen_) {
      for (const auto& [bucket, row] : of_chunk) index_->buckets[bucket].fell(row);
      fell |= !of_chunk.empty();
    }
    const int64_t num_missing = missing.num_listed(), num_buckets = index_->num_buckets();
    const int64_t num_parts = threads.chunks(num_missing, num_buckets);
    index_->begin_parts(num_parts);
    index_->counters.found += count - num_missing;
    index_->counters.missed += num_missing;
    if (num_missing > 0) {
      missing.group(*index_, threads);
      threads(num_parts, [&](int64_t i) {
        store_missing(num_buckets * i / num_parts, num_buckets * (i + 1) / num_parts, &index_->parts[static_cast<size_t>(i)]);
      });
    }
    if (fell || num_missing > 0) index_->end_call();
    return DLRM_OK;
  }

 private:
  int64_t given_score(int64_t position) const { return scores_.scores[position * scores_.stride]; }
  bool by_rule(int rule) const { return index_->rules.score == rule; }

  void begin_call(int64_t count, const Threads& threads) {
    if (index_->calls.used_up()) {
      threads(index_->num_buckets(), [&](int64_t bucket) { index_->buckets[bucket].forget_calls(); });
      index_->calls.forget();
    }
    const bool given = by_rule(DLRM_SCORE_TIMESTAMP) || by_rule(DLRM_SCORE_CUSTOM);
    scores_of_keys_ = given && scores_.stride != 0;
    int64_t score = by_rule(DLRM_SCORE_STEP) ? step_ : 0;
    if (given && count > 0) score = scores_.scores[0];
    may_fall_ = score < index_->highest_score;
    index_->highest_score = scores_of_keys_ ? INT64_MAX : std::max(index_->highest_score, score);
    index_->calls.begin(score, step_, scores_of_keys_ || by_rule(DLRM_SCORE_LFU));
    call_ = index_->calls.current();
    index_->step = std::max(index_->step, step_);
  }

  // The first pass over the keys of a chunk.
  void find_and_touch(int64_t chunk) {
    if (scores_of_keys_) {
      find_and_touch<true>(chunk, [&](int64_t i, const Found& found) {
        Bucket& of = index_->buckets[found.bucket];
        const auto before = [&](uint16_t call) { return of.score(found.row, call); };
        if (dlrm::touch_with_score(found.call, &of.row(found.row).score, call_, given_score(i), before)) {
          fell(chunk, found);
        }
      });
    } else if (by_rule(DLRM_SCORE_LFU)) {
      find_and_touch<true>(chunk, [&](int64_t, const Found& found) {
        dlrm::touch(found.call, call_);
        dlrm::count_touch(&index_->buckets[found.bucket].row(found.row).score);
      });
    } else if (may_fall_) {
      find_and_touch<true>(chunk, [&](int64_t, const Found& found) {
        const int64_t before = index_->buckets[found.bucket].score(found.row, dlrm::call_now(*found.call));
        if (dlrm::touch(found.call, call_) && index_->calls.given() < before) fell(chunk, found);
      });
    } else {
      find_and_touch<false>(chunk, [&](int64_t, const Found& found) { dlrm::touch(found.call, call_); });
    }
  }

  // touch(position, found): touches a key that is stored. kRows: whether it needs the row.
  template <bool kRows, class Touch>
  void find_and_touch(int64_t chunk, const Touch& touch) {
    dlrm::Partition& missing = index_->partition;
    BatchKey* const list = missing.list(chunk);
    int64_t length = 0;
    const auto each = [&](int64_t i, const Found& found) {
      if (found.row < 0) {
        list[length++] = {found.hash, i};
        return;
      }
      rows_[i] = index_->table_row(found.bucket, found.row);
      touch(i, found);
    };
    dlrm::probe<kRows>(*index_, keys_, missing.first_of(chunk), missing.first_of(chunk + 1), each);
    missing.set_length(chunk, length);
  }

  // Notes that the score of a row is below what it was.
  void fell(int64_t chunk, const Found& found) {
    fallen_[static_cast<size_t>(chunk)].push_back({found.bucket, found.row});
  }

  // The score of a key that is stored now, with its occurrences.
  int64_t first_score(const BatchKey* first, const BatchKey* last) const {
    if (by_rule(DLRM_SCORE_LFU)) return last - first;
    if (!scores_of_keys_) return index_->calls.given();
    int64_t score = std::numeric_limits<int64_t>::min();
    for (const BatchKey* one = first; one < last; ++one) score = std::max(score, given_score(one->position));
    return score;
  }

  void store_missing(int64_t first_bucket, int64_t last_bucket, Part* part) {
    const auto each = [&](const BatchKey* first, const BatchKey* last) {
      const int64_t row = store(first, last, part);
      for (; first < last; ++first) rows_[first->position] = row;
    };
    index_->partition.for_each_key(*index_, first_bucket, last_bucket, each);
  }

  // Stores a key, if that is possible and the rules allow it. Returns the table's row, or -1.
  int64_t store(const BatchKey* first, const BatchKey* last, Part* part) {
    const uint64_t hash = first->hash;
    const int64_t key = keys_[first->position], bucket = index_->bucket_of_hash(hash);
    dlrm::Admission& admission = index_->admission;
    if (admission.any() && !admission.admits(bucket, key, hash, last - first, step_)) {
      ++part->counters.refused;
      return -1;
    }
    Bucket& of = index_->buckets[bucket];
    if (of.full() && !index_->evict(bucket, part, std::numeric_limits<int64_t>::max(), UINT64_MAX, call_)) {
      ++part->counters.not_insertable;
      return -1;
    }
    const int32_t at = of.insert(key, hash, first_score(first, last), step_, call_);
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
  bool scores_of_keys_ = false;  // whether each key has a score of its own
  bool may_fall_ = false;        // whether the score of the call is below a score that is stored
  uint16_t call_ = 0;
  std::vector<std::vector<std::pair<int64_t, int32_t>>> fallen_;  // of each chunk: bucket and row
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
  dlrm::probe<false>(index, keys, 0, count, [&](int64_t i, const Found& one) {
    rows[i] = one.row < 0 ? -1 : index.table_row(one.bucket, one.row);
    found += one.row >= 0;
  });
  index.found += found;
  index.missed += count - found;
  return DLRM_OK;
}

int dlrm_index_find_or_insert(void* opaque, const int64_t* keys, int64_t count, int64_t step, DlrmScores scores,
                              int64_t* rows, DlrmParallelFor parallel_for, void* threads, int64_t num_threads,
                              DlrmIndexChanges* changes, int64_t* bad_key) {
  KeyIndex& index = *static_cast<KeyIndex*>(opaque);
  if (step < 0 || step > UINT32_MAX || num_threads < 1) return DLRM_BAD_ARGUMENT;
  if (const int code = index.check(keys, count, bad_key)) return code;
  FindOrInsert call(&index, keys, step, scores, rows);
  if (const int code = call.run(count, Threads(parallel_for, threads, num_threads))) return code;
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

void dlrm_index_listed(const void* index, int64_t* keys, int64_t* rows, int64_t* scores, int64_t* steps) {
  static_cast<const KeyIndex*>(index)->for_each_part([&](const Part& part) {
    for (const dlrm::Listed& one : part.listed) {
      if (keys != nullptr) *keys++ = one.key;
      if (rows != nullptr) *rows++ = one.row;
      if (scores != nullptr) *scores++ = one.score;
      if (steps != nullptr) *steps++ = one.step;
    }
  });
}

}  // extern "C"
