// Many keys looked up at a time: the memory of a block of keys is asked for while the blocks before it are worked on.
#pragma once

#include <stdint.h>

#include <algorithm>

#include "key_index_state.h"

namespace dlrm {

constexpr int64_t kProbeBlock = 32;

// A block of keys on its way.
struct ProbeBlock {
  int64_t count = 0;
  uint64_t hashes[kProbeBlock];
  int32_t buckets[kProbeBlock];
  int32_t rows[kProbeBlock];
};

// Calls each(i, hash, bucket, row) for every key i, in order; row -1 where it is not stored. `each` must store no key. All
// keys are of this index. kRows: whether `each` reads or writes the rows.
template <bool kRows, class Each>
void probe(const KeyIndex& index, const int64_t* keys, int64_t count, const Each& each) {
  constexpr int64_t kStages = kRows ? 3 : 2;
  ProbeBlock blocks[kStages];
  const int64_t num_blocks = (count + kProbeBlock - 1) / kProbeBlock;
  for (int64_t turn = 0; turn < num_blocks + kStages - 1; ++turn) {
    if (turn < num_blocks) {  // ask for the groups
      ProbeBlock& block = blocks[turn % kStages];
      const int64_t first = turn * kProbeBlock;
      block.count = std::min(kProbeBlock, count - first);
      for (int64_t i = 0; i < block.count; ++i) {
        const uint64_t hash = hash_of(keys[first + i]);
        const int64_t bucket = index.bucket_of_hash(hash);
        block.hashes[i] = hash;
        block.buckets[i] = static_cast<int32_t>(bucket);
        __builtin_prefetch(index.buckets[bucket].groups().first(hash));
      }
    }
    if (turn >= 1 && turn - 1 < num_blocks) {  // find, and ask for the rows
      ProbeBlock& block = blocks[(turn - 1) % kStages];
      const int64_t first = (turn - 1) * kProbeBlock;
      for (int64_t i = 0; i < block.count; ++i) {
        const Bucket& bucket = index.buckets[block.buckets[i]];
        const int32_t row = bucket.find(keys[first + i], block.hashes[i]);
        if constexpr (kRows) {
          block.rows[i] = row;
          __builtin_prefetch(&bucket.row(row < 0 ? 0 : row), 1);
        } else {
          each(first + i, block.hashes[i], block.buckets[i], row);
        }
      }
    }
    if constexpr (kRows) {
      if (turn >= 2) {
        const ProbeBlock& block = blocks[(turn - 2) % kStages];
        const int64_t first = (turn - 2) * kProbeBlock;
        for (int64_t i = 0; i < block.count; ++i) each(first + i, block.hashes[i], block.buckets[i], block.rows[i]);
      }
    }
  }
}

}  // namespace dlrm
