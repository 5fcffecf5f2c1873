// What TensorFlow's ops of a key index have in common: the resource, its lock, and checked inputs.
#pragma once

#include <string.h>

#include <mutex>
#include <shared_mutex>
#include <string>
#include <vector>

#include "key_index.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensors.h"

namespace dlrm {

using absl::Status;
using tensorflow::DEVICE_CPU;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::core::RefCountPtr;
using tensorflow::errors::InvalidArgument;
using tensorflow::shape_inference::InferenceContext;

class KeyIndexResource : public tensorflow::ResourceBase {
 public:
  KeyIndexResource(void* index, const DlrmIndexBuckets& buckets) : index(index), buckets(buckets) {}
  ~KeyIndexResource() override { dlrm_index_delete(index); }

  std::string DebugString() const override {
    return absl::StrCat("key index of the buckets ", buckets.first_bucket, " to ", buckets.last_bucket - 1);
  }

  void* const index;
  const DlrmIndexBuckets buckets;
  std::shared_mutex mutex;  // finds share it
};

// The attributes that an index is made with.
inline Status read_rules(OpKernelConstruction* context, DlrmIndexBuckets* buckets, DlrmIndexRules* rules) {
  std::vector<int64_t> numbers, probability;
  int64_t seed;
  bool log_erased;
  TF_RETURN_IF_ERROR(context->GetAttr("buckets", &numbers));
  TF_RETURN_IF_ERROR(context->GetAttr("score", &rules->score));
  TF_RETURN_IF_ERROR(context->GetAttr("admit_after", &rules->admit_after));
  TF_RETURN_IF_ERROR(context->GetAttr("admit_probability", &probability));
  TF_RETURN_IF_ERROR(context->GetAttr("counter", &rules->counter));
  TF_RETURN_IF_ERROR(context->GetAttr("counter_size", &rules->counter_size));
  TF_RETURN_IF_ERROR(context->GetAttr("seed", &seed));
  TF_RETURN_IF_ERROR(context->GetAttr("log_erased", &log_erased));
  if (numbers.size() != 4 || probability.size() != 1) {
    return InvalidArgument("key index: expected four numbers in buckets and one in admit_probability.");
  }
  *buckets = {numbers[0], numbers[1], numbers[2], numbers[3]};
  memcpy(&rules->admit_probability, probability.data(), sizeof(double));
  rules->seed = static_cast<uint64_t>(seed);
  rules->log_erased = log_erased;
  return Status();
}

// An input of int64 [n] or, where `scalar_too`, a scalar.
inline Status read_numbers(OpKernelContext* context, const char* name, const Tensor** tensor, bool scalar_too = false) {
  TF_RETURN_IF_ERROR(context->input(name, tensor));
  if ((*tensor)->dims() == 1 || (scalar_too && (*tensor)->dims() == 0)) return Status();
  return InvalidArgument(name, ": the shape is ", (*tensor)->shape().DebugString(), ", expected [n].");
}

// An input [n] with one number for each key.
inline Status read_for_keys(OpKernelContext* context, const char* name, const Tensor& keys, const Tensor** tensor) {
  TF_RETURN_IF_ERROR(read_numbers(context, name, tensor));
  if ((*tensor)->NumElements() == keys.NumElements()) return Status();
  return InvalidArgument(name, ": found ", (*tensor)->NumElements(), " numbers for ", keys.NumElements(),
                         " keys, expected one each.");
}

inline Status read_number(OpKernelContext* context, const char* name, int64_t* number) {
  const Tensor* tensor;
  TF_RETURN_IF_ERROR(context->input(name, &tensor));
  if (tensor->NumElements() != 1) {
    return InvalidArgument(name, ": the shape is ", tensor->shape().DebugString(), ", expected a scalar.");
  }
  *number = tensor->flat<int64_t>()(0);
  return Status();
}

inline const int64_t* numbers_of(const Tensor& tensor) { return tensor.flat<int64_t>().data(); }

inline Status make_numbers(OpKernelContext* context, int output, int64_t count, int64_t** numbers) {
  Tensor* tensor = nullptr;
  TF_RETURN_IF_ERROR(context->allocate_output(output, TensorShape({count}), &tensor));
  *numbers = tensor->flat<int64_t>().data();
  return Status();
}

// The result of a call in words.
inline Status result_of(int code, const KeyIndexResource& resource, int64_t bad_key) {
  if (code == DLRM_OK) return Status();
  if (code == DLRM_BAD_ID) {
    return InvalidArgument("keys: ", bad_key, " is not a key of the buckets ", resource.buckets.first_bucket, " to ",
                           resource.buckets.last_bucket - 1, " of ", resource.buckets.num_buckets,
                           ", which this index has; keys must be sent to the index of their bucket.");
  }
  if (code == DLRM_BAD_ARGUMENT) {
    return InvalidArgument("key index: an argument is out of range; steps must be from 0 to 4294967295.");
  }
  return tensorflow::errors::ResourceExhausted("key index: ", dlrm_error_text(code));
}

inline Status find_resource(OpKernelContext* context, RefCountPtr<KeyIndexResource>* resource) {
  return LookupResource(context, context->input(0).scalar<tensorflow::ResourceHandle>()(), resource);
}

// An op that needs the index alone.
class KeyIndexOp : public OpKernel {
 public:
  explicit KeyIndexOp(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    RefCountPtr<KeyIndexResource> resource;
    OP_REQUIRES_OK(context, find_resource(context, &resource));
    std::lock_guard<std::shared_mutex> lock(resource->mutex);
    OP_REQUIRES_OK(context, run(context, *resource));
  }

 private:
  virtual Status run(OpKernelContext* context, const KeyIndexResource& resource) = 0;
};

// Shapes: output 0 as input 1, the others [?].
inline Status rows_for_keys(InferenceContext* c) {
  for (int i = 0; i < c->num_outputs(); ++i) {
    c->set_output(i, i == 0 ? c->input(1) : c->Vector(InferenceContext::kUnknownDim));
  }
  return Status();
}

inline Status lists(InferenceContext* c) {
  for (int i = 0; i < c->num_outputs(); ++i) c->set_output(i, c->Vector(InferenceContext::kUnknownDim));
  return Status();
}

}  // namespace dlrm
