// TensorFlow's op that writes the first values of rows of a slab on a GPU. It waits for nothing: a row that is not of the slab
// is left out, and a later call says so.
#include "initial_rows_call.h"
#include "key_index_gpu_call.h"

namespace {

class InitializeRowsOnGpu : public OpKernel {
 public:
  explicit InitializeRowsOnGpu(OpKernelConstruction* context) : OpKernel(context), settings_(context) {}

  void Compute(OpKernelContext* context) override { OP_REQUIRES_OK(context, write(context)); }

 private:
  Status write(OpKernelContext* context) {
    const Tensor *rows, *keys;
    TF_RETURN_IF_ERROR(read_rows_and_keys(context, &rows, &keys));
    LockedVariables variables;
    TF_RETURN_IF_ERROR(variables.lock(context));
    std::vector<Tensor> tensors;
    const auto copy = [=](void* to, const void* from, size_t bytes) {
      return dlrm::status_of(dlrm_cuda_copy(to, from, static_cast<int64_t>(bytes), dlrm::stream_of(context)),
                             "initial rows");
    };
    TF_RETURN_IF_ERROR(variables.tensors(context, copy, &tensors));
    std::vector<float*> slots;
    std::vector<int64_t> widths;
    DlrmInitialRows to = {};
    TF_RETURN_IF_ERROR(settings_.describe(tensors, &slots, &widths, &to));
    const int64_t num_rows = tensors[0].dim_size(0);
    int64_t bad_row;
    if (bad_rows_.take(&bad_row)) {
      return InvalidArgument("rows: found ", bad_row, " in an earlier call, expected rows from 0 to ", num_rows - 1, ".");
    }
    Tensor memory;
    void* start;
    TF_RETURN_IF_ERROR(dlrm::allocate_bytes(context, sizeof(DlrmIndexOutcome), false, &memory, &start));
    auto* const outcome = static_cast<DlrmIndexOutcome*>(start);
    TF_RETURN_IF_ERROR(dlrm::status_of(
        dlrm_initialize_rows_cuda(&to, &settings_.initializer, rows->flat<int64_t>().data(), keys->flat<int64_t>().data(),
                                  keys->NumElements(), num_rows, outcome, dlrm::stream_of(context)),
        "initial rows"));
    return bad_rows_.watch(context, outcome);
  }

  const InitialRowsSettings settings_;
  dlrm::BadKeys bad_rows_;
};
REGISTER_KERNEL_BUILDER(DLRM_ON_GPU("DlrmInitializeRows").HostMemory("slabs").HostMemory("slots"), InitializeRowsOnGpu);

}  // namespace
