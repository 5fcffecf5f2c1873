// TensorFlow's ops around a key index in a GPU's memory: making one, finding keys, storing keys.
//
// They queue kernels on TensorFlow's stream. A find waits for nothing: where a key is not of this index, a later call of the
// index says so. Storing keys waits once, because only the GPU knows how many it stored.
#include "key_index_gpu_call.h"

namespace dlrm {
namespace {

class MakeKeyIndexOnGpu : public OpKernel {
 public:
  explicit MakeKeyIndexOnGpu(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, read_rules(context, &index_.buckets, &index_.rules));
  }

  void Compute(OpKernelContext* context) override {
    DlrmCudaIndex index = index_;
    int64_t bytes = 0;
    OP_REQUIRES_OK(context, index_status(dlrm_index_cuda_bytes(&index, &bytes)));
    Tensor memory, *output = nullptr;
    OP_REQUIRES_OK(context, allocate_bytes(context, bytes, false, &memory, &index.memory));
    OP_REQUIRES_OK(context, index_status(dlrm_index_make_cuda(&index, stream_of(context))));
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({}), &output));
    output->scalar<tensorflow::ResourceHandle>()() = tensorflow::ResourceHandle::MakeRefCountingHandle(
        new GpuIndexResource(index, std::move(memory)), context->device()->name());
  }

 private:
  DlrmCudaIndex index_ = {};
};
REGISTER_KERNEL_BUILDER(DLRM_ON_GPU("DlrmKeyIndex").HostMemory("index"), MakeKeyIndexOnGpu);

class FindOnGpu : public GpuIndexOp {
 public:
  using GpuIndexOp::GpuIndexOp;

 private:
  Status run(OpKernelContext* context, GpuIndexResource* resource, GpuCall* call) override {
    const Tensor* keys;
    TF_RETURN_IF_ERROR(read_numbers(context, "keys", &keys));
    int64_t* rows;
    TF_RETURN_IF_ERROR(make_numbers(context, 0, keys->NumElements(), &rows));
    TF_RETURN_IF_ERROR(call->begin(keys->NumElements()));
    TF_RETURN_IF_ERROR(index_status(
        dlrm_index_find_cuda(call->index(), numbers_of(*keys), keys->NumElements(), rows, call->arguments())));
    return resource->bad_keys.watch(context, call->arguments()->outcome);
  }
};
REGISTER_KERNEL_BUILDER(DLRM_ON_GPU("DlrmKeyIndexFind").HostMemory("index"), FindOnGpu);

class FindOrInsertOnGpu : public GpuIndexOp {
 public:
  using GpuIndexOp::GpuIndexOp;

 private:
  Status run(OpKernelContext* context, GpuIndexResource* resource, GpuCall* call) override {
    const Tensor *keys, *scores;
    int64_t step, *rows, *fresh[2], *evicted[4];
    TF_RETURN_IF_ERROR(read_numbers(context, "keys", &keys));
    TF_RETURN_IF_ERROR(read_number(context, "step", &step));
    TF_RETURN_IF_ERROR(read_numbers(context, "scores", &scores, true));
    if (scores->dims() == 1) TF_RETURN_IF_ERROR(read_for_keys(context, "scores", *keys, &scores));
    if (step < 0 || step > UINT32_MAX) return InvalidArgument("key index: steps must be from 0 to 4294967295.");
    const int64_t* const key = numbers_of(*keys);
    const int64_t count = keys->NumElements();
    TF_RETURN_IF_ERROR(make_numbers(context, 0, count, &rows));
    TF_RETURN_IF_ERROR(call->begin(count));
    TF_RETURN_IF_ERROR(index_status(dlrm_index_find_or_insert_cuda(
        call->index(), key, count, step, {numbers_of(*scores), scores->dims()}, rows, call->arguments())));
    resource->step = std::max(resource->step, step);
    DlrmIndexOutcome outcome;
    TF_RETURN_IF_ERROR(call->wait(&outcome));
    const DlrmIndexChanges& changes = outcome.changes;
    for (int i = 0; i < 2; ++i) TF_RETURN_IF_ERROR(make_numbers(context, 1 + i, changes.fresh, &fresh[i]));
    for (int i = 0; i < 3; ++i) TF_RETURN_IF_ERROR(make_numbers(context, 3 + i, changes.evicted, &evicted[i]));
    evicted[3] = nullptr;
    TF_RETURN_IF_ERROR(index_status(
        dlrm_index_fresh_cuda(call->index(), key, count, fresh[0], fresh[1], call->arguments())));
    TF_RETURN_IF_ERROR(index_status(dlrm_index_evicted_cuda(call->index(), count, evicted, call->arguments())));
    return call->note_erased(evicted[0], changes.evicted);
  }
};
REGISTER_KERNEL_BUILDER(DLRM_ON_GPU("DlrmKeyIndexFindOrInsert").HostMemory("index").HostMemory("step"), FindOrInsertOnGpu);

class BucketOfOnGpu : public OpKernel {
 public:
  explicit BucketOfOnGpu(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("num_buckets", &num_buckets_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& keys = context->input(0);
    Tensor* output = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, keys.shape(), &output));
    OP_REQUIRES_OK(context, index_status(dlrm_bucket_of_cuda(numbers_of(keys), keys.NumElements(), num_buckets_,
                                                             output->flat<int32_t>().data(), stream_of(context))));
  }

 private:
  int64_t num_buckets_ = 1;
};
REGISTER_KERNEL_BUILDER(DLRM_ON_GPU("DlrmBucketOf"), BucketOfOnGpu);

}  // namespace
}  // namespace dlrm
