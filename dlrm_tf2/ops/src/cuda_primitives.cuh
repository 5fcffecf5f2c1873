// The few instructions of a GPU that CUDA C++ has no name for, and conversions of the element types.
//
// With DLRM_EMULATE the kernels are compiled for the processor, and tests/dlrm_tf2/cuda_emulator.h stands in for this
// file's device half; the kernels themselves are the same text.
#pragma once

#include <stdint.h>

struct Half {
  uint16_t bits;
};
struct Bfloat {
  uint16_t bits;
};

#ifndef DLRM_EMULATE

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#define DLRM_DEVICE __device__ __forceinline__
#define DLRM_SHARED(name) extern __shared__ __align__(16) unsigned char name[]

DLRM_DEVICE float to_float(float value) { return value; }
DLRM_DEVICE float to_float(Half value) { return __half2float(__ushort_as_half(value.bits)); }
DLRM_DEVICE float to_float(Bfloat value) { return __uint_as_float(static_cast<uint32_t>(value.bits) << 16); }
DLRM_DEVICE void from_float(float value, float* to) { *to = value; }
DLRM_DEVICE void from_float(float value, Half* to) { to->bits = __half_as_ushort(__float2half_rn(value)); }
DLRM_DEVICE void from_float(float value, Bfloat* to) { to->bits = __bfloat16_as_ushort(__float2bfloat16_rn(value)); }

// Copies 16 aligned bytes from global to shared memory; they are there for this thread after wait_for_copies.
DLRM_DEVICE void start_copy(void* shared, const void* global) {
#if __CUDA_ARCH__ >= 800
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(global) : "memory");
#else
  *static_cast<uint4*>(shared) = __ldg(static_cast<const uint4*>(global));
#endif
}

DLRM_DEVICE void wait_for_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// Asks for memory that is needed soon.
DLRM_DEVICE void ask_for(const void* global) { asm volatile("prefetch.global.L2 [%0];" ::"l"(global)); }

// The same pointer; the compiler then knows that it points into global memory, which it cannot know about a pointer that
// was itself read from memory.
template <class T>
DLRM_DEVICE T* in_global(T* pointer) {
  __builtin_assume(__isGlobal(pointer));
  return pointer;
}

// Four 8 x 8 matrices of 2-byte elements; lane l holds the address of row l % 8 of matrix l / 8. Lane l gets, of matrix
// m in out[m], row l / 4, columns 2 (l % 4) and the next; transposed: rows 2 (l % 4) and the next, column l / 4.
template <bool kTransposed>
DLRM_DEVICE void load_matrices(const void* row, uint32_t (&out)[4]) {
#if __CUDA_ARCH__ >= 750
  const uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3]) : "r"(from) : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3]) : "r"(from) : "memory");
  }
#else
  __trap();
#endif
}

// sums (16 x 8, float32) += a (16 x 16) * b (16 x 8). Lane l, with g = l / 4 and t = l % 4, holds of a: rows g and
// g + 8 at columns 2t, 2t + 1 (a[0], a[1]) and 8 more (a[2], a[3]); of b: column g at rows 2t, 2t + 1 and 8 more; of
// sums: row g (sums[0], sums[1]) and g + 8, columns 2t and 2t + 1. Source: PTX ISA, fragments of mma.m16n8k16.
template <class T>
DLRM_DEVICE void multiply_add(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <>
DLRM_DEVICE void multiply_add<Half>(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#elif __CUDA_ARCH__ >= 750
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]) : "r"(a[0]), "r"(a[1]), "r"(b0));
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3]) : "r"(a[2]), "r"(a[3]), "r"(b1));
#else
  __trap();
#endif
}

template <>
DLRM_DEVICE void multiply_add<Bfloat>(float (&sums)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  __trap();
#endif
}

// Queues a kernel and says at once whether it could be: a launch that fails writes nothing and says nothing.
template <class... Parameters, class... Arguments>
int launch(void (*kernel)(Parameters...), int64_t num_blocks, int num_threads, int64_t shared_bytes, void* stream,
           Arguments... arguments) {
  if (shared_bytes > 48 * 1024) {  // more than every GPU has by default must be asked for
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (error != cudaSuccess) return static_cast<int>(error);
  }
  kernel<<<static_cast<unsigned>(num_blocks), num_threads, shared_bytes, static_cast<cudaStream_t>(stream)>>>(
      static_cast<Parameters>(arguments)...);
  return static_cast<int>(cudaGetLastError());
}

// Queues a copy of the first `row_bytes` of each row; rows begin every so many bytes.
inline int copy_rows(void* to, int64_t bytes_between_to, const void* from, int64_t bytes_between_from,
                     int64_t row_bytes, int64_t num_rows, void* stream) {
  return static_cast<int>(cudaMemcpy2DAsync(to, bytes_between_to, from, bytes_between_from, row_bytes, num_rows,
                                            cudaMemcpyDeviceToDevice, static_cast<cudaStream_t>(stream)));
}

// Queue a copy from anywhere to anywhere, and zeros in the GPU's memory.
inline int copy_memory(void* to, const void* from, int64_t bytes, void* stream) {
  return static_cast<int>(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, static_cast<cudaStream_t>(stream)));
}
inline int fill_with_zeros(void* to, int64_t bytes, void* stream) {
  return static_cast<int>(cudaMemsetAsync(to, 0, bytes, static_cast<cudaStream_t>(stream)));
}
inline int wait_for(void* stream) { return static_cast<int>(cudaStreamSynchronize(static_cast<cudaStream_t>(stream))); }

#endif  // DLRM_EMULATE
