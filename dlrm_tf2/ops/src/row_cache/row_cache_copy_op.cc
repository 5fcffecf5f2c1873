// TensorFlow's ops that read and write rows of a cache where they are, and its counters.
#include <string.h>

#include "row_cache_resource.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace dlrm {
namespace {

REGISTER_OP("DlrmRowCacheRead")
    .Input("cache: resource")
    .Input("variables: num_variables * resource")
    .Input("rows: int64")
    .Output("values: T")
    .Attr("num_variables: int >= 1")
    .Attr("variable: int >= 0")
    .Attr("width: int >= 1")
    .Attr("T: {float, bfloat16}")
    .SetIsStateful();

REGISTER_OP("DlrmRowCacheWrite")
    .Input("cache: resource")
    .Input("variables: num_variables * resource")
    .Input("rows: int64")
    .Input("values: T")
    .Attr("num_variables: int >= 1")
    .Attr("variable: int >= 0")
    .Attr("width: int >= 1")
    .Attr("T: {float, bfloat16}")
    .SetIsStateful()
    .SetShapeFn(tensorflow::shape_inference::NoOutputs);

// Reads or writes the rows of one variable where they are, without moving any.
class CopyRows : public OpKernel {
 public:
  explicit CopyRows(OpKernelConstruction* context) : OpKernel(context), writes_(context->num_outputs() == 0) {
    OP_REQUIRES_OK(context, context->GetAttr("variable", &variable_));
    OP_REQUIRES_OK(context, context->GetAttr("width", &width_));
  }

  void Compute(OpKernelContext* context) override {
    RefCountPtr<CacheResource> cache;
    OP_REQUIRES_OK(context, find_cache(context, &cache));
    const Tensor& rows = context->input(context->num_inputs() - (writes_ ? 2 : 1));
    OP_REQUIRES_OK(context, cache->check_rows(rows));
    std::lock_guard<std::mutex> lock(cache->mutex);
    std::vector<Array> arrays;
    OP_REQUIRES_OK(context, cache->arrays(context, &arrays));
    const Array& array = arrays[static_cast<size_t>(variable_)];
    const TensorShape shape({rows.NumElements(), width_});
    char* values = nullptr;
    if (writes_) {
      const Tensor& given = context->input(context->num_inputs() - 1);
      OP_REQUIRES(context, given.shape() == shape && given.TotalBytes() == rows.NumElements() * array.row_bytes,
                  InvalidArgument("cache of rows: values ", given.shape().DebugString(), ", expected ", shape.DebugString(), "."));
      values = static_cast<char*>(given.data());
    } else {
      Tensor* output = nullptr;
      OP_REQUIRES_OK(context, context->allocate_output(0, shape, &output));
      OP_REQUIRES(context, output->TotalBytes() == rows.NumElements() * array.row_bytes,
                  InvalidArgument("cache of rows: a row has ", array.row_bytes, " bytes, expected ", width_, " numbers."));
      values = static_cast<char*>(output->data());
    }
    for (int64_t i = 0; i < rows.NumElements(); ++i) {
      const int64_t row = rows.flat<int64_t>()(i);
      OP_REQUIRES(context, row >= 0, InvalidArgument("cache of rows: found row ", row, ", expected 0 or more."));
      const bool is_cached = cache->cache.is_cached(row);
      const int64_t slot = is_cached ? cache->cache.slot(row) : 0;
      char* const place = is_cached ? array.slots + slot * array.row_bytes : cache->record(row) + array.in_record;
      char* const value = values + i * array.row_bytes;
      memcpy(writes_ ? place : value, writes_ ? value : place, static_cast<size_t>(array.row_bytes));
      if (writes_ && is_cached) cache->cache.note_written(slot);
    }
  }

 private:
  const bool writes_;
  int64_t variable_ = 0, width_ = 0;
};
REGISTER_KERNEL_BUILDER(Name("DlrmRowCacheRead").Device(DEVICE_CPU), CopyRows);
REGISTER_KERNEL_BUILDER(Name("DlrmRowCacheWrite").Device(DEVICE_CPU), CopyRows);

REGISTER_OP("DlrmRowCacheCounters")
    .Input("cache: resource")
    .Output("counters: int64")
    .SetIsStateful()
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* c) -> Status {
      c->set_output(0, c->Vector(3));
      return Status();
    });

class CountRows : public OpKernel {
 public:
  explicit CountRows(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    RefCountPtr<CacheResource> cache;
    OP_REQUIRES_OK(context, find_cache(context, &cache));
    Tensor* output = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({3}), &output));
    std::lock_guard<std::mutex> lock(cache->mutex);
    auto counters = output->flat<int64_t>();
    counters(0) = cache->cache.hits;
    counters(1) = cache->cache.misses;
    counters(2) = cache->cache.written_back;
  }
};
REGISTER_KERNEL_BUILDER(Name("DlrmRowCacheCounters").Device(DEVICE_CPU), CountRows);

}  // namespace
}  // namespace dlrm
