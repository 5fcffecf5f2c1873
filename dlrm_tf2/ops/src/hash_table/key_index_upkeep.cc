// The calls that load, erase and list what an index has.
#include <algorithm>
#include <vector>

#include "key_index_state.h"
#include "probe.h"

namespace {

using dlrm::Bucket;
using dlrm::KeyIndex;
using dlrm::Listed;
using dlrm::Missing;
using dlrm::Part;

// Begins a list in one part.
std::vector<Listed>* begin_list(KeyIndex* index) {
  index->begin_parts(1);
  return &index->parts[0].listed;
}

// The last occurrence of each missing key; in each bucket the highest (score, hash) first.
void order_to_load(const KeyIndex& index, const int64_t* scores, std::vector<Missing>* missing) {
  std::sort(missing->begin(), missing->end(), [](const Missing& a, const Missing& b) {
    return a.hash != b.hash ? a.hash < b.hash : a.position > b.position;
  });
  const auto same_key = [](const Missing& a, const Missing& b) { return a.hash == b.hash; };
  missing->erase(std::unique(missing->begin(), missing->end(), same_key), missing->end());
  const auto order = [&](const Missing& one) {
    return std::make_tuple(-index.bucket_of_hash(one.hash), scores[one.position], one.hash);
  };
  std::sort(missing->begin(), missing->end(), [&](const Missing& a, const Missing& b) { return order(a) > order(b); });
}

}  // namespace

extern "C" {

void dlrm_index_listed(const void* index, int64_t* keys, int64_t* rows, int64_t* scores, int64_t* steps) {
  static_cast<const KeyIndex*>(index)->for_each_part([&](const Part& part) {
    for (const Listed& one : part.listed) {
      if (keys != nullptr) *keys++ = one.key;
      if (rows != nullptr) *rows++ = one.row;
      if (scores != nullptr) *scores++ = one.score;
      if (steps != nullptr) *steps++ = one.step;
    }
  });
}

int dlrm_index_assign(void* opaque, const int64_t* keys, int64_t count, const int64_t* scores, const int64_t* steps,
                      int64_t* rows, int64_t* bad_key) {
  KeyIndex& index = *static_cast<KeyIndex*>(opaque);
  if (std::any_of(steps, steps + count, [](int64_t step) { return step < 0 || step > UINT32_MAX; })) {
    return DLRM_BAD_ARGUMENT;
  }
  if (const int code = index.check(keys, count, bad_key)) return code;
  index.begin_parts(1);
  Part& part = index.parts[0];
  dlrm::probe<true>(index, keys, count, [&](int64_t i, uint64_t hash, int64_t bucket, int32_t row) {
    if (row < 0) {
      part.missing.push_back({hash, i});
    } else {
      index.buckets[bucket].row(row).step = static_cast<uint32_t>(steps[i]);
      index.buckets[bucket].set_score(row, scores[i], false);
    }
  });
  order_to_load(index, scores, &part.missing);
  for (const Missing& one : part.missing) {
    const int64_t i = one.position, bucket = index.bucket_of_hash(one.hash);
    if (index.buckets[bucket].full() && !index.evict(bucket, &part, scores[i], one.hash, 0)) {
      ++part.counters.not_insertable;
      continue;
    }
    index.buckets[bucket].insert({keys[i], scores[i], static_cast<uint32_t>(steps[i]), dlrm::kNoCall}, one.hash, false);
    ++part.counters.inserted;
  }
  for (int64_t i = 0; i < index.num_buckets(); ++i) index.buckets[i].end_call();
  dlrm::probe<false>(index, keys, count, [&](int64_t i, uint64_t, int64_t bucket, int32_t row) {
    rows[i] = row < 0 ? -1 : index.table_row(bucket, row);
  });
  dlrm::add(&index.counters, part.counters);
  return DLRM_OK;
}

int dlrm_index_erase(void* opaque, const int64_t* keys, int64_t count, unsigned char* was_stored, int64_t* bad_key) {
  KeyIndex& index = *static_cast<KeyIndex*>(opaque);
  if (const int code = index.check(keys, count, bad_key)) return code;
  dlrm::probe<false>(index, keys, count, [&](int64_t i, uint64_t hash, int64_t bucket, int32_t row) {
    was_stored[i] = row >= 0;
    if (row < 0) return;
    index.erase(bucket, row, hash, index.step);
    ++index.counters.erased;
  });
  return DLRM_OK;
}

int64_t dlrm_index_expire(void* opaque, int64_t before_step, DlrmParallelFor parallel_for, void* threads) {
  KeyIndex& index = *static_cast<KeyIndex*>(opaque);
  index.begin_parts(index.num_buckets());
  dlrm::in_parallel(parallel_for, threads, index.num_buckets(), [&](int64_t bucket) {
    const Bucket& of = index.buckets[bucket];
    Part& part = index.parts[static_cast<size_t>(bucket)];
    for (int32_t at = 0; at < of.num_rows(); ++at) {
      const dlrm::StoredRow& row = of.row(at);
      if (row.call == 0 || row.step >= before_step) continue;
      part.listed.push_back({row.key, index.table_row(bucket, at), row.score, row.step});
      index.erase(bucket, at, dlrm::hash_of(row.key), index.step);
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
    const dlrm::StoredRow& row = index.buckets[i / rows].row(static_cast<int32_t>(i % rows));
    if (row.call != 0) listed->push_back({row.key, base + i, row.score, row.step});
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
        if (of.row(at).call != 0) listed->push_back({of.row(at).key, 0, of.row(at).score, 0});
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
