// The CUDA kernels as a library for the processor: the same C interface, plus which GPU to be.
#define DLRM_EMULATE
#include "cuda_emulator.h"

#include "dot_interaction/dot_interaction_cuda.cu"

extern "C" void emulate_gpu(int capability, int shared_bytes, unsigned seed) {
  emulator::capability = capability;
  emulator::shared_limit = shared_bytes;
  emulator::order.seed(seed);
}
