// What TensorFlow's ops of a key index on a GPU have in common: the index in the GPU's memory, its lock, and its calls.
#pragma once

#include <string.h>

#include <memory>
#include <utility>
#include <vector>

#include "embedding_rows/embedding_rows.h"
#include "gpu_op.h"
#include "key_index_call.h"
#include "key_index_cuda.h"

namespace dlrm {

inline Status index_status(int code) { return status_of(code, "key index"); }

// Keys or rows that calls refused. These calls wait for nothing; a later one returns the error.
class BadKeys {
 public:
  // After a call is queued.
  Status watch(OpKernelContext* context, const DlrmIndexOutcome* outcome) {
    Tensor on_host;
    void* start;
    TF_RETURN_IF_ERROR(allocate_bytes(context, sizeof *outcome, true, &on_host, &start));
    TF_RETURN_IF_ERROR(index_status(dlrm_cuda_copy(start, outcome, sizeof *outcome, stream_of(context))));
    when_done(context, [found = found_, on_host, start] {
      const auto& outcome = *static_cast<const DlrmIndexOutcome*>(start);
      std::lock_guard<std::mutex> lock(found->mutex);
      if (outcome.num_bad > 0) found->any = true, found->key = outcome.bad_key;
    });
    return Status();
  }

  // Whether there was one since the last call, and which.
  bool take(int64_t* key) {
    std::lock_guard<std::mutex> lock(found_->mutex);
    *key = found_->key;
    return std::exchange(found_->any, false);
  }

 private:
  struct Found {
    std::mutex mutex;
    bool any = false;
    int64_t key = 0;
  };
  const std::shared_ptr<Found> found_ = std::make_shared<Found>();
};

class GpuIndexResource : public tensorflow::ResourceBase {
 public:
  GpuIndexResource(const DlrmCudaIndex& index, Tensor memory) : index(index), memory_(std::move(memory)) {}

  std::string DebugString() const override {
    return absl::StrCat("key index on a GPU of the buckets ", index.buckets.first_bucket, " to ",
                        index.buckets.last_bucket - 1);
  }

  const DlrmCudaIndex index;
  std::mutex mutex;
  int64_t step = 0;                                 // the highest one given
  std::vector<std::pair<int64_t, int64_t>> erased;  // (key, step) of the keys that left, where they are noted
  BadKeys bad_keys;

 private:
  const Tensor memory_;
};

// A call of the C interface on TensorFlow's stream, with memory and an outcome of its own.
class GpuCall {
 public:
  GpuCall(OpKernelContext* context, GpuIndexResource* resource) : context_(context), resource_(resource) {}

  Status begin(int64_t num_keys) {
    int64_t bytes = 0;
    void *memory, *outcome;
    TF_RETURN_IF_ERROR(index_status(dlrm_index_cuda_call_bytes(index(), num_keys, &bytes)));
    TF_RETURN_IF_ERROR(allocate_bytes(context_, bytes, false, new_tensor(), &memory));
    TF_RETURN_IF_ERROR(allocate_bytes(context_, sizeof(DlrmIndexOutcome), false, new_tensor(), &outcome));
    call_ = {memory, bytes, static_cast<DlrmIndexOutcome*>(outcome), stream_of(context_)};
    return Status();
  }

  const DlrmCudaIndex* index() const { return &resource_->index; }
  const DlrmCudaCall* arguments() const { return &call_; }

  // Waits for the GPU, and reads what the call found. An error where a key was not of this index.
  Status wait(DlrmIndexOutcome* outcome) {
    TF_RETURN_IF_ERROR(read(call_.outcome, sizeof *outcome, outcome));
    return outcome->num_bad == 0 ? Status() : refuse(outcome->bad_key);
  }

  // Waits for the GPU, and copies from its memory.
  Status read(const void* from, int64_t bytes, void* to) {
    Tensor on_host;
    void* start;
    TF_RETURN_IF_ERROR(allocate_bytes(context_, bytes, true, &on_host, &start));
    TF_RETURN_IF_ERROR(index_status(dlrm_cuda_copy(start, from, bytes, call_.stream)));
    TF_RETURN_IF_ERROR(index_status(dlrm_cuda_wait(call_.stream)));
    memcpy(to, start, static_cast<size_t>(bytes));
    return Status();
  }

  // Copies to the GPU's memory, and waits until it is done.
  Status write(const void* from, int64_t bytes, void* to) {
    Tensor on_host;
    void* start;
    TF_RETURN_IF_ERROR(allocate_bytes(context_, bytes, true, &on_host, &start));
    memcpy(start, from, static_cast<size_t>(bytes));
    TF_RETURN_IF_ERROR(index_status(dlrm_cuda_copy(to, start, bytes, call_.stream)));
    return index_status(dlrm_cuda_wait(call_.stream));
  }

  // Memory for `count` numbers on the GPU, while this call lives.
  Status make_list(int64_t count, int64_t** numbers) {
    void* start;
    TF_RETURN_IF_ERROR(allocate_bytes(context_, count * 8, false, new_tensor(), &start));
    *numbers = static_cast<int64_t*>(start);
    return Status();
  }

  // Notes keys that left the table in the highest step so far. keys: in the GPU's memory.
  Status note_erased(const int64_t* keys, int64_t count) {
    if (!resource_->index.rules.log_erased || count == 0) return Status();
    std::vector<int64_t> read_keys(static_cast<size_t>(count));
    TF_RETURN_IF_ERROR(read(keys, count * 8, read_keys.data()));
    for (int64_t key : read_keys) resource_->erased.push_back({key, resource_->step});
    return Status();
  }

  Status refuse(int64_t key) const {
    const DlrmIndexBuckets& buckets = resource_->index.buckets;
    return InvalidArgument("keys: ", key, " is not a key of the buckets ", buckets.first_bucket, " to ",
                           buckets.last_bucket - 1, " of ", buckets.num_buckets,
                           ", which this index has; keys must be sent to the index of their bucket.");
  }

 private:
  Tensor* new_tensor() {
    kept_.push_back(std::make_unique<Tensor>());
    return kept_.back().get();
  }

  OpKernelContext* const context_;
  GpuIndexResource* const resource_;
  DlrmCudaCall call_ = {};
  std::vector<std::unique_ptr<Tensor>> kept_;
};

// An op that calls an index on a GPU.
class GpuIndexOp : public OpKernel {
 public:
  explicit GpuIndexOp(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    RefCountPtr<GpuIndexResource> resource;
    OP_REQUIRES_OK(context, LookupResource(context, context->input(0).scalar<tensorflow::ResourceHandle>()(), &resource));
    std::lock_guard<std::mutex> lock(resource->mutex);
    GpuCall call(context, resource.get());
    int64_t bad_key;
    if (resource->bad_keys.take(&bad_key)) OP_REQUIRES_OK(context, call.refuse(bad_key));
    OP_REQUIRES_OK(context, run(context, resource.get(), &call));
  }

 private:
  virtual Status run(OpKernelContext* context, GpuIndexResource* resource, GpuCall* call) = 0;
};

}  // namespace dlrm
