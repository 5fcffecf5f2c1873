// What kernels of several threads need: tasks for threads, and memory that the next call uses again.
#pragma once

#include <stdint.h>
#include <stdlib.h>

#include "kernels.h"

namespace dlrm {

// Memory that is used again and never filled with zeros.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { free(data_); }
  // At least `count` elements; what was in it is lost. nullptr where the system has no more memory.
  T* take(int64_t count) {
    if (count > size_) {
      free(data_);
      data_ = static_cast<T*>(malloc(static_cast<size_t>(count) * sizeof(T)));
      size_ = data_ == nullptr ? 0 : count;
    }
    return data_;
  }
  T* data() const { return data_; }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

// Calls run(i) for each i from 0 to count - 1, in the threads of parallel_for.
template <class Run>
void in_parallel(DlrmParallelFor parallel_for, void* threads, int64_t count, const Run& run) {
  if (count == 0) return;
  const DlrmTask task = [](void* state, int64_t index) { (*static_cast<const Run*>(state))(index); };
  parallel_for(threads, count, task, const_cast<Run*>(&run));
}

}  // namespace dlrm
