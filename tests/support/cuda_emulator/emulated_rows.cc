// The embedding rows' CUDA kernels as a library for the processor: the same C interface. Compile with -ffp-contract=off.
#define DLRM_EMULATE
#include "cuda_emulator.h"

#include "embedding_rows/embedding_rows_cuda.cu"
#include "embedding_rows/status_cuda.cu"
#include "emulated_sort.h"

extern "C" void emulate_gpu(int shared_bytes, unsigned seed) {
  emulator::shared_limit = shared_bytes;
  emulator::order.seed(seed);
}
