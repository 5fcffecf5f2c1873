// A block of keys looked up in an index, by the instructions that the processor has.
#pragma once

#include <stdint.h>

#include "key_groups.h"

namespace dlrm {

// Where the groups of an index are.
struct IndexShape {
  KeyGroup* groups;          // bucket after bucket
  int64_t groups_of_bucket;  // how many a bucket has
  int64_t num_buckets;       // of the table
  int64_t first_bucket;      // of the index
};

// Some keys on their way.
struct SearchBlock {
  static constexpr int64_t kMostKeys = 32;
  int64_t count;
  uint64_t hashes[kMostKeys];
  int64_t buckets[kMostKeys];  // from 0 for the index's first
  int64_t groups[kMostKeys];   // where the search begins, among all groups of the index
  int64_t slots[kMostKeys];    // among all slots of the index; anything for a key that is not stored
  int32_t rows[kMostKeys];     // of the bucket; -1 for a key that is not stored
  int64_t num_passed;          // keys whose first group has passed keys on, and which it does not have
  int32_t passed[kMostKeys];
};

struct KeySearch {
  // Fills hashes, buckets and groups of `count` keys, and asks for the groups.
  void (*locate)(const IndexShape& shape, const int64_t* keys, SearchBlock* block);
  // Fills slots and rows, but for the keys that were passed on, and asks for the groups after theirs.
  void (*match)(const IndexShape& shape, const int64_t* keys, SearchBlock* block);
};
extern const KeySearch kSearchScalar;
#ifdef DLRM_X86
extern const KeySearch kSearchAvx512;
#endif

// By the chosen instruction set.
const KeySearch& key_search();

// Fills slots and rows of the keys that were passed on.
void search_on(const IndexShape& shape, const int64_t* keys, SearchBlock* block);

}  // namespace dlrm
