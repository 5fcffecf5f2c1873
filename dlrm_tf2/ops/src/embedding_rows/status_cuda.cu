// What a step on a GPU needs around its lookups and updates, so that nothing of it waits: row splits, and the status.
#include <math.h>

#include "embedding_rows_cuda.cuh"
#include "splits_cuda.cuh"

namespace rows {

__global__ void take_check(DlrmCudaStatus* status, float* check) {
  *check = status->not_finite ? NAN : 0.0f;
  status->not_finite = 0;
}

}  // namespace rows

using rows::code_of;

extern "C" {

int dlrm_embedding_row_splits_cuda(const int32_t* lengths, int64_t num_samples, int64_t num_ids, int64_t bags,
                                   int64_t* row_splits, DlrmCudaStatus* status, void* stream) {
  if (num_samples < 0 || num_ids < 0) return DLRM_BAD_ARGUMENT;
  const int64_t blocks = num_samples / rows::kSamplesOfBlock + 1;  // also where there is no sample
  if (blocks >= int64_t{1} << 31) return DLRM_TOO_LARGE;
  return code_of(launch(rows::add_up, blocks, rows::kThreads, rows::kThreads * 8, stream,
                        rows::Lengths{lengths, num_samples, num_ids, bags}, row_splits, status));
}

int dlrm_embedding_check_cuda(DlrmCudaStatus* status, float* check, void* stream) {
  return code_of(launch(rows::take_check, 1, 1, 0, stream, status, check));
}

int dlrm_cuda_copy(void* to, const void* from, int64_t bytes, void* stream) {
  return code_of(copy_memory(to, from, bytes, stream));
}

int dlrm_cuda_zeros(void* to, int64_t bytes, void* stream) { return code_of(fill_with_zeros(to, bytes, stream)); }

int dlrm_cuda_wait(void* stream) { return code_of(wait_for(stream)); }

}  // extern "C"
