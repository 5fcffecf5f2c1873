// What every op on a GPU needs of TensorFlow: its stream, memory, and a word when the GPU is done.
//
// With DLRM_EMULATE the ops are kernels "emulated" of the CPU, and tests/support/cuda_emulator runs what they queue.
#pragma once

#include <functional>

#include "kernels.h"
#include "tensorflow/core/framework/op_kernel.h"
#ifndef DLRM_EMULATE
#include "tensorflow/core/common_runtime/device/device_event_mgr.h"
#include "xla/stream_executor/stream.h"
#endif

// The device of a kernel's registration.
#ifdef DLRM_EMULATE
#define DLRM_ON_GPU(NAME) Name(NAME).Device(tensorflow::DEVICE_CPU).Label("emulated")
#else
#define DLRM_ON_GPU(NAME) Name(NAME).Device(tensorflow::DEVICE_GPU)
#endif

namespace dlrm {

#ifdef DLRM_EMULATE

inline void* stream_of(tensorflow::OpKernelContext*) { return nullptr; }
inline void when_done(tensorflow::OpKernelContext*, std::function<void()> function) { function(); }

#else

inline void* stream_of(tensorflow::OpKernelContext* context) {
  return context->op_device_context()->stream()->platform_specific_handle().stream;
}

// Calls a brief function in another thread, when all that is queued by now is done.
inline void when_done(tensorflow::OpKernelContext* context, std::function<void()> function) {
  context->device()->tensorflow_accelerator_device_info()->event_mgr->ThenExecute(
      context->op_device_context()->stream(), std::move(function));
}

#endif

inline absl::Status status_of(int code, const char* where) {
  return code == DLRM_OK ? absl::OkStatus() : tensorflow::errors::Internal(where, ": ", dlrm_error_text(code));
}

// Memory on the GPU, or in the host's for copies from it, while the tensor lives: at a multiple of 256.
inline absl::Status allocate_bytes(tensorflow::OpKernelContext* context, int64_t bytes, bool on_host,
                                   tensorflow::Tensor* tensor, void** start) {
  tensorflow::AllocatorAttributes attributes;
  attributes.set_on_host(on_host);
  attributes.set_gpu_compatible(on_host);
  TF_RETURN_IF_ERROR(context->allocate_temp(tensorflow::DT_INT8, tensorflow::TensorShape({bytes + 255}), tensor, attributes));
  char* const first = static_cast<char*>(tensor->data());
  *start = first + -reinterpret_cast<uintptr_t>(first) % 256;
  return absl::OkStatus();
}

}  // namespace dlrm
