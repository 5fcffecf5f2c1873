// The dot interaction's kernels behind a C interface: no TensorFlow in here, so that ctypes can call them anywhere.
//
// features  [B, F, D]  F vectors of width D per sample, row-major and contiguous
// output    [B, P]     row 0 (D values), then dot(row i, row j) for i > j row-major, then zeros; P = output width
// upstream  [B, P]     the gradient of output;  gradient [B, F, D] the gradient of features
//
// All tensors of a call have one element type; sums are float32 in every one. The same call gives the same bits.
// What is copied keeps its bits: row 0 of output, and the whole gradient where F = 1.
// Source: the output layout of NVIDIA's DotBasedInteract.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { DLRM_FLOAT32 = 0, DLRM_FLOAT16 = 1, DLRM_BFLOAT16 = 2 };

// Instruction sets of the CPU kernels, each with all that the ones before it have.
enum { DLRM_SCALAR = 0, DLRM_AVX2 = 1, DLRM_AVX512 = 2, DLRM_AVX512_BF16 = 3 };

// What a call returns: 0, one of these, or (CUDA) 1000 + a cudaError_t. dlrm_error_text says it in words.
enum { DLRM_OK = 0, DLRM_BAD_ARGUMENT = 1, DLRM_NO_MEMORY = 2, DLRM_NO_INSTRUCTION_SET = 3, DLRM_TOO_LARGE = 4,
       DLRM_CUDA_ERROR = 1000 };

const char* dlrm_error_text(int code);

// P: D + F (F - 1) / 2, rounded up to a multiple of 8.
int64_t dlrm_dot_interaction_output_width(int64_t num_vectors, int64_t width);

// The best instruction set of this processor and operating system.
int dlrm_cpu_instruction_set(void);

// Chooses the instruction set that -1 stands for below, in this process: one that the processor has, or -1 for the best,
// which is the choice at the start. Returns DLRM_NO_INSTRUCTION_SET, and chooses nothing, for any other number.
int dlrm_choose_cpu_instruction_set(int instruction_set);

// The instruction set that -1 stands for now.
int dlrm_chosen_cpu_instruction_set(void);

// Samples first .. last - 1 of tensors that start at sample 0. Callable from many threads, on disjoint ranges.
// instruction_set: one of the above that the processor has, or -1 for the chosen one.
int dlrm_dot_interaction_cpu(const void* features, void* output, int64_t first, int64_t last, int64_t num_vectors,
                             int64_t width, int element_type, int instruction_set);
int dlrm_dot_interaction_gradient_cpu(const void* features, const void* upstream, void* gradient, int64_t first,
                                      int64_t last, int64_t num_vectors, int64_t width, int element_type,
                                      int instruction_set);

// Whether the current GPU can run these kernels: 0, or why not (no driver, no code for this GPU).
int dlrm_cuda_status(void);

// The whole batch on a GPU, queued on `stream` (a cudaStream_t). Pointers are device memory.
// kernel: -1 for the fastest that serves the shape, 0 for the general one, 1 for the tensor cores' (which refuses
// shapes that it does not serve with DLRM_BAD_ARGUMENT).
int dlrm_dot_interaction_cuda(const void* features, void* output, int64_t num_samples, int64_t num_vectors,
                              int64_t width, int element_type, int kernel, void* stream);
int dlrm_dot_interaction_gradient_cuda(const void* features, const void* upstream, void* gradient, int64_t num_samples,
                                       int64_t num_vectors, int64_t width, int element_type, int kernel, void* stream);

#ifdef __cplusplus
}
#endif
