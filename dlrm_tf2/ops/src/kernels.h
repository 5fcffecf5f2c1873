// What the C interfaces of all kernels share: element types, instruction sets, results, threads. No TensorFlow in here, so
// that ctypes can call the kernels anywhere.
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
       DLRM_BAD_ID = 5, DLRM_CUDA_ERROR = 1000 };

const char* dlrm_error_text(int code);

// Runs task(state, i) once for each i from 0 to count - 1, in any threads, and returns when all are done.
typedef void (*DlrmTask)(void* state, int64_t index);
typedef void (*DlrmParallelFor)(void* threads, int64_t count, DlrmTask task, void* state);

// The best instruction set of this processor and operating system.
int dlrm_cpu_instruction_set(void);

// Chooses the instruction set that -1 stands for in the calls of kernels, in this process: one that the processor has, or
// -1 for the best, which is the choice at the start. Returns DLRM_NO_INSTRUCTION_SET, and chooses nothing, for any other
// number.
int dlrm_choose_cpu_instruction_set(int instruction_set);

// The instruction set that -1 stands for now.
int dlrm_chosen_cpu_instruction_set(void);

#ifdef __cplusplus
}
#endif
