// The index of one bucket: key -> row, in groups of the size of a cache line.
//
// A search begins at the group that the low half of the hash says, and continues with the next group only where stored
// keys have passed this one by because it was full: `overflow` counts these keys. Erasing a key takes it out of the
// counts on its way, so that erased keys leave nothing behind. No key is reserved. Source of the counts: Folly's F14.
#pragma once

#include <stdint.h>

#include "key_hash.h"

namespace dlrm {

struct alignas(64) KeyGroup {
  static constexpr int kSlots = 5;
  int64_t keys[kSlots];
  int32_t rows[kSlots];  // row + 1; 0 for an empty slot, so that zeros are an empty index
  uint32_t overflow;
};
static_assert(sizeof(KeyGroup) == 64, "one cache line");

class KeyGroups {
 public:
  // Groups for an index of at most `num_rows` keys: two thirds of the slots are used at most.
  static int64_t groups_for(int64_t num_rows) { return (3 * num_rows + 2 * KeyGroup::kSlots - 1) / (2 * KeyGroup::kSlots); }

  // `groups`: memory of `num_groups` groups, zeros.
  KeyGroups(KeyGroup* groups, int64_t num_groups) : groups_(groups), num_groups_(num_groups) {}

  // Where a search begins.
  const KeyGroup* first(uint64_t hash) const { return groups_ + home(hash); }

  // The row of a key; -1 where it is not stored.
  int32_t find(int64_t key, uint64_t hash) const {
    int64_t at = home(hash);
    const int32_t row = row_in(groups_[at], key);
    if (__builtin_expect(row >= 0 || groups_[at].overflow == 0, true)) return row;
    for (int64_t left = num_groups_ - 1; left > 0; --left) {
      at = next(at);
      const int32_t found = row_in(groups_[at], key);
      if (found >= 0 || groups_[at].overflow == 0) return found;
    }
    return -1;
  }

  // Stores a key that is not stored. There is an empty slot as long as there are no more keys than rows.
  void insert(int64_t key, uint64_t hash, int32_t row) {
    for (int64_t at = home(hash);; at = next(at)) {
      KeyGroup& group = groups_[at];
      for (int i = 0; i < KeyGroup::kSlots; ++i) {
        if (group.rows[i] != 0) continue;
        group.keys[i] = key;
        group.rows[i] = row + 1;
        return;
      }
      ++group.overflow;
    }
  }

  // Erases a key that is stored.
  void erase(int64_t key, uint64_t hash) {
    for (int64_t at = home(hash);; at = next(at)) {
      KeyGroup& group = groups_[at];
      for (int i = 0; i < KeyGroup::kSlots; ++i) {
        if (group.keys[i] != key || group.rows[i] == 0) continue;
        group.rows[i] = 0;
        return;
      }
      --group.overflow;
    }
  }

 private:
  int64_t home(uint64_t hash) const { return below(static_cast<uint32_t>(hash), num_groups_); }
  int64_t next(int64_t at) const { return at + 1 == num_groups_ ? 0 : at + 1; }

  // Without a branch for each slot: which slot has the key cannot be predicted.
  static int32_t row_in(const KeyGroup& group, int64_t key) {
    int32_t row = 0;
    for (int i = 0; i < KeyGroup::kSlots; ++i) row |= -static_cast<int32_t>(group.keys[i] == key) & group.rows[i];
    return row - 1;
  }

  KeyGroup* groups_;
  int64_t num_groups_;
};

}  // namespace dlrm
