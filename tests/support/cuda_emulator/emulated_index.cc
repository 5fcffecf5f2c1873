// The hash table's CUDA kernels as a library for the processor: the same C interface. Compile with -ffp-contract=off.
#define DLRM_EMULATE
#include "cuda_emulator.h"

#include "embedding_rows/status_cuda.cu"
#include "hash_table/initial_rows_cuda.cu"
#include "hash_table/key_index_cuda.cu"
#include "emulated_sort.h"

extern "C" void emulate_gpu(int shared_bytes, unsigned seed) {
  emulator::shared_limit = shared_bytes;
  emulator::order.seed(seed);
}

// Queues nothing: the number that the next call of the index begins after.
extern "C" void set_call(const DlrmCudaIndex* index, uint32_t call) {
  static_cast<table::Header*>(index->memory)->call = call;
}
