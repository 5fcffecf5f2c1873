// The search for any processor, and the choice between the instruction sets.
#include "key_search.h"

#include "kernels.h"
#include "key_search_kernels.h"

namespace dlrm {
namespace {

// Without a branch for each slot: which slot has the key cannot be predicted.
struct MatchIn {
  int operator()(const KeyGroup& group, int64_t key) const {
    int found = 0;  // the place + 1
    for (int i = 0; i < KeyGroup::kSlots; ++i) {
      found |= -static_cast<int>((group.keys[i] == key) & (group.rows[i] != 0)) & (i + 1);
    }
    return found - 1;
  }
};

}  // namespace

const KeySearch kSearchScalar = {locate, match<MatchIn>};

const KeySearch& key_search() {
#ifdef DLRM_X86
  if (dlrm_chosen_cpu_instruction_set() >= DLRM_AVX512) return kSearchAvx512;
#endif
  return kSearchScalar;
}

void search_on(const IndexShape& shape, const int64_t* keys, SearchBlock* block) {
  for (int64_t j = 0; j < block->num_passed; ++j) {
    const int32_t i = block->passed[j];
    const int64_t first_group = block->buckets[i] * shape.groups_of_bucket;
    const KeyGroups groups(shape.groups + first_group, shape.groups_of_bucket);
    const int64_t slot = groups.find(keys[i], block->hashes[i]);
    block->rows[i] = slot < 0 ? -1 : groups.row(slot);
    block->slots[i] = first_group * KeyGroup::kSlots + slot;
  }
}

}  // namespace dlrm
