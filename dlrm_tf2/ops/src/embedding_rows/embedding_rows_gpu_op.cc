// TensorFlow's ops of embedding rows on a GPU: they queue the CUDA kernels on TensorFlow's stream. A lookup or an update
// waits for nothing; the sums by row wait once, because only the GPU knows how many there are.
#include "cuda_call.h"
#include "update_call.h"

namespace {

template <typename T>
class EmbeddingLookupOnGpu : public OpKernel {
 public:
  explicit EmbeddingLookupOnGpu(OpKernelConstruction* context) : OpKernel(context), layout_(context, true) {
    OP_REQUIRES_OK(context, context->GetAttr("width", &width_));
  }

  void Compute(OpKernelContext* context) override { OP_REQUIRES_OK(context, look_up_rows(context)); }

 private:
  Status look_up_rows(OpKernelContext* context) {
    OpInputList ids;
    TF_RETURN_IF_ERROR(context->input_list("ids", &ids));
    if (ids[0].dims() != 2) {
      return InvalidArgument("ids: the first has the shape ", ids[0].shape().DebugString(), ", expected rank 2.");
    }
    const TensorShape shape({ids[0].dim_size(0), width_});
    Tensor* output = nullptr;
    TF_RETURN_IF_ERROR(context->allocate_output(0, shape, &output));
    const std::vector<std::pair<char*, TensorShape>> vectors = {{static_cast<char*>(output->data()), shape}};
    CudaCall call(context, layout_, sizeof(T));
    SlabsToRead slabs;
    TF_RETURN_IF_ERROR(slabs.lock(context, &call));
    DlrmCudaStatus* status;
    TF_RETURN_IF_ERROR(watch_.begin(context, layout_, &status));
    call.set_status(status);
    TF_RETURN_IF_ERROR(call.check_vectors(vectors));
    TF_RETURN_IF_ERROR(call.read(context, vectors));
    void* memory;
    int64_t bytes;
    TF_RETURN_IF_ERROR(call.allocate(dlrm_embedding_lookup_cuda_bytes, &memory, &bytes));
    TF_RETURN_IF_ERROR(status_of(
        dlrm_embedding_lookup_cuda(call.slabs().data(), call.num_slabs(), call.bags().data(), call.num_bags(),
                                   element_type_of<T>(), memory, bytes, status, stream_of(context))));
    return watch_.end(context);
  }

  const Layout layout_;
  int64_t width_ = 0;
  Watch watch_;
};

template <typename T>
class EmbeddingUpdateOnGpu : public OpKernel {
 public:
  explicit EmbeddingUpdateOnGpu(OpKernelConstruction* context)
      : OpKernel(context), layout_(context, true), settings_(context) {}

  void Compute(OpKernelContext* context) override { OP_REQUIRES_OK(context, update(context)); }

 private:
  Status update(OpKernelContext* context) {
    OpInputList gradients;
    std::vector<std::pair<char*, TensorShape>> vectors;
    TF_RETURN_IF_ERROR(context->input_list("gradients", &gradients));
    TF_RETURN_IF_ERROR(matrices(gradients, "gradients", &vectors));
    DlrmOptimizer optimizer;
    TF_RETURN_IF_ERROR(settings_.read_step(context, &optimizer));
    LockedVariables variables;
    TF_RETURN_IF_ERROR(variables.lock(context));
    CudaCall call(context, layout_, sizeof(T));
    TF_RETURN_IF_ERROR(variables.add_to(&call, context, settings_, [=](void* to, const void* from, size_t bytes) {
      return copy_on_gpu(context, to, from, bytes);
    }));
    DlrmCudaStatus* status;
    TF_RETURN_IF_ERROR(watch_.begin(context, layout_, &status));
    call.set_status(status);
    TF_RETURN_IF_ERROR(call.check_vectors(vectors));
    TF_RETURN_IF_ERROR(call.read(context, vectors));
    void* memory;
    int64_t bytes;
    TF_RETURN_IF_ERROR(call.allocate(dlrm_embedding_update_cuda_bytes, &memory, &bytes));
    Tensor* check = nullptr;
    TF_RETURN_IF_ERROR(context->allocate_output(0, TensorShape({}), &check));
    TF_RETURN_IF_ERROR(status_of(
        dlrm_embedding_update_cuda(call.slabs().data(), call.num_slabs(), call.bags().data(), call.num_bags(),
                                   &optimizer, element_type_of<T>(), memory, bytes, status, stream_of(context))));
    TF_RETURN_IF_ERROR(
        status_of(dlrm_embedding_check_cuda(status, check->flat<float>().data(), stream_of(context))));
    return watch_.end(context);
  }

  const Layout layout_;
  const UpdateSettings settings_;
  Watch watch_;
};

template <typename T>
class EmbeddingSumOnGpu : public OpKernel {
 public:
  explicit EmbeddingSumOnGpu(OpKernelConstruction* context) : OpKernel(context), layout_(context, false) {
    OP_REQUIRES_OK(context, context->GetAttr("num_rows", &num_rows_));
    OP_REQUIRES_OK(context, context->GetAttr("width", &width_));
  }

  void Compute(OpKernelContext* context) override { OP_REQUIRES_OK(context, sum(context)); }

 private:
  // What the first call finds.
  struct Found {
    DlrmCudaStatus status;
    int64_t num_rows;
  };

  Status sum(OpKernelContext* context) {
    const Tensor* gradients;
    TF_RETURN_IF_ERROR(context->input("gradients", &gradients));
    if (gradients->dims() != 2) {
      return InvalidArgument("gradients: their shape is ", gradients->shape().DebugString(), ", expected rank 2.");
    }
    Tensor of_found;
    void *found, *memory;
    TF_RETURN_IF_ERROR(allocate_bytes(context, sizeof(Found), false, &of_found, &found));
    TF_RETURN_IF_ERROR(status_of(dlrm_cuda_zeros(found, sizeof(Found), stream_of(context))));
    Found* const on_gpu = static_cast<Found*>(found);
    CudaCall call(context, layout_, sizeof(T));
    call.set_status(&on_gpu->status);
    call.add_shape(num_rows_, width_);
    const std::vector<std::pair<char*, TensorShape>> vectors = {
        {static_cast<char*>(gradients->data()), gradients->shape()}};
    TF_RETURN_IF_ERROR(call.check_vectors(vectors));
    TF_RETURN_IF_ERROR(call.read(context, vectors));
    int64_t bytes;
    TF_RETURN_IF_ERROR(call.allocate(dlrm_embedding_update_cuda_bytes, &memory, &bytes));
    TF_RETURN_IF_ERROR(status_of(dlrm_embedding_sum_cuda(call.slabs().data(), call.bags().data(), call.num_bags(),
                                                         memory, bytes, &on_gpu->num_rows, &on_gpu->status,
                                                         stream_of(context))));
    Found read;
    TF_RETURN_IF_ERROR(wait_and_read(context, on_gpu, &read));
    TF_RETURN_IF_ERROR(complaint(layout_, read.status, ""));
    Tensor *rows = nullptr, *sums = nullptr;
    TF_RETURN_IF_ERROR(context->allocate_output(0, TensorShape({read.num_rows}), &rows));
    TF_RETURN_IF_ERROR(context->allocate_output(1, TensorShape({read.num_rows, width_}), &sums));
    return status_of(dlrm_embedding_sums_cuda(call.slabs().data(), call.bags().data(), call.num_bags(),
                                              element_type_of<T>(), memory, bytes, rows->flat<int64_t>().data(),
                                              sums->flat<float>().data(), stream_of(context)));
  }

  static Status wait_and_read(OpKernelContext* context, const Found* on_gpu, Found* read) {
    Tensor on_host;
    void* start;
    TF_RETURN_IF_ERROR(allocate_bytes(context, sizeof(Found), true, &on_host, &start));
    TF_RETURN_IF_ERROR(copy_on_gpu(context, start, on_gpu, sizeof(Found)));
    TF_RETURN_IF_ERROR(status_of(dlrm_cuda_wait(stream_of(context))));
    *read = *static_cast<const Found*>(start);
    return Status();
  }

  const Layout layout_;
  int64_t num_rows_ = 0, width_ = 0;
};

#define DLRM_KERNEL(NAME, T) DLRM_ON_GPU(NAME).TypeConstraint<T>("T")
#define DLRM_REGISTER(T)                                                                                             \
  REGISTER_KERNEL_BUILDER(DLRM_KERNEL("DlrmEmbeddingLookup", T).HostMemory("slabs"), EmbeddingLookupOnGpu<T>);         \
  REGISTER_KERNEL_BUILDER(DLRM_KERNEL("DlrmEmbeddingUpdate", T)                                                      \
                              .HostMemory("slabs")                                                                   \
                              .HostMemory("slots")                                                                   \
                              .HostMemory("learning_rate")                                                           \
                              .HostMemory("step"),                                                                   \
                          EmbeddingUpdateOnGpu<T>);                                                                   \
  REGISTER_KERNEL_BUILDER(DLRM_KERNEL("DlrmEmbeddingSum", T), EmbeddingSumOnGpu<T>)
DLRM_REGISTER(float);
DLRM_REGISTER(Eigen::half);
DLRM_REGISTER(Eigen::bfloat16);

}  // namespace
