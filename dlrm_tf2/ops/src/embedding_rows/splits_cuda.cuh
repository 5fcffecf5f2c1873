// Row splits from row lengths on a GPU. Each block adds up all lengths before its own ones itself, since they lie in the
// GPU's cache: one launch does for any batch.
#pragma once

#include "embedding_rows_cuda.cuh"

namespace rows {

constexpr int kSamplesOfThread = 4, kSamplesOfBlock = kSamplesOfThread * kThreads;

struct Lengths {
  const int32_t* lengths;  // [num_samples]
  int64_t num_samples, num_ids, bags;
};

DLRM_DEVICE void complain_of_length(const Lengths& of, int64_t sample, int64_t length, DlrmCudaStatus* status) {
  if (atomicCAS(&status->found_bad_id, 0, static_cast<int>(DLRM_FOUND_LENGTH)) == 0) {
    status->bad_id = {of.bags, sample, length};
  }
}

// sums[i] becomes the sum of sums[0 .. i], for all threads of a block.
DLRM_DEVICE void add_up_in_block(int64_t* sums) {
  const int i = threadIdx.x;
  for (int step = 1; step < kThreads; step *= 2) {
    __syncthreads();
    const int64_t before = i >= step ? sums[i - step] : 0;
    __syncthreads();
    sums[i] += before;
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads) add_up(Lengths of, int64_t* row_splits, DlrmCudaStatus* status) {
  DLRM_SHARED(memory);
  int64_t* const sums = reinterpret_cast<int64_t*>(memory);  // [kThreads]
  const auto length = [&](int64_t sample) { return of.lengths[sample] > 0 ? of.lengths[sample] : 0; };
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kSamplesOfBlock;
  int64_t sum = 0;
  for (int64_t sample = threadIdx.x; sample < first; sample += kThreads) sum += length(sample);
  sums[threadIdx.x] = sum;
  add_up_in_block(sums);
  int64_t before = sums[kThreads - 1];
  __syncthreads();

  const int64_t mine = first + threadIdx.x * kSamplesOfThread;
  sum = 0;
  for (int64_t sample = mine; sample < mine + kSamplesOfThread && sample < of.num_samples; ++sample) {
    if (of.lengths[sample] < 0) complain_of_length(of, sample, of.lengths[sample], status);
    sum += length(sample);
  }
  sums[threadIdx.x] = sum;
  add_up_in_block(sums);
  before += sums[threadIdx.x] - sum;
  for (int64_t sample = mine; sample < mine + kSamplesOfThread && sample <= of.num_samples; ++sample) {
    row_splits[sample] = before < of.num_ids ? before : of.num_ids;
    if (sample < of.num_samples) {
      before += length(sample);
    } else if (before != of.num_ids) {
      complain_of_length(of, -1, before, status);
    }
  }
}

}  // namespace rows
