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
  int64_t slots[kProbeBlock];
};

// Calls each(i, hash, bucket, slot) for the keys of positions first .. last - 1, in order; slot -1 where a key is not stored.
// `each` must store and erase no key. All keys are of this index. kRows: whether `each` reads or writes the rows.
template <bool kRows, class Each>
void probe(const KeyIndex& index, const int64_t* keys, int64_t first, int64_t last, const Each& each) {
  constexpr int64_t kStages = kRows ? 3 : 2;
  ProbeBlock blocks[kStages];
  const int64_t num_blocks = (last - first + kProbeBlock - 1) / kProbeBlock;
  for (int64_t turn = 0; turn < num_blocks + kStages - 1; ++turn) {
    if (turn < num_blocks) {  // ask for the groups
      ProbeBlock& block = blocks[turn % kStages];
      const int64_t start = first + turn * kProbeBlock;
      block.count = std::min(kProbeBlock, last - start);
      for (int64_t i = 0; i < block.count; ++i) {
        const uint64_t hash = hash_of(keys[start + i]);
        const int64_t bucket = index.bucket_of_hash(hash);
        block.hashes[i] = hash;
        block.buckets[i] = static_cast<int32_t>(bucket);
        __builtin_prefetch(index.buckets[bucket].groups().first(hash));
      }
    }
    if (turn >= 1 && turn - 1 < num_blocks) {  // find, and ask for the rows
      ProbeBlock& block = blocks[(turn - 1) % kStages];
      const int64_t start = first + (turn - 1) * kProbeBlock;
      for (int64_t i = 0; i < block.count; ++i) {
        const Bucket& bucket = index.buckets[block.buckets[i]];
        const int64_t slot = bucket.groups().find(keys[start + i], block.hashes[i]);
        if constexpr (kRows) {
          block.slots[i] = slot;
          __builtin_prefetch(&bucket.row(slot < 0 ? 0 : bucket.groups().row(slot)), 1);
        } else {
          each(start + i, block.hashes[i], block.buckets[i], slot);
        }
      }
    }
    if constexpr (kRows) {
      if (turn >= 2) {
        const ProbeBlock& block = blocks[(turn - 2) % kStages];
        const int64_t start = first + (turn - 2) * kProbeBlock;
        for (int64_t i = 0; i < block.count; ++i) each(start + i, block.hashes[i], block.buckets[i], block.slots[i]);
      }
    }
  }
}

}  // namespace dlrm
