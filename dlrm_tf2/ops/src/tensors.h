// What all ops need of TensorFlow's tensors: the element types of the kernels, and outputs in recycled memory.
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

}  // namespace dlrm
