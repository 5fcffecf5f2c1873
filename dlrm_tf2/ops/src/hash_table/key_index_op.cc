// TensorFlow's ops around a key index: making one, finding keys, storing keys. No arithmetic in here.
#include <atomic>

#include "key_hash.h"
#include "key_index_call.h"

namespace dlrm {
namespace {

REGISTER_OP("DlrmKeyIndex")
    .Output("index: resource")
    .Attr("buckets: list(int)")  // the fields of DlrmIndexBuckets
    .Attr("score: int")
    .Attr("admit_after: int")
    .Attr("admit_probability: list(int)")  // the bits of a double: an attribute of type float has 32 bits
    .Attr("counter: int")
    .Attr("counter_size: int")
    .Attr("seed: int")
    .Attr("log_erased: bool")
    .SetIsStateful()
    .SetShapeFn(tensorflow::shape_inference::ScalarShape);

// Makes an index, which lives as long as somebody holds the output.
class MakeKeyIndex : public OpKernel {
 public:
  explicit MakeKeyIndex(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, read_rules(context, &buckets_, &rules_));
  }

  void Compute(OpKernelContext* context) override {
    void* const index = dlrm_index_new(&buckets_, &rules_);
    OP_REQUIRES(context, index != nullptr,
                tensorflow::errors::ResourceExhausted("key index: there is no memory for ",
                                                      (buckets_.last_bucket - buckets_.first_bucket) *
                                                          buckets_.rows_per_bucket,
                                                      " rows, or its rules are out of range."));
    Tensor* output = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({}), &output));
    output->scalar<tensorflow::ResourceHandle>()() = tensorflow::ResourceHandle::MakeRefCountingHandle(
        new KeyIndexResource(index, buckets_), context->device()->name());
  }

 private:
  DlrmIndexBuckets buckets_ = {};
  DlrmIndexRules rules_ = {};
};
REGISTER_KERNEL_BUILDER(Name("DlrmKeyIndex").Device(DEVICE_CPU), MakeKeyIndex);

REGISTER_OP("DlrmKeyIndexFind")
    .Input("index: resource")
    .Input("keys: int64")
    .Output("rows: int64")
    .SetIsStateful()
    .SetShapeFn(rows_for_keys);

class Find : public OpKernel {
 public:
  explicit Find(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    RefCountPtr<KeyIndexResource> resource;
    OP_REQUIRES_OK(context, find_resource(context, &resource));
    const Tensor* keys;
    OP_REQUIRES_OK(context, read_numbers(context, "keys", &keys));
    Tensor* output = nullptr;
    OP_REQUIRES_OK(context, make_host_output<int64_t>(context, keys->shape(), &output));
    const int64_t* const from = numbers_of(*keys);
    int64_t* const to = output->flat<int64_t>().data();
    std::shared_lock<std::shared_mutex> lock(resource->mutex);
    std::atomic<int> status{DLRM_OK};
    std::atomic<int64_t> bad_key{0};
    constexpr int64_t kCycles = 60;  // for a key
    context->device()->tensorflow_cpu_worker_threads()->workers->ParallelFor(
        keys->NumElements(), kCycles, [&](int64_t first, int64_t last) {
          int64_t bad = 0;
          const int code = dlrm_index_find(resource->index, from + first, last - first, to + first, &bad);
          if (code == DLRM_OK) return;
          bad_key = bad;
          status = code;
        });
    OP_REQUIRES_OK(context, result_of(status, *resource, bad_key));
  }
};
REGISTER_KERNEL_BUILDER(Name("DlrmKeyIndexFind").Device(DEVICE_CPU), Find);

REGISTER_OP("DlrmKeyIndexFindOrInsert")
    .Input("index: resource")
    .Input("keys: int64")
    .Input("step: int64")
    .Input("scores: int64")
    .Output("rows: int64")
    .Output("fresh_rows: int64")
    .Output("fresh_keys: int64")
    .Output("evicted_keys: int64")
    .Output("evicted_rows: int64")
    .Output("evicted_scores: int64")
    .SetIsStateful()
    .SetShapeFn(rows_for_keys);

class FindOrInsert : public KeyIndexOp {
 public:
  using KeyIndexOp::KeyIndexOp;

 private:
  Status run(OpKernelContext* context, const KeyIndexResource& resource) override {
    const Tensor *keys, *scores;
    int64_t step, bad_key = 0;
    TF_RETURN_IF_ERROR(read_numbers(context, "keys", &keys));
    TF_RETURN_IF_ERROR(read_number(context, "step", &step));
    TF_RETURN_IF_ERROR(read_numbers(context, "scores", &scores, true));
    if (scores->dims() == 1) TF_RETURN_IF_ERROR(read_for_keys(context, "scores", *keys, &scores));
    const auto& pool = *context->device()->tensorflow_cpu_worker_threads();
    Tensor* output = nullptr;
    TF_RETURN_IF_ERROR(make_host_output<int64_t>(context, keys->shape(), &output));
    DlrmIndexChanges changes = {};
    const int code = dlrm_index_find_or_insert(
        resource.index, numbers_of(*keys), keys->NumElements(), step, {numbers_of(*scores), scores->dims()},
        output->flat<int64_t>().data(), in_pool, pool.workers, pool.num_threads, &changes, &bad_key);
    TF_RETURN_IF_ERROR(result_of(code, resource, bad_key));
    int64_t *fresh[2], *evicted[3];
    for (int i = 0; i < 2; ++i) TF_RETURN_IF_ERROR(make_numbers(context, 1 + i, changes.fresh, &fresh[i]));
    for (int i = 0; i < 3; ++i) TF_RETURN_IF_ERROR(make_numbers(context, 3 + i, changes.evicted, &evicted[i]));
    dlrm_index_fresh(resource.index, fresh[0], fresh[1]);
    dlrm_index_listed(resource.index, evicted[0], evicted[1], evicted[2], nullptr);
    return Status();
  }
};
REGISTER_KERNEL_BUILDER(Name("DlrmKeyIndexFindOrInsert").Device(DEVICE_CPU), FindOrInsert);

REGISTER_OP("DlrmBucketOf")
    .Input("keys: int64")
    .Output("buckets: int32")
    .Attr("num_buckets: int >= 1")
    .SetShapeFn(tensorflow::shape_inference::UnchangedShape);

class BucketOf : public OpKernel {
 public:
  explicit BucketOf(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("num_buckets", &num_buckets_));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& keys = context->input(0);
    Tensor* output = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, keys.shape(), &output));
    const int64_t* const from = numbers_of(keys);
    int32_t* const to = output->flat<int32_t>().data();
    constexpr int64_t kCycles = 8;  // for a key
    context->device()->tensorflow_cpu_worker_threads()->workers->ParallelFor(
        keys.NumElements(), kCycles, [&](int64_t first, int64_t last) {
          for (int64_t i = first; i < last; ++i) to[i] = static_cast<int32_t>(bucket_of(hash_of(from[i]), num_buckets_));
        });
  }

 private:
  int64_t num_buckets_ = 1;
};
REGISTER_KERNEL_BUILDER(Name("DlrmBucketOf").Device(DEVICE_CPU), BucketOf);

}  // namespace
}  // namespace dlrm
