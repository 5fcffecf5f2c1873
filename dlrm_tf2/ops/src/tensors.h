// What all ops need of TensorFlow: the element types of the kernels, outputs in recycled memory, and threads.
#pragma once

#include "kernels.h"
#include "recycled_memory.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace dlrm {

template <typename T>
int element_type_of();
template <>
inline int element_type_of<float>() { return DLRM_FLOAT32; }
template <>
inline int element_type_of<Eigen::half>() { return DLRM_FLOAT16; }
template <>
inline int element_type_of<Eigen::bfloat16>() { return DLRM_BFLOAT16; }

// Output 0 of an op on the CPU: a large one in recycled memory.
template <typename T>
absl::Status make_host_output(tensorflow::OpKernelContext* context, const tensorflow::TensorShape& shape,
                              tensorflow::Tensor** output) {
  if (shape.num_elements() * sizeof(T) >= RecycledMemory::kLargePage) {
    const tensorflow::Tensor recycled(RecycledMemory::get(), tensorflow::DataTypeToEnum<T>::value, shape);
    if (recycled.IsInitialized()) {
      context->set_output(0, recycled);
      *output = context->mutable_output(0);
      return absl::OkStatus();
    }
  }
  return context->allocate_output(0, shape, output);
}

// Runs tasks in TensorFlow's own threads; `threads` is their pool.
inline void in_pool(void* threads, int64_t count, DlrmTask task, void* state) {
  auto* const pool = static_cast<tensorflow::thread::ThreadPool*>(threads);
  if (pool->NumThreads() == 1) {  // a second thread would take the core of another rank
    for (int64_t i = 0; i < count; ++i) task(state, i);
    return;
  }
  pool->ParallelFor(
      count,
      tensorflow::thread::ThreadPool::SchedulingParams(
          tensorflow::thread::ThreadPool::SchedulingStrategy::kFixedBlockSize, std::nullopt, 1),
      [=](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) task(state, i);
      });
}

}  // namespace dlrm
