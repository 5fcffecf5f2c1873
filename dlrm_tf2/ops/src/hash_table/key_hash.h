// The hash of a key and the bucket it belongs to; in Python: dlrm_tf2/sharding/buckets.py.
#pragma once

#include <stdint.h>

#include "splitmix64.h"

namespace dlrm {

DLRM_BOTH inline uint64_t hash_of(int64_t key) { return mix64(static_cast<uint64_t>(key)); }

// From the high half of the hash. The low half says where in the bucket a search begins.
DLRM_BOTH inline int64_t bucket_of(uint64_t hash, int64_t num_buckets) {
  return static_cast<int64_t>((hash >> 32) * static_cast<uint64_t>(num_buckets) >> 32);
}

// A number below `count`, from 32 random bits.
DLRM_BOTH inline int64_t below(uint32_t bits, int64_t count) {
  return static_cast<int64_t>(static_cast<uint64_t>(bits) * static_cast<uint64_t>(count) >> 32);
}

}  // namespace dlrm
