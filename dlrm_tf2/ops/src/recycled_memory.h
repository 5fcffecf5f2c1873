// Large outputs in memory that is used again. TensorFlow's own allocator hands 100 MB back to the system after every
// step, and the page faults of getting them again cost as much as the arithmetic does.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <deque>
#include <mutex>
#include <unordered_map>

#include "tensorflow/core/framework/allocator.h"

namespace dlrm {

// Keeps the last two blocks that were freed: an output and a gradient. Blocks are whole large pages.
class RecycledMemory : public tensorflow::Allocator {
 public:
  static constexpr size_t kLargePage = 2 << 20;

  static RecycledMemory* get() {
    static RecycledMemory* const memory = new RecycledMemory;  // outlives every tensor
    return memory;
  }

  std::string Name() override { return "dlrm_recycled"; }

  // nullptr where the system has no more memory.
  void* AllocateRaw(size_t, size_t num_bytes) override {
    const size_t needed = (num_bytes + kLargePage - 1) / kLargePage * kLargePage;
    std::lock_guard<std::mutex> lock(mutex_);
    const auto fits = [&](void* block) { return bytes_[block] >= needed && bytes_[block] / 2 <= needed; };
    const auto found = std::find_if(kept_.begin(), kept_.end(), fits);
    if (found != kept_.end()) {
      void* const block = *found;
      kept_.erase(found);
      return block;
    }
    void* const block = map(needed);
    if (block != nullptr) bytes_[block] = needed;
    return block;
  }

  void DeallocateRaw(void* block) override {
    std::lock_guard<std::mutex> lock(mutex_);
    kept_.push_back(block);
    if (kept_.size() <= 2) return;
    munmap(kept_.front(), bytes_[kept_.front()]);
    bytes_.erase(kept_.front());
    kept_.pop_front();
  }

 private:
  // A block at a multiple of the large page, so that large pages can be all of it.
  static void* map(size_t num_bytes) {
    const int kind = MAP_PRIVATE | MAP_ANONYMOUS;
    void* const mapped = mmap(nullptr, num_bytes + kLargePage, PROT_READ | PROT_WRITE, kind, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    char* const start = static_cast<char*>(mapped);
    const size_t before = -reinterpret_cast<uintptr_t>(start) % kLargePage;
    if (before > 0) munmap(start, before);
    munmap(start + before + num_bytes, kLargePage - before);
    madvise(start + before, num_bytes, MADV_HUGEPAGE);
    return start + before;
  }

  std::mutex mutex_;
  std::unordered_map<void*, size_t> bytes_;  // of every block, in use or kept
  std::deque<void*> kept_;                   // the oldest first
};

}  // namespace dlrm
