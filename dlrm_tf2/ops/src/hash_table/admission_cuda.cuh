// Which keys are stored, as in admission.h: by probability, which each key decides for itself; and by counts, which the keys
// of a bucket take one after the other, because one key's count may change what another one reads.
#pragma once

#include "batch_cuda.cuh"

namespace table {

constexpr int kLines = 4;             // of a sketch
constexpr int64_t kMostCount = 65535;  // of a cell

DLRM_DEVICE bool admits_by_chance(const DlrmIndexRules& rules, uint64_t hash, uint32_t step) {
  if (rules.admit_probability >= 1) return true;
  const uint64_t of_step = dlrm::mix64(dlrm::mix64(rules.seed) + static_cast<uint64_t>(step) * dlrm::kGamma);
  return static_cast<double>(dlrm::mix64(of_step ^ hash) >> 11) * 0x1p-53 < rules.admit_probability;
}

// The count of a key after `occurrences` more, by one thread.
DLRM_DEVICE int64_t add_to_sketch(const Table& table, int64_t bucket, uint64_t hash, int64_t occurrences) {
  uint16_t* found[kLines];
  int64_t lowest = kMostCount;
  for (int line = 0; line < kLines; ++line) {
    const uint64_t bits = dlrm::mix64(hash + static_cast<uint64_t>(line + 1) * dlrm::kGamma);
    const int64_t cell = dlrm::below(static_cast<uint32_t>(bits >> 32), table.cells_of_line);
    found[line] = table.cells + (bucket * kLines + line) * table.cells_of_line + cell;
    lowest = *found[line] < lowest ? *found[line] : lowest;
  }
  const int64_t count = lowest + occurrences < kMostCount ? lowest + occurrences : kMostCount;
  for (uint16_t* cell : found) {
    if (*cell < count) *cell = static_cast<uint16_t>(count);
  }
  return count;
}

// ---- exact counts: buckets whose scores are the counts ---------------------------------------------------------------

DLRM_DEVICE int64_t count_of(const Bucket& of, int64_t key, uint64_t hash) {
  const int32_t at = find(of, key, hash);
  return at < 0 ? 0 : of.rows[at].score;
}

// By one thread.
DLRM_DEVICE void erase(const Bucket& of, int32_t row, uint64_t hash) {
  erase_key(of, of.keys[row], hash);
  of.rows[row].call = 0;
  of.freed[of.state->num_freed++] = row;
}

DLRM_DEVICE void forget_count(const Bucket& of, int64_t key, uint64_t hash) {
  const int32_t at = find(of, key, hash);
  if (at >= 0) erase(of, at, hash);
}

// Sets the count of a key, by one thread, where the key is there or a row is free.
DLRM_DEVICE void set_count(const Bucket& of, int64_t key, uint64_t hash, int64_t count) {
  int32_t at = find(of, key, hash);
  if (at < 0) {
    at = of.state->num_freed > 0 ? of.freed[--of.state->num_freed] : of.state->unused++;
    of.keys[at] = key;
    insert_key(of, key, hash, at);
  }
  of.rows[at] = {count, 0, kNoCall};
}

// Makes room for a key in a full bucket: the lowest count, then hash, is forgotten. For all threads of the block.
DLRM_DEVICE void forget_lowest(Scratch* scratch, const Bucket& of) {
  if (threadIdx.x == 0) scratch->all = ~uint64_t{0}, scratch->any = ~uint64_t{0};
  __syncthreads();
  for (int64_t row = threadIdx.x; row < of.num_rows; row += kOfBucket) {
    atomicMin(reinterpret_cast<unsigned long long*>(&scratch->all),
              static_cast<unsigned long long>(ordered(of.rows[row].score)));
  }
  __syncthreads();
  for (int64_t row = threadIdx.x; row < of.num_rows; row += kOfBucket) {
    if (ordered(of.rows[row].score) != scratch->all) continue;
    atomicMin(reinterpret_cast<unsigned long long*>(&scratch->any), static_cast<unsigned long long>(hash_of(of.keys[row])));
  }
  __syncthreads();
  for (int64_t row = threadIdx.x; row < of.num_rows; row += kOfBucket) {
    if (ordered(of.rows[row].score) == scratch->all && hash_of(of.keys[row]) == scratch->any) {
      erase(of, static_cast<int32_t>(row), scratch->any);
    }
  }
  __syncthreads();
}

// Counts one key after the other, keeps the admitted ones in the list, in order, and returns how many they are. num_rooms:
// how many of them will be stored, the first ones, whose counts are forgotten. For all threads of the block.
DLRM_DEVICE uint32_t admit_by_count(Scratch* scratch, const Table& table, const Batch& batch, uint32_t* missing,
                                    uint32_t num_missing, int64_t num_rooms) {
  const bool exact = table.counted.num_buckets > 0;
  const int64_t bucket = blockIdx.x;
  uint32_t admitted = 0;
  for (uint32_t i = 0; i < num_missing; ++i) {
    const uint32_t run = missing[i];
    const int64_t key = batch.key_at(run), occurrences = batch.sizes[run];
    const uint64_t hash = hash_of(key);
    const Bucket of = exact ? bucket_at(table.counted, bucket) : Bucket{};
    __syncthreads();  // everyone has read the list as far as this
    if (threadIdx.x == 0) {
      const int64_t count =
          exact ? count_of(of, key, hash) + occurrences : add_to_sketch(table, bucket, hash, occurrences);
      const bool admits = count >= table.rules.admit_after, is_new = exact && !admits && count == occurrences;
      const bool is_full = is_new && of.num_free() == 0 && find(of, key, hash) < 0;
      if (admits) missing[admitted] = run;
      if (admits && exact && admitted < num_rooms) forget_count(of, key, hash);
      if (!admits && exact && !is_full) set_count(of, key, hash, count);
      scratch->numbers[0] = count;
      scratch->numbers[1] = is_full;
    }
    __syncthreads();
    admitted += scratch->numbers[0] >= table.rules.admit_after;
    if (scratch->numbers[1] == 0) continue;
    const int64_t count = scratch->numbers[0];
    forget_lowest(scratch, of);
    if (threadIdx.x == 0) set_count(of, key, hash, count);
  }
  __syncthreads();
  return admitted;
}

}  // namespace table
