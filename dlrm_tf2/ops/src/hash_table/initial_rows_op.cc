// TensorFlow's op that writes the first values of rows of a slab. No arithmetic in here.
#include "initial_rows_call.h"

namespace {

REGISTER_OP("DlrmInitializeRows")
    .Input("slabs: num_slabs * resource")  // one
    .Input("slots: num_slots * resource")
    .Input("rows: int64")
    .Input("keys: int64")
    .Attr("num_slabs: int = 1")
    .Attr("num_slots: int >= 0")
    .Attr("kind: int")
    .Attr("low_or_mean: float")
    .Attr("high_or_std: float")
    .Attr("seed: int")
    .Attr("initial_state: list(float)")
    .SetIsStateful()
    .SetShapeFn(tensorflow::shape_inference::NoOutputs);

class InitializeRows : public OpKernel {
 public:
  explicit InitializeRows(OpKernelConstruction* context) : OpKernel(context), settings_(context) {}

  void Compute(OpKernelContext* context) override {
    const Tensor *rows, *keys;
    OP_REQUIRES_OK(context, read_rows_and_keys(context, &rows, &keys));
    LockedVariables variables;
    OP_REQUIRES_OK(context, variables.lock(context));
    std::vector<Tensor> tensors;
    const auto copy = [](void* to, const void* from, size_t bytes) {
      memcpy(to, from, bytes);
      return Status();
    };
    OP_REQUIRES_OK(context, variables.tensors(context, copy, &tensors));
    std::vector<float*> slots;
    std::vector<int64_t> widths;
    DlrmInitialRows to = {};
    OP_REQUIRES_OK(context, settings_.describe(tensors, &slots, &widths, &to));
    const int64_t count = keys->NumElements(), num_rows = tensors[0].dim_size(0);
    const int64_t *const row = rows->flat<int64_t>().data(), *const key = keys->flat<int64_t>().data();
    for (int64_t i = 0; i < count; ++i) {
      OP_REQUIRES(context, row[i] >= 0 && row[i] < num_rows,
                  InvalidArgument("rows: found ", row[i], ", expected rows from 0 to ", num_rows - 1, "."));
    }
    const int64_t cost = 20 + to.width * (settings_.initializer.kind < DLRM_NORMAL ? 8 : 120);  // cycles a row
    std::atomic<int> status{DLRM_OK};
    context->device()->tensorflow_cpu_worker_threads()->workers->ParallelFor(
        count, cost, [&](int64_t first, int64_t last) {
          const int code = dlrm_initialize_rows(&to, &settings_.initializer, row + first, key + first, last - first);
          if (code != DLRM_OK) status = code;
        });
    OP_REQUIRES(context, status == DLRM_OK, tensorflow::errors::Internal("initial rows: ", dlrm_error_text(status)));
  }

 private:
  const InitialRowsSettings settings_;
};
REGISTER_KERNEL_BUILDER(Name("DlrmInitializeRows").Device(DEVICE_CPU), InitializeRows);

}  // namespace
