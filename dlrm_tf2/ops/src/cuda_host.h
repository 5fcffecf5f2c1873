// What the host's half of a CUDA call needs: result codes, numbers of blocks, and one piece of memory in parts.
#pragma once

#include <stdint.h>

#include "kernels.h"

namespace dlrm {

// The result of a call of the C interface, from a cudaError_t.
inline int code_of(int cuda_error) { return cuda_error == 0 ? DLRM_OK : DLRM_CUDA_ERROR + cuda_error; }

inline int64_t blocks_for(int64_t count, int64_t of_block) { return (count + of_block - 1) / of_block; }

inline bool fits(const void* address, int64_t bytes) { return reinterpret_cast<uintptr_t>(address) % bytes == 0; }

// Memory from a given address on, in parts that start at multiples of 256. Without an address it counts bytes.
class Memory {
 public:
  explicit Memory(void* start) : start_(reinterpret_cast<uintptr_t>(start)) {}

  template <class T>
  T* take(int64_t count) {
    const uintptr_t taken = start_ + static_cast<uintptr_t>(used_);
    used_ += blocks_for(count * static_cast<int64_t>(sizeof(T)), 256) * 256;
    return reinterpret_cast<T*>(taken);
  }
  int64_t used() const { return used_; }

 private:
  uintptr_t start_;
  int64_t used_ = 0;
};

}  // namespace dlrm
