// The dot interaction's kernels behind a C interface.
//
// features  [B, F, D]  F vectors of width D per sample, row-major and contiguous
// output    [B, P]     row 0 (D values), then dot(row i, row j) for i > j row-major, then zeros; P = output width
// upstream  [B, P]     the gradient of output;  gradient [B, F, D] the gradient of features
//
// All tensors of a call have one element type; sums are float32 in every one. The same call gives the same bits.
// What is copied keeps its bits: row 0 of output, and the whole gradient where F = 1.
// Source: the output layout of NVIDIA's DotBasedInteract.
#pragma once

#include "kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

// P: D + F (F - 1) / 2, rounded up to a multiple of 8.
int64_t dlrm_dot_interaction_output_width(int64_t num_vectors, int64_t width);

// Samples first .. last - 1 of tensors that start at sample 0. Callable from many threads, on disjoint ranges.
// instruction_set: one of kernels.h that the processor has, or -1 for the chosen one.
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
