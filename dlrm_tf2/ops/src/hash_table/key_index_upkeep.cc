// The calls that load, erase and export what an index has.
#include <algorithm>
#include <utility>
#include <vector>

#include "key_index_state.h"
#include "probe.h"

namespace {

using dlrm::BatchKey;
using dlrm::Bucket;
using dlrm::Calls;
using dlrm::KeyIndex;
using dlrm::Listed;
using dlrm::Part;
using dlrm::Threads;

// Begins a list in one part.
std::vector<Listed>* begin_list(KeyIndex* index) {
  index->begin_parts(1);
  return &index->parts[0].listed;
}

// Lists keys, and calls run(first_bucket, last_bucket, part) for parts of the buckets. list(first, last, to): lists what is
// wanted of the keys first .. last - 1, and returns how many. Returns DLRM_NO_MEMORY, and has changed nothing then.
template <class List, class Run>
int by_buckets(KeyIndex* index, int64_t count, const Threads& threads, const List& list, const Run& run) {
  dlrm::Partition& listed = index->partition;
  const int64_t num_chunks = threads.chunks(count), num_buckets = index->num_buckets();
  if (!listed.begin(count, num_chunks)) return DLRM_NO_MEMORY;
  threads(num_chunks, [&](int64_t chunk) {
    listed.set_length(chunk, list(listed.first_of(chunk), listed.first_of(chunk + 1), listed.list(chunk)));
  });
  listed.group(*index, threads);
  const int64_t num_parts = threads.chunks(listed.num_listed(), num_buckets);
  index->begin_parts(num_parts);
  threads(num_parts, [&](int64_t i) {
    run(num_buckets * i / num_parts, num_buckets * (i + 1) / num_parts, &index->parts[static_cast<size_t>(i)]);
  });
  index->for_each_part([&](const Part& part) { dlrm::add(&index->counters, part.counters); });
  return DLRM_OK;
}

// The arguments of dlrm_index_assign.
struct Assignment {
  const int64_t* keys;
  const int64_t* scores;
  const int64_t* steps;

  // Stores the listed keys of a bucket: first the keys that it has, then the missing ones, the highest (score, hash) first.
  void store(KeyIndex* index, int64_t bucket, Part* part) const {
    Bucket& of = index->buckets[bucket];
    std::vector<BatchKey> missing;
    index->partition.for_each_key(*index, bucket, bucket + 1, [&](const BatchKey* first, const BatchKey* last) {
      int64_t i = first->position;
      for (const BatchKey* one = first; one < last; ++one) i = std::max(i, one->position);
      const int64_t slot = of.groups().find(keys[i], first->hash);
      if (slot < 0) missing.push_back({first->hash, i});
      else of.assign(of.groups().row(slot), scores[i], static_cast<uint32_t>(steps[i]));
    });
    std::sort(missing.begin(), missing.end(), [&](const BatchKey& a, const BatchKey& b) {
      return std::make_pair(scores[a.position], a.hash) > std::make_pair(scores[b.position], b.hash);
    });
    for (const BatchKey& one : missing) {
      const int64_t i = one.position;
      if (of.full() && !index->evict(bucket, part, scores[i], one.hash, Calls::kBusy)) {
        ++part->counters.not_insertable;
        continue;
      }
      of.insert(keys[i], one.hash, scores[i], static_cast<uint32_t>(steps[i]), Calls::kNone);
      ++part->counters.inserted;
    }
  }
};

}  // namespace

extern "C" {

int dlrm_index_assign(void* opaque, const int64_t* keys, int64_t count, const int64_t* scores, const int64_t* steps,
                      int64_t* rows, DlrmParallelFor parallel_for, void* threads, int64_t num_threads,
                      int64_t* bad_key) {
  KeyIndex& index = *static_cast<KeyIndex*>(opaque);
  const Threads all(parallel_for, threads, num_threads);
  if (std::any_of(steps, steps + count, [](int64_t step) { return step < 0 || step > UINT32_MAX; })) {
    return DLRM_BAD_ARGUMENT;
  }
  if (const int code = index.check(keys, count, bad_key)) return code;
  if (count > 0) index.highest_score = std::max(index.highest_score, *std::max_element(scores, scores + count));
  const Assignment assignment = {keys, scores, steps};
  const auto list_all = [&](int64_t first, int64_t last, BatchKey* to) {
    for (int64_t i = first; i < last; ++i) *to++ = {dlrm::hash_of(keys[i]), i};
    return last - first;
  };
  const int code = by_buckets(&index, count, all, list_all, [&](int64_t first, int64_t last, Part* part) {
    for (int64_t bucket = first; bucket < last; ++bucket) assignment.store(&index, bucket, part);
  });
  if (code != DLRM_OK) return code;
  index.end_call();
  const int64_t num_chunks = all.chunks(count);
  all(num_chunks, [&](int64_t chunk) {
    const auto note_row = [&](int64_t i, const dlrm::Found& found) {
      rows[i] = found.row < 0 ? -1 : index.table_row(found.bucket, found.row);
    };
    dlrm::probe<false>(index, keys, count * chunk / num_chunks, count * (chunk + 1) / num_chunks, note_row);
  });
  return DLRM_OK;
}

int dlrm_index_erase(void* opaque, const int64_t* keys, int64_t count, unsigned char* was_stored,
                     DlrmParallelFor parallel_for, void* threads, int64_t num_threads, int64_t* bad_key) {
  KeyIndex& index = *static_cast<KeyIndex*>(opaque);
  if (const int code = index.check(keys, count, bad_key)) return code;
  const auto list_stored = [&](int64_t first, int64_t last, BatchKey* to) {
    const BatchKey* const start = to;
    dlrm::probe<false>(index, keys, first, last, [&](int64_t i, const dlrm::Found& found) {
      was_stored[i] = 0;
      if (found.row >= 0) *to++ = {found.hash, i};
    });
    return to - start;
  };
  const auto erase = [&](int64_t first_bucket, int64_t last_bucket, Part* part) {
    index.partition.for_each_key(index, first_bucket, last_bucket, [&](const BatchKey* first, const BatchKey* last) {
      int64_t i = first->position;
      for (const BatchKey* one = first; one < last; ++one) i = std::min(i, one->position);
      const int64_t bucket = index.bucket_of_hash(first->hash);
      const dlrm::KeyGroups& groups = index.buckets[bucket].groups();
      index.erase(bucket, groups.row(groups.find(keys[i], first->hash)), first->hash, index.step);
      was_stored[i] = 1;
      ++part->counters.erased;
    });
  };
  return by_buckets(&index, count, Threads(parallel_for, threads, num_threads), list_stored, erase);
}

int64_t dlrm_index_expire(void* opaque, int64_t before_step, DlrmParallelFor parallel_for, void* threads) {
  KeyIndex& index = *static_cast<KeyIndex*>(opaque);
  index.begin_parts(index.num_buckets());
  dlrm::in_parallel(parallel_for, threads, index.num_buckets(), [&](int64_t bucket) {
    const Bucket& of = index.buckets[bucket];
    Part& part = index.parts[static_cast<size_t>(bucket)];
    std::vector<std::pair<int32_t, uint64_t>> expired;  // row, hash: freed in the order of the rows, as on a GPU
    for (int64_t slot = 0; slot < of.groups().num_slots(); ++slot) {
      const int32_t at = of.groups().row(slot);
      if (at < 0 || of.step(at, of.groups().call(slot)) >= before_step) continue;
      expired.emplace_back(at, dlrm::hash_of(of.groups().key(slot)));
    }
    std::sort(expired.begin(), expired.end());
    for (const auto& [at, hash] : expired) {
      part.listed.push_back(index.listed(bucket, at));
      index.erase(bucket, at, hash, index.step);
    }
  });
  const int64_t expired = index.num_listed();
  index.counters.expired += expired;
  return expired;
}

int dlrm_index_clear(void* index) { return static_cast<KeyIndex*>(index)->make() ? DLRM_OK : DLRM_NO_MEMORY; }

int64_t dlrm_index_size(const void* opaque) {
  const KeyIndex& index = *static_cast<const KeyIndex*>(opaque);
  int64_t size = 0;
  for (int64_t i = 0; i < index.num_buckets(); ++i) size += index.buckets[i].size();
  return size;
}

void dlrm_index_counters(const void* opaque, DlrmIndexCounters* counters) {
  const KeyIndex& index = *static_cast<const KeyIndex*>(opaque);
  *counters = index.counters;
  counters->found += index.found;
  counters->missed += index.missed;
}

int64_t dlrm_index_export(void* opaque, int64_t first_row, int64_t num_rows) {
  KeyIndex& index = *static_cast<KeyIndex*>(opaque);
  std::vector<Listed>* const listed = begin_list(&index);
  const int64_t rows = index.owned.rows_per_bucket, base = index.owned.first_bucket * rows;
  const int64_t first = std::max<int64_t>(0, first_row - base);
  const int64_t last = std::min(index.num_buckets() * rows, first_row + num_rows - base);
  for (int64_t i = first; i < last; ++i) {
    const int64_t bucket = i / rows;
    const int32_t at = static_cast<int32_t>(i % rows);
    if (index.buckets[bucket].has_key(at)) listed->push_back(index.listed(bucket, at));
  }
  return static_cast<int64_t>(listed->size());
}

int64_t dlrm_index_export_counts(void* opaque) {
  KeyIndex& index = *static_cast<KeyIndex*>(opaque);
  std::vector<Listed>* const listed = begin_list(&index);
  if (!index.admission.counts()) return 0;
  for (int64_t i = 0; i < index.num_buckets(); ++i) {
    if (index.rules.counter == DLRM_COUNT_EXACT) {
      const Bucket& of = index.admission.exact().bucket(i);
      for (int32_t at = 0; at < of.num_rows(); ++at) {
        if (of.has_key(at)) listed->push_back({of.key(at), 0, of.score(at), 0});
      }
    } else {
      const int64_t num_cells = index.admission.sketch().cells_of_bucket();
      const uint16_t* const cells = index.admission.sketch().cells(i);
      for (int64_t cell = 0; cell < num_cells; ++cell) {
        if (cells[cell] > 0) listed->push_back({(index.owned.first_bucket + i) * num_cells + cell, 0, cells[cell], 0});
      }
    }
  }
  return static_cast<int64_t>(listed->size());
}

int dlrm_index_assign_counts(void* opaque, const int64_t* keys, int64_t count, const int64_t* counts,
                             int64_t* bad_key) {
  KeyIndex& index = *static_cast<KeyIndex*>(opaque);
  if (!index.admission.counts()) return count == 0 ? DLRM_OK : DLRM_BAD_ARGUMENT;
  const bool exact = index.rules.counter == DLRM_COUNT_EXACT;
  const int64_t num_cells = exact ? 0 : index.admission.sketch().cells_of_bucket();
  for (int64_t i = 0; i < count; ++i) {
    *bad_key = keys[i];
    if (counts[i] < 0) return DLRM_BAD_ID;
    if (exact) continue;
    if (counts[i] > dlrm::Sketch::kMost || keys[i] < 0 || keys[i] / num_cells >= index.owned.num_buckets) return DLRM_BAD_ID;
  }
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t hash = dlrm::hash_of(keys[i]);
    const int64_t bucket = exact ? index.bucket_of_hash(hash) : keys[i] / num_cells - index.owned.first_bucket;
    if (!index.owns(bucket)) continue;
    if (exact) index.admission.exact().set(bucket, keys[i], hash, counts[i]);
    else index.admission.sketch().cells(bucket)[keys[i] % num_cells] = static_cast<uint16_t>(counts[i]);
  }
  return DLRM_OK;
}

int64_t dlrm_index_erased(void* opaque, int64_t since_step) {
  KeyIndex& index = *static_cast<KeyIndex*>(opaque);
  std::vector<Listed>* const listed = begin_list(&index);
  for (const auto& of_bucket : index.erased) {
    for (const auto& [step, key] : of_bucket) {
      if (step >= since_step) listed->push_back({key, -1, 0, step});
    }
  }
  return static_cast<int64_t>(listed->size());
}

void dlrm_index_trim_erased(void* opaque, int64_t before_step) {
  for (auto& of_bucket : static_cast<KeyIndex*>(opaque)->erased) {
    const auto old = [=](const auto& entry) { return entry.first < before_step; };
    of_bucket.erase(std::remove_if(of_bucket.begin(), of_bucket.end(), old), of_bucket.end());
  }
}

}  // extern "C"
