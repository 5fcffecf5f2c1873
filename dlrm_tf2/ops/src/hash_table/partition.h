// The keys of a batch, bucket by bucket: a counting sort by several threads, which keeps the order inside a bucket.
#pragma once

#include <stdint.h>

#include <atomic>
#include <utility>
#include <vector>

#include "key_hash.h"
#include "parallel.h"

namespace dlrm {

class Partition {
 public:
  // `index`: says which bucket a key is of. all(n, run): calls run(i) for i below n. Returns DLRM_BAD_ID, and which, where a key is of another index's bucket.
  template <class Index, class All>
  int run(const Index& index, const int64_t* keys, int64_t count, const All& all, int64_t num_chunks,
          int64_t* bad_key) {
    const int64_t num_buckets = index.num_buckets();
    std::vector<std::vector<int64_t>> places(static_cast<size_t>(num_chunks));
    std::atomic<int64_t> bad{-1};
    all(num_chunks, [&](int64_t chunk) {
      std::vector<int64_t>& counts = places[static_cast<size_t>(chunk)];
      counts.assign(static_cast<size_t>(num_buckets), 0);
      for (int64_t i = count * chunk / num_chunks; i < count * (chunk + 1) / num_chunks; ++i) {
        const int64_t bucket = index.bucket_of_hash(hash_of(keys[i]));
        if (index.owns(bucket)) ++counts[static_cast<size_t>(bucket)];
        else bad = i;
      }
    });
    if (bad >= 0) {
      *bad_key = keys[bad];
      return DLRM_BAD_ID;
    }
    keys_ = key_memory_.take(count);
    positions_ = position_memory_.take(count);
    if (keys_ == nullptr || positions_ == nullptr) return DLRM_NO_MEMORY;
    starts_.assign(1, 0);
    int64_t next = 0;
    for (int64_t bucket = 0; bucket < num_buckets; ++bucket) {
      for (auto& of_chunk : places) next += std::exchange(of_chunk[static_cast<size_t>(bucket)], next);
      starts_.push_back(next);
    }
    all(num_chunks, [&](int64_t chunk) {
      int64_t* const to = places[static_cast<size_t>(chunk)].data();
      for (int64_t i = count * chunk / num_chunks; i < count * (chunk + 1) / num_chunks; ++i) {
        const int64_t place = to[index.bucket_of_hash(hash_of(keys[i]))]++;
        keys_[place] = keys[i];
        positions_[place] = static_cast<uint32_t>(i);
      }
    });
    return DLRM_OK;
  }

  const int64_t* keys(int64_t bucket) const { return keys_ + starts_[static_cast<size_t>(bucket)]; }
  const uint32_t* positions(int64_t bucket) const { return positions_ + starts_[static_cast<size_t>(bucket)]; }
  int64_t count(int64_t bucket) const {
    return starts_[static_cast<size_t>(bucket) + 1] - starts_[static_cast<size_t>(bucket)];
  }

 private:
  Buffer<int64_t> key_memory_;
  Buffer<uint32_t> position_memory_;
  int64_t* keys_ = nullptr;
  uint32_t* positions_ = nullptr;
  std::vector<int64_t> starts_;  // of each bucket, and the end
};

}  // namespace dlrm
