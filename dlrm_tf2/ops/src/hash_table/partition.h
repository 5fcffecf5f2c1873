// Some keys of a batch in the order of their hashes, so bucket by bucket: sorted by several threads.
//
// Threads list keys chunk by chunk; group() sorts the lists into buckets; then each bucket is sorted on its own, by the
// thread that works on it.
#pragma once

#include <stdint.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "key_hash.h"
#include "parallel.h"

namespace dlrm {

// A key of a batch.
struct BatchKey {
  uint64_t hash;
  int64_t position;
};

class Partition {
 public:
  // Begins with lists of nothing. The chunks of a batch of `count` keys list at most as many keys as they have. False where
  // the system has no memory.
  bool begin(int64_t count, int64_t num_chunks) {
    count_ = count;
    lengths_.assign(static_cast<size_t>(num_chunks), 0);
    const int64_t most = std::max<int64_t>(1, count);
    return lists_.take(most) != nullptr && grouped_.take(most) != nullptr;
  }

  int64_t num_chunks() const { return static_cast<int64_t>(lengths_.size()); }
  int64_t first_of(int64_t chunk) const { return count_ * chunk / num_chunks(); }
  BatchKey* list(int64_t chunk) const { return lists_.data() + first_of(chunk); }
  void set_length(int64_t chunk, int64_t length) { lengths_[static_cast<size_t>(chunk)] = length; }

  int64_t num_listed() const {
    int64_t sum = 0;
    for (int64_t length : lengths_) sum += length;
    return sum;
  }

  // Sorts what is listed into the buckets. all(n, run): calls run(i) for i below n.
  template <class Index, class All>
  void group(const Index& index, const All& all) {
    num_buckets_ = index.owned.num_buckets;
    const int64_t num_buckets = index.num_buckets();
    places_.resize(lengths_.size());
    all(num_chunks(), [&](int64_t chunk) {
      std::vector<int64_t>& counts = places_[static_cast<size_t>(chunk)];
      counts.assign(static_cast<size_t>(num_buckets), 0);
      each_of(chunk, [&](const BatchKey& key) { ++counts[static_cast<size_t>(index.bucket_of_hash(key.hash))]; });
    });
    starts_.assign(1, 0);
    int64_t next = 0;
    for (int64_t bucket = 0; bucket < num_buckets; ++bucket) {
      for (auto& of_chunk : places_) next += std::exchange(of_chunk[static_cast<size_t>(bucket)], next);
      starts_.push_back(next);
    }
    all(num_chunks(), [&](int64_t chunk) {
      int64_t* const to = places_[static_cast<size_t>(chunk)].data();
      each_of(chunk, [&](const BatchKey& key) { grouped_.data()[to[index.bucket_of_hash(key.hash)]++] = key; });
    });
  }

  // Sorts the keys of some buckets, and calls each(first, last) for all occurrences of each key, in the order of the hashes.
  // Asks for the memory in which a key is or will be; index.place(hash) says where.
  template <class Index, class Each>
  void for_each_key(const Index& index, int64_t first_bucket, int64_t last_bucket, const Each& each) {
    constexpr int64_t kAhead = 64;
    for (int64_t bucket = first_bucket; bucket < last_bucket; ++bucket) sort(bucket);
    const BatchKey* const end = lists_.data() + starts_[static_cast<size_t>(last_bucket)];
    const BatchKey* asked = lists_.data() + starts_[static_cast<size_t>(first_bucket)];
    for (const BatchKey* one = asked; one < end;) {
      const BatchKey* next = one + 1;
      while (next < end && next->hash == one->hash) ++next;
      for (const BatchKey* const until = next + std::min(kAhead, end - next); asked < until; ++asked) {
        __builtin_prefetch(index.place(asked->hash), 1);  // a function that only prefetched would be optimized away
      }
      each(one, next);
      one = next;
    }
  }

 private:
  template <class Each>
  void each_of(int64_t chunk, const Each& each) const {
    const BatchKey* const keys = list(chunk);
    for (int64_t i = 0; i < lengths_[static_cast<size_t>(chunk)]; ++i) each(keys[i]);
  }

  // Sorts the keys of a bucket into lists_: hashes are spread evenly, so they are dealt out to bins of a few keys.
  void sort(int64_t bucket) {
    constexpr int kMostBits = 12;
    const int64_t start = starts_[static_cast<size_t>(bucket)], count = starts_[static_cast<size_t>(bucket) + 1] - start;
    const BatchKey* const from = grouped_.data() + start;
    BatchKey* const to = lists_.data() + start;
    const auto lower = [](const BatchKey& a, const BatchKey& b) { return a.hash < b.hash; };
    int bits = 0;
    while (bits < kMostBits && count >> (bits + 1) > 1) ++bits;
    if (bits < 4) {
      std::copy(from, from + count, to);
      std::sort(to, to + count, lower);
      return;
    }
    const auto bin_of = [&](const BatchKey& key) {  // how far in the bucket the hash is
      return static_cast<uint32_t>((key.hash >> 32) * static_cast<uint64_t>(num_buckets_)) >> (32 - bits);
    };
    int32_t ends[(1 << kMostBits) + 1];
    std::fill(ends, ends + (1 << bits) + 1, 0);
    for (int64_t i = 0; i < count; ++i) ++ends[bin_of(from[i]) + 1];
    for (int bin = 0; bin < 1 << bits; ++bin) ends[bin + 1] += ends[bin];
    for (int64_t i = 0; i < count; ++i) to[ends[bin_of(from[i])]++] = from[i];
    for (int64_t bin = 0, first = 0; bin < 1 << bits; first = ends[bin++]) {
      if (ends[bin] - first > 1) std::sort(to + first, to + ends[bin], lower);
    }
  }

  int64_t count_ = 0, num_buckets_ = 1;  // num_buckets_: of the table
  std::vector<int64_t> lengths_;  // of the lists
  Buffer<BatchKey> lists_;        // of each chunk from first_of(chunk) on; later all keys, sorted
  Buffer<BatchKey> grouped_;      // bucket after bucket
  std::vector<std::vector<int64_t>> places_;
  std::vector<int64_t> starts_;  // of each bucket, and the end
};

}  // namespace dlrm
