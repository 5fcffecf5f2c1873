// TensorFlow's op that writes the first values of rows of a slab. No arithmetic in here.
#include "embedding_rows/update_call.h"
#include "key_index.h"

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
  explicit InitializeRows(OpKernelConstruction* context) : OpKernel(context) {
    int64_t seed;
    OP_REQUIRES_OK(context, context->GetAttr("kind", &initializer_.kind));
    OP_REQUIRES_OK(context, context->GetAttr("low_or_mean", &initializer_.low_or_mean));
    OP_REQUIRES_OK(context, context->GetAttr("high_or_std", &initializer_.high_or_std));
    OP_REQUIRES_OK(context, context->GetAttr("seed", &seed));
    OP_REQUIRES_OK(context, context->GetAttr("initial_state", &state_));
    initializer_.seed = static_cast<uint64_t>(seed);
  }

  void Compute(OpKernelContext* context) override {
    const Tensor *rows, *keys;
    OP_REQUIRES_OK(context, context->input("rows", &rows));
    OP_REQUIRES_OK(context, context->input("keys", &keys));
    LockedVariables variables;
    OP_REQUIRES_OK(context, variables.lock(context));
    std::vector<Tensor> tensors;
    OP_REQUIRES_OK(context, variables.tensors(context, &tensors));
    std::vector<float*> slots;
    std::vector<int64_t> widths;
    DlrmInitialRows to = {};
    OP_REQUIRES_OK(context, describe(tensors, &slots, &widths, &to));
    const int64_t count = keys->NumElements(), num_rows = tensors[0].dim_size(0);
    const int64_t *const row = rows->flat<int64_t>().data(), *const key = keys->flat<int64_t>().data();
    OP_REQUIRES(context, rows->NumElements() == count,
                InvalidArgument("rows: found ", rows->NumElements(), " for ", count, " keys, expected one each."));
    for (int64_t i = 0; i < count; ++i) {
      OP_REQUIRES(context, row[i] >= 0 && row[i] < num_rows,
                  InvalidArgument("rows: found ", row[i], ", expected rows from 0 to ", num_rows - 1, "."));
    }
    const int64_t cost = 20 + to.width * (initializer_.kind < DLRM_NORMAL ? 8 : 120);  // cycles a row
    std::atomic<int> status{DLRM_OK};
    context->device()->tensorflow_cpu_worker_threads()->workers->ParallelFor(
        count, cost, [&](int64_t first, int64_t last) {
          const int code = dlrm_initialize_rows(&to, &initializer_, row + first, key + first, last - first);
          if (code != DLRM_OK) status = code;
        });
    OP_REQUIRES(context, status == DLRM_OK, tensorflow::errors::Internal("initial rows: ", dlrm_error_text(status)));
  }

 private:
  Status describe(std::vector<Tensor>& tensors, std::vector<float*>* slots, std::vector<int64_t>* widths,
                  DlrmInitialRows* to) const {
    const Tensor& weights = tensors[0];
    if (weights.dims() != 2 || (weights.dtype() != DT_FLOAT && weights.dtype() != DT_BFLOAT16)) {
      return InvalidArgument("slab: it is ", weights.DeviceSafeDebugString(), ", expected a matrix of float or bfloat16.");
    }
    if (state_.size() + 1 != tensors.size()) {
      return InvalidArgument("initial_state: found ", state_.size(), " numbers for ", tensors.size() - 1, " slots.");
    }
    for (size_t i = 1; i < tensors.size(); ++i) {
      const Tensor& slot = tensors[i];
      if (slot.dtype() != DT_FLOAT || slot.dims() < 1 || slot.dim_size(0) != weights.dim_size(0)) {
        return InvalidArgument("slots: one is ", slot.DeviceSafeDebugString(), ", expected float with ",
                               weights.dim_size(0), " rows.");
      }
      slots->push_back(tensors[i].flat<float>().data());
      widths->push_back(slot.NumElements() / std::max<int64_t>(1, slot.dim_size(0)));
    }
    *to = {tensors[0].data(), weights.dtype() == DT_FLOAT ? DLRM_FLOAT32 : DLRM_BFLOAT16, weights.dim_size(1),
           static_cast<int64_t>(slots->size()), slots->data(), widths->data(), state_.data()};
    return Status();
  }

  DlrmInitializer initializer_ = {};
  std::vector<float> state_;
};
REGISTER_KERNEL_BUILDER(Name("DlrmInitializeRows").Device(DEVICE_CPU), InitializeRows);

}  // namespace
