// Enough of a GPU to run the CUDA kernels' own text on a processor: threads are fibers, in an order drawn at random,
// that stop at every barrier; shared memory starts as NaN; asynchronous copies arrive only when waited for; the warp's
// matrix instructions follow the fragment layouts of the PTX ISA. What it cannot show: speed, and memory races inside a
// phase that no order of whole phases brings out.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <vector>

#define __global__
#define __host__
#define __device__
#define __launch_bounds__(...)
#define DLRM_DEVICE inline
#define DLRM_SHARED(name) unsigned char* name = emulator::shared_memory

using std::max;
using std::min;

struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
struct Index {
  int x;
};
inline Index threadIdx, blockIdx, blockDim, gridDim;

// ---- the runtime's few calls ---------------------------------------------------------------------------------------

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
enum cudaDeviceAttr {
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrComputeCapabilityMinor,
  cudaDevAttrMaxSharedMemoryPerBlockOptin
};

namespace emulator {

inline int capability = 90, shared_limit = 227 * 1024;
inline unsigned char* shared_memory;
inline std::mt19937 order(1);

struct PendingCopy {
  void* to;
  const void* from;
};

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(128 * 1024);
  std::vector<PendingCopy> copies;
  enum { kReady, kAtWarpBarrier, kAtBlockBarrier, kDone } state = kReady;
};

// What lanes show each other in a matrix instruction.
struct Lane {
  const void* row;
  uint32_t a[4], b[2];
};

inline std::vector<std::unique_ptr<Fiber>> fibers;
inline std::vector<Lane> lanes;
inline ucontext_t scheduler;
inline int running;
inline std::function<void()> body;
inline std::mutex one_at_a_time;  // TensorFlow's threads launch too

inline void wait(int state) {
  Fiber& fiber = *fibers[running];
  fiber.state = state == Fiber::kAtWarpBarrier ? Fiber::kAtWarpBarrier : Fiber::kAtBlockBarrier;
  swapcontext(&fiber.context, &scheduler);
}

inline void start() {
  body();
  fibers[running]->state = Fiber::kDone;
  // The context's successor is the scheduler.
}

inline void release(int first, int last, int barrier) {
  bool all = true, any = false;
  for (int i = first; i < last; ++i) {
    all &= fibers[i]->state == barrier || fibers[i]->state == Fiber::kDone;
    any |= fibers[i]->state == barrier;
  }
  for (int i = first; all && any && i < last; ++i) {
    if (fibers[i]->state == barrier) fibers[i]->state = Fiber::kReady;
  }
}

// One block. Returns false when its threads wait for each other for ever.
inline bool run_block(int num_threads) {
  while (static_cast<int>(fibers.size()) < num_threads) fibers.push_back(std::make_unique<Fiber>());
  lanes.resize(num_threads);
  for (int i = 0; i < num_threads; ++i) {
    Fiber& fiber = *fibers[i];
    fiber.state = Fiber::kReady;
    fiber.copies.clear();
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, start, 0);
  }
  std::vector<int> ready;
  for (;;) {
    ready.clear();
    bool done = true;
    for (int i = 0; i < num_threads; ++i) {
      if (fibers[i]->state == Fiber::kReady) ready.push_back(i);
      done &= fibers[i]->state == Fiber::kDone;
    }
    if (done) return true;
    if (ready.empty()) return false;
    std::shuffle(ready.begin(), ready.end(), order);
    for (int thread : ready) {
      running = thread;
      threadIdx.x = thread;
      swapcontext(&scheduler, &fibers[thread]->context);
    }
    for (int warp = 0; warp < num_threads; warp += 32) {
      release(warp, std::min(warp + 32, num_threads), Fiber::kAtWarpBarrier);
    }
    release(0, num_threads, Fiber::kAtBlockBarrier);
  }
}

}  // namespace emulator

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrComputeCapabilityMajor   ? emulator::capability / 10
           : attribute == cudaDevAttrComputeCapabilityMinor ? emulator::capability % 10
                                                            : emulator::shared_limit;
  return cudaSuccess;
}
struct cudaFuncAttributes {};
template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, Kernel*) {
  return cudaSuccess;
}
inline const char* cudaGetErrorString(cudaError_t) { return "emulated CUDA error: invalid argument"; }

inline void __syncthreads() { emulator::wait(emulator::Fiber::kAtBlockBarrier); }
template <class T>
T atomicAdd(T* at, T value) {
  const T before = *at;
  *at += value;
  return before;
}
inline int atomicCAS(int* at, int expected, int value) {
  const int before = *at;
  if (before == expected) *at = value;
  return before;
}
template <class T, class New>
T atomically(T* at, const New& new_value) {
  const T before = *at;
  *at = new_value(before);
  return before;
}
template <class T>
T atomicMax(T* at, T value) {
  return atomically(at, [=](T before) { return std::max(before, value); });
}
template <class T>
T atomicMin(T* at, T value) {
  return atomically(at, [=](T before) { return std::min(before, value); });
}
template <class T>
T atomicOr(T* at, T value) {
  return atomically(at, [=](T before) { return before | value; });
}
template <class T>
T atomicAnd(T* at, T value) {
  return atomically(at, [=](T before) { return before & value; });
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline void __syncwarp() { emulator::wait(emulator::Fiber::kAtWarpBarrier); }

// ---- cuda_primitives.cuh's device half ---------------------------------------------------------------------------

struct Half;
struct Bfloat;
template <class T>
T from_bits(uint32_t bits) {
  T value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
template <class T>
uint32_t bits_of(T value) {
  uint32_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  return bits;
}
inline float value_of(uint32_t bits, const Half*) { return static_cast<float>(from_bits<_Float16>(bits)); }
inline float value_of(uint32_t bits, const Bfloat*) { return from_bits<float>(bits << 16); }
inline float to_float(float value) { return value; }
template <class T>
float to_float(T value) {
  return value_of(value.bits, static_cast<const T*>(nullptr));
}
inline void from_float(float value, float* to) { *to = value; }
template <class T>
void from_float(float value, T* to) {
  if (std::is_same<T, Half>::value) {
    to->bits = static_cast<uint16_t>(bits_of(static_cast<_Float16>(value)));
  } else {
    const uint32_t bits = bits_of(value);
    to->bits = static_cast<uint16_t>(std::isnan(value) ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
}

inline void must(bool condition, const char* what) {
  if (condition) return;
  fprintf(stderr, "cuda_emulator: %s\n", what);
  abort();
}

inline void start_copy(void* shared, const void* global) {
  must(reinterpret_cast<uintptr_t>(shared) % 16 == 0 && reinterpret_cast<uintptr_t>(global) % 16 == 0,
       "a copy of 16 bytes is not aligned to 16 bytes");
  emulator::fibers[emulator::running]->copies.push_back({shared, global});
}
inline void ask_for(const void*) {}
template <class T>
T* in_global(T* pointer) {
  return pointer;
}
inline void wait_for_copies() {
  auto& copies = emulator::fibers[emulator::running]->copies;
  for (const auto& copy : copies) memcpy(copy.to, copy.from, 16);
  copies.clear();
}

template <bool kTransposed>
void load_matrices(const void* row, uint32_t (&out)[4]) {
  must(reinterpret_cast<uintptr_t>(row) % 16 == 0, "a matrix row is not aligned to 16 bytes");
  const int thread = emulator::running, lane = thread % 32, warp = thread - lane;
  emulator::lanes[thread].row = row;
  __syncwarp();
  for (int m = 0; m < 4; ++m) {
    uint16_t pair[2];
    for (int i = 0; i < 2; ++i) {
      const int r = kTransposed ? 2 * (lane % 4) + i : lane / 4, c = kTransposed ? lane / 4 : 2 * (lane % 4) + i;
      pair[i] = static_cast<const uint16_t*>(emulator::lanes[warp + m * 8 + r].row)[c];
    }
    out[m] = pair[0] | static_cast<uint32_t>(pair[1]) << 16;
  }
  __syncwarp();
}

template <class T>
void multiply_add(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const int thread = emulator::running, lane = thread % 32, warp = thread - lane;
  emulator::Lane& mine = emulator::lanes[thread];
  memcpy(mine.a, a, sizeof a);
  mine.b[0] = b0;
  mine.b[1] = b1;
  __syncwarp();
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + i / 2 * 8, column = 2 * (lane % 4) + i % 2;
    for (int k = 0; k < 16; ++k) {
      const emulator::Lane& left = emulator::lanes[warp + row % 8 * 4 + k % 8 / 2];
      const emulator::Lane& right = emulator::lanes[warp + column * 4 + k % 8 / 2];
      const uint32_t x = left.a[row / 8 + k / 8 * 2] >> k % 2 * 16 & 0xffff, y = right.b[k / 8] >> k % 2 * 16 & 0xffff;
      sums[i] += value_of(x, static_cast<const T*>(nullptr)) * value_of(y, static_cast<const T*>(nullptr));
    }
  }
  __syncwarp();
}

template <class... Parameters, class... Arguments>
int launch(void (*kernel)(Parameters...), int64_t num_blocks, int num_threads, int64_t shared_bytes, void*,
           Arguments... arguments) {
  if (shared_bytes > emulator::shared_limit || num_blocks < 1 || num_threads < 1 || num_threads > 1024) {
    return cudaErrorInvalidValue;
  }
  const std::lock_guard<std::mutex> lock(emulator::one_at_a_time);
  // Exactly as large as asked for, so that an address sanitizer sees the first byte past the end.
  unsigned char* memory = static_cast<unsigned char*>(aligned_alloc(16, (shared_bytes + 15) / 16 * 16));
  emulator::shared_memory = memory;
  emulator::body = [&] { kernel(static_cast<Parameters>(arguments)...); };
  blockDim.x = num_threads;
  gridDim.x = static_cast<int>(num_blocks);
  bool finished = true;
  for (int block = 0; block < num_blocks; ++block) {
    memset(memory, 0xff, shared_bytes);
    blockIdx.x = block;
    finished &= emulator::run_block(num_threads);
  }
  free(memory);
  must(finished, "threads wait at different barriers");
  return cudaSuccess;
}

inline int copy_rows(void* to, int64_t bytes_between_to, const void* from, int64_t bytes_between_from,
                     int64_t row_bytes, int64_t num_rows, void*) {
  for (int64_t row = 0; row < num_rows; ++row) {
    memcpy(static_cast<char*>(to) + row * bytes_between_to, static_cast<const char*>(from) + row * bytes_between_from,
           row_bytes);
  }
  return cudaSuccess;
}

inline int copy_memory(void* to, const void* from, int64_t bytes, void*) {
  memmove(to, from, bytes);
  return cudaSuccess;
}
inline int fill_with_zeros(void* to, int64_t bytes, void*) {
  memset(to, 0, bytes);
  return cudaSuccess;
}
inline int wait_for(void*) { return cudaSuccess; }
