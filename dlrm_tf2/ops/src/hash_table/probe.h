// Many keys looked up: the memory of a block of keys is asked for while the blocks before it are worked on.
#pragma once

#include <stdint.h>

#include <algorithm>

#include "key_index_state.h"
#include "key_search.h"

namespace dlrm {

// What a search has found.
struct Found {
  uint64_t hash;
  int64_t bucket;
  int32_t row;     // of the bucket; -1 where the key is not stored
  uint16_t* call;  // of a key that is stored: which call touched it last
};

// Calls each(i, found) for the keys of positions first .. last - 1, in order. `each` must store and erase no key. All keys
// are of this index. kRows: whether `each` reads or writes the rows.
template <bool kRows, class Each>
void probe(const KeyIndex& index, const int64_t* keys, int64_t first, int64_t last, const Each& each) {
  constexpr int64_t kMost = SearchBlock::kMostKeys, kStages = kRows ? 4 : 3;
  const KeySearch& search = key_search();
  const IndexShape shape = index.shape();
  SearchBlock blocks[kStages];
  const int64_t num_blocks = (last - first + kMost - 1) / kMost;
  for (int64_t turn = 0; turn < num_blocks + kStages - 1; ++turn) {
    if (turn < num_blocks) {
      SearchBlock& block = blocks[turn % kStages];
      block.count = std::min(kMost, last - first - turn * kMost);
      search.locate(shape, keys + first + turn * kMost, &block);
    }
    if (turn >= 1 && turn - 1 < num_blocks) {
      search.match(shape, keys + first + (turn - 1) * kMost, &blocks[(turn - 1) % kStages]);
    }
    if (turn >= 2 && turn - 2 < num_blocks) {
      SearchBlock& block = blocks[(turn - 2) % kStages];
      search_on(shape, keys + first + (turn - 2) * kMost, &block);
      if constexpr (kRows) {
        for (int64_t i = 0; i < block.count; ++i) {
          __builtin_prefetch(&index.buckets[block.buckets[i]].row(std::max(0, block.rows[i])), 1);
        }
      }
    }
    if (const int64_t done = turn - kStages + 1; done >= 0) {
      const SearchBlock& block = blocks[done % kStages];
      for (int64_t i = 0; i < block.count; ++i) {
        const int32_t row = block.rows[i];
        uint16_t* call = nullptr;
        if (row >= 0) call = &shape.groups[block.slots[i] / KeyGroup::kSlots].calls[block.slots[i] % KeyGroup::kSlots];
        each(first + done * kMost + i, Found{block.hashes[i], block.buckets[i], row, call});
      }
    }
  }
}

}  // namespace dlrm
