// What TensorFlow's ops that write the first values of rows have in common on every device.
#pragma once

#include "embedding_rows/update_call.h"
#include "key_index.h"

namespace {

// The attributes of the op.
struct InitialRowsSettings {
  DlrmInitializer initializer = {};
  std::vector<float> state;

  explicit InitialRowsSettings(OpKernelConstruction* context) {
    int64_t seed;
    OP_REQUIRES_OK(context, context->GetAttr("kind", &initializer.kind));
    OP_REQUIRES_OK(context, context->GetAttr("low_or_mean", &initializer.low_or_mean));
    OP_REQUIRES_OK(context, context->GetAttr("high_or_std", &initializer.high_or_std));
    OP_REQUIRES_OK(context, context->GetAttr("seed", &seed));
    OP_REQUIRES_OK(context, context->GetAttr("initial_state", &state));
    initializer.seed = static_cast<uint64_t>(seed);
  }

  Status describe(std::vector<Tensor>& tensors, std::vector<float*>* slots, std::vector<int64_t>* widths,
                  DlrmInitialRows* to) const {
    const Tensor& weights = tensors[0];
    if (weights.dims() != 2 || (weights.dtype() != DT_FLOAT && weights.dtype() != DT_BFLOAT16)) {
      return InvalidArgument("slab: it is ", weights.DeviceSafeDebugString(), ", expected a matrix of float or bfloat16.");
    }
    if (state.size() + 1 != tensors.size()) {
      return InvalidArgument("initial_state: found ", state.size(), " numbers for ", tensors.size() - 1, " slots.");
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
           static_cast<int64_t>(slots->size()), slots->data(), widths->data(), state.data()};
    return Status();
  }
};

// The inputs `rows` and `keys`, of the same length.
Status read_rows_and_keys(OpKernelContext* context, const Tensor** rows, const Tensor** keys) {
  TF_RETURN_IF_ERROR(context->input("rows", rows));
  TF_RETURN_IF_ERROR(context->input("keys", keys));
  if ((*rows)->NumElements() == (*keys)->NumElements()) return Status();
  return InvalidArgument("rows: found ", (*rows)->NumElements(), " for ", (*keys)->NumElements(),
                         " keys, expected one each.");
}

}  // namespace
