// A program for the sanitizers: calls of every kind on indexes of every rule, in buffers of exactly the right size, by one
// thread and by four at once. Exit code 0 says that both stored the same and no sanitizer objected; that it is right is for
// tests/dlrm_tf2/ops/test_hash_table.py.
#include <stdio.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "key_index.h"

namespace {

using Numbers = std::vector<int64_t>;

// Runs tasks in as many threads as `threads` says.
void in_threads(void* threads, int64_t count, DlrmTask task, void* state) {
  std::atomic<int64_t> next{0};
  std::vector<std::thread> running;
  for (int64_t i = 0; i < *static_cast<int64_t*>(threads); ++i) {
    running.emplace_back([&] {
      for (int64_t index = next++; index < count; index = next++) task(state, index);
    });
  }
  for (std::thread& thread : running) thread.join();
}

void append(Numbers* all, const Numbers& more) { all->insert(all->end(), more.begin(), more.end()); }

void append_listed(const void* index, int64_t count, Numbers* all) {
  Numbers lists[4];
  for (Numbers& list : lists) list.resize(static_cast<size_t>(count));
  dlrm_index_listed(index, lists[0].data(), lists[1].data(), lists[2].data(), lists[3].data());
  for (const Numbers& list : lists) append(all, list);
}

// Everything that some calls answer, and what is stored after them.
Numbers result_of(const DlrmIndexBuckets& buckets, const DlrmIndexRules& rules, int64_t num_threads) {
  void* const index = dlrm_index_new(&buckets, &rules);
  if (index == nullptr) return {};
  std::mt19937_64 random(3);
  Numbers all;
  int64_t bad_key = 0;
  const int64_t num_rows = buckets.num_buckets * buckets.rows_per_bucket;
  for (int64_t step = 0; step < 12; ++step) {
    const int64_t count = step % 3 == 0 ? 9000 : 50;
    Numbers keys(static_cast<size_t>(count)), scores(keys.size()), rows(keys.size());
    for (size_t i = 0; i < keys.size(); ++i) {
      keys[i] = static_cast<int64_t>(random() % static_cast<uint64_t>(3 * num_rows)) - num_rows;
      scores[i] = static_cast<int64_t>(random() % 100) - 50 + step;
    }
    DlrmIndexChanges changes;
    int code = dlrm_index_find_or_insert(index, keys.data(), count, step, {scores.data(), 1}, rows.data(), in_threads,
                                         &num_threads, num_threads, &changes, &bad_key);
    if (code != DLRM_OK) return {};
    append(&all, rows);
    Numbers fresh(static_cast<size_t>(changes.fresh)), fresh_keys(fresh.size());
    dlrm_index_fresh(index, fresh.data(), fresh_keys.data());
    append(&all, fresh);
    append(&all, fresh_keys);
    append_listed(index, changes.evicted, &all);
    struct State {
      const void* index;
      const Numbers* keys;
      Numbers* rows;
      int64_t parts;
      std::atomic<int> code;
    } state = {index, &keys, &rows, 4, {DLRM_OK}};
    in_threads(&num_threads, state.parts, [](void* opaque, int64_t part) {
      State& s = *static_cast<State*>(opaque);
      const int64_t size = static_cast<int64_t>(s.keys->size()), first = size * part / s.parts;
      int64_t bad;
      const int found = dlrm_index_find(s.index, s.keys->data() + first, size * (part + 1) / s.parts - first,
                                        s.rows->data() + first, &bad);
      if (found != DLRM_OK) s.code = found;
    }, &state);
    if (state.code != DLRM_OK) return {};
    append(&all, rows);
    if (step == 6) {
      std::vector<unsigned char> stored(keys.size() / 2);
      code = dlrm_index_erase(index, keys.data(), count / 2, stored.data(), in_threads, &num_threads, num_threads, &bad_key);
      for (unsigned char one : stored) all.push_back(one);
      append_listed(index, dlrm_index_expire(index, 4, in_threads, &num_threads), &all);
    }
    if (step == 9) {
      const Numbers steps(keys.size(), 7);
      code |= dlrm_index_assign(index, keys.data(), count, scores.data(), steps.data(), rows.data(), in_threads,
                                &num_threads, num_threads, &bad_key);
      append(&all, rows);
    }
    if (code != DLRM_OK) return {};
  }
  append_listed(index, dlrm_index_export_counts(index), &all);
  append_listed(index, dlrm_index_erased(index, 2), &all);
  dlrm_index_trim_erased(index, 6);
  append_listed(index, dlrm_index_export(index, 0, num_rows), &all);
  all.push_back(dlrm_index_size(index));
  DlrmIndexCounters counters;
  dlrm_index_counters(index, &counters);
  append(&all, {counters.inserted, counters.admitted, counters.refused, counters.evicted, counters.expired,
                counters.erased, counters.not_insertable, counters.found, counters.missed});
  if (dlrm_index_clear(index) != DLRM_OK || dlrm_index_size(index) != 0) return {};
  dlrm_index_delete(index);
  return all;
}

bool initial_rows_fit() {
  std::vector<float> weights(3 * 5), slot(3);
  float* const slots[] = {slot.data()};
  const int64_t slot_width = 1, rows[] = {2, 0}, keys[] = {-1, INT64_MIN};
  const float state = 0.25f;
  for (int kind = DLRM_CONSTANT; kind <= DLRM_TRUNCATED_NORMAL; ++kind) {
    for (int type : {DLRM_FLOAT32, DLRM_BFLOAT16}) {
      const DlrmInitialRows to = {weights.data(), type, 5, 1, slots, &slot_width, &state};
      const DlrmInitializer initializer = {kind, 0.5f, 2.0f, 9};
      if (dlrm_initialize_rows(&to, &initializer, rows, keys, 2) != DLRM_OK) return false;
    }
  }
  return slot[0] == state && slot[1] == 0 && slot[2] == state;
}

}  // namespace

int main() {
  int checked = 0;
  for (const DlrmIndexBuckets& buckets : {DlrmIndexBuckets{1, 700, 0, 1}, DlrmIndexBuckets{8, 100, 0, 8}}) {
    for (int score = DLRM_SCORE_TIMESTAMP; score <= DLRM_SCORE_NO_EVICTION; ++score) {
      for (int counter : {DLRM_COUNT_EXACT, DLRM_COUNT_SKETCH}) {
        for (int64_t admit_after : {1, 3}) {
          const DlrmIndexRules rules = {score, admit_after, admit_after == 1 ? 1.0 : 0.7, counter, 300, 5, 1};
          dlrm_choose_cpu_instruction_set(DLRM_SCALAR);
          const Numbers wanted = result_of(buckets, rules, 1);
          dlrm_choose_cpu_instruction_set(-1);
          if (wanted.empty() || result_of(buckets, rules, 4) != wanted) {
            fprintf(stderr, "wrong: %d buckets, score %d, counter %d, admit_after %d\n",
                    static_cast<int>(buckets.num_buckets), score, counter, static_cast<int>(admit_after));
            return 1;
          }
          ++checked;
        }
      }
    }
  }
  if (!initial_rows_fit()) {
    fprintf(stderr, "wrong: initial rows\n");
    return 1;
  }
  printf("check_key_index: %d cases agree\n", checked);
  return 0;
}
