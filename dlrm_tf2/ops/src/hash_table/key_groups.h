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
  static constexpr int kSlots = 4;
  int64_t keys[kSlots];
  int32_t rows[kSlots];    // row + 1; 0 for an empty slot, so that zeros are an empty index
  uint16_t calls[kSlots];  // which call touched the key last, as in touches.h
  uint32_t overflow;
  uint32_t unused;
};
static_assert(sizeof(KeyGroup) == 64, "one cache line");

class KeyGroups {
 public:
  // Groups for an index of at most `num_rows` keys: half of the slots are used at most.
  static int64_t groups_for(int64_t num_rows) { return (2 * num_rows + KeyGroup::kSlots - 1) / KeyGroup::kSlots; }

  // `groups`: memory of `num_groups` groups, zeros.
  KeyGroups(KeyGroup* groups, int64_t num_groups) : groups_(groups), num_groups_(num_groups) {}

  // Where a search begins.
  const KeyGroup* first(uint64_t hash) const { return groups_ + home(hash); }

  // The slot of a key; -1 where it is not stored. A key keeps its slot as long as it is stored.
  int64_t find(int64_t key, uint64_t hash) const {
    int64_t at = home(hash);
    const int64_t slot = slot_in(at, key);
    if (__builtin_expect(slot >= 0 || groups_[at].overflow == 0, true)) return slot;
    for (int64_t left = num_groups_ - 1; left > 0; --left) {
      at = next(at);
      const int64_t found = slot_in(at, key);
      if (found >= 0 || groups_[at].overflow == 0) return found;
    }
    return -1;
  }

  const KeyGroup* of_slot(int64_t slot) const { return &group(slot); }
  int64_t num_slots() const { return num_groups_ * KeyGroup::kSlots; }
  int64_t key(int64_t slot) const { return group(slot).keys[place(slot)]; }
  int32_t row(int64_t slot) const { return group(slot).rows[place(slot)] - 1; }  // -1 for an empty slot
  uint16_t& call(int64_t slot) const { return group(slot).calls[place(slot)]; }

  // Stores a key that is not stored. Returns its slot. There is an empty one as long as there are no more keys than rows.
  int64_t insert(int64_t key, uint64_t hash, int32_t row) {
    for (int64_t at = home(hash);; at = next(at)) {
      KeyGroup& group = groups_[at];
      for (int i = 0; i < KeyGroup::kSlots; ++i) {
        if (group.rows[i] != 0) continue;
        group.keys[i] = key;
        group.rows[i] = row + 1;
        return at * KeyGroup::kSlots + i;
      }
      ++group.overflow;
    }
  }

  // Erases the key in a slot.
  void erase(int64_t slot, uint64_t hash) {
    const int64_t last = slot / KeyGroup::kSlots;
    for (int64_t at = home(hash); at != last; at = next(at)) --groups_[at].overflow;
    groups_[last].rows[place(slot)] = 0;
  }

 private:
  int64_t home(uint64_t hash) const { return below(static_cast<uint32_t>(hash), num_groups_); }
  int64_t next(int64_t at) const { return at + 1 == num_groups_ ? 0 : at + 1; }
  KeyGroup& group(int64_t slot) const { return groups_[static_cast<uint64_t>(slot) / KeyGroup::kSlots]; }
  static uint64_t place(int64_t slot) { return static_cast<uint64_t>(slot) % KeyGroup::kSlots; }

  // Without a branch for each slot: which slot has the key cannot be predicted.
  int64_t slot_in(int64_t at, int64_t key) const {
    const KeyGroup& group = groups_[at];
    int64_t found = 0;  // the slot's place in the group + 1
    for (int i = 0; i < KeyGroup::kSlots; ++i) {
      found |= -static_cast<int64_t>((group.keys[i] == key) & (group.rows[i] != 0)) & (i + 1);
    }
    return found == 0 ? -1 : at * KeyGroup::kSlots + found - 1;
  }

  KeyGroup* groups_;
  int64_t num_groups_;
};

}  // namespace dlrm
