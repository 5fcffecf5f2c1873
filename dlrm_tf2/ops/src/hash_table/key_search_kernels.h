// The kernels of key_search.h for one way to compare a key with the four of a group.
//
// Included by one file for each instruction set. Everything is local to these files, so that no function is compiled for one
// processor and called on another.
#pragma once

#include "key_search.h"

namespace dlrm {
namespace {

void locate(const IndexShape& shape, const int64_t* keys, SearchBlock* block) {
  const int64_t count = block->count, num_groups = shape.groups_of_bucket;
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t hash = hash_of(keys[i]);
    const int64_t bucket = bucket_of(hash, shape.num_buckets) - shape.first_bucket;
    block->hashes[i] = hash;
    block->buckets[i] = bucket;
    block->groups[i] = bucket * num_groups + below(static_cast<uint32_t>(hash), num_groups);
  }
  for (int64_t i = 0; i < count; ++i) __builtin_prefetch(shape.groups + block->groups[i]);
}

// match_in(group, key): the place of a key in a group; negative where the group does not have it.
template <class MatchIn>
void match(const IndexShape& shape, const int64_t* keys, SearchBlock* block) {
  const int64_t count = block->count;
  int64_t num_passed = 0;
  for (int64_t i = 0; i < count; ++i) {
    const KeyGroup& group = shape.groups[block->groups[i]];
    const int place = MatchIn()(group, keys[i]);
    if (place >= 0) {
      block->slots[i] = block->groups[i] * KeyGroup::kSlots + place;
      block->rows[i] = group.rows[place] - 1;
    } else if (group.overflow == 0) {
      block->rows[i] = -1;
    } else {
      block->passed[num_passed++] = static_cast<int32_t>(i);
      __builtin_prefetch(&group + 1);  // but for the last group of a bucket
    }
  }
  block->num_passed = num_passed;
}

}  // namespace
}  // namespace dlrm
