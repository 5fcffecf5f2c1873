// Memory of zeros that is taken from the system page by page, as it is written.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include <algorithm>

namespace dlrm {

// An array of zeros, aligned to a page, in large pages where it is large: a probe at random needs one entry of the
// processor's table of pages, which has few.
template <class T>
class ZeroPages {
 public:
  ZeroPages() = default;
  ZeroPages(const ZeroPages&) = delete;
  ZeroPages& operator=(const ZeroPages&) = delete;
  ~ZeroPages() { give_up(); }

  // `count` zeros in place of what was there. False where the system has no memory.
  bool take(int64_t count) {
    give_up();
    constexpr size_t kLargePage = 2 << 20;
    const size_t bytes = std::max<size_t>(1, static_cast<size_t>(count)) * sizeof(T);
    bytes_ = bytes < kLargePage ? bytes : bytes + kLargePage;
    const int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    memory_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, kind, -1, 0);
    if (memory_ == MAP_FAILED) return false;
    size_t before = 0;
    if (bytes >= kLargePage) {
      before = -reinterpret_cast<uintptr_t>(memory_) % kLargePage;
      madvise(memory_, bytes_, MADV_HUGEPAGE);
    }
    data_ = reinterpret_cast<T*>(static_cast<char*>(memory_) + before);
    return true;
  }

  T* data() const { return data_; }

 private:
  void give_up() {
    if (memory_ != MAP_FAILED) munmap(memory_, bytes_);
    memory_ = MAP_FAILED;
    data_ = nullptr;
  }

  void* memory_ = MAP_FAILED;
  size_t bytes_ = 0;
  T* data_ = nullptr;
};

}  // namespace dlrm
