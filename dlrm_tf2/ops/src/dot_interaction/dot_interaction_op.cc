// TensorFlow's ops around the kernels: names, shapes, checks, threads and streams. No arithmetic in here.
#include <atomic>

#include "dot_interaction.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensors.h"
#ifdef DLRM_CUDA
#include "xla/stream_executor/stream.h"
#endif

namespace {

using dlrm::element_type_of;
using tensorflow::DEVICE_CPU;
using tensorflow::DEVICE_GPU;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using absl::Status;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::errors::InvalidArgument;
using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

Status features_shape(InferenceContext* c, ShapeHandle* features, DimensionHandle* output_width) {
  if (!c->WithRank(c->input(0), 3, features).ok()) {
    return InvalidArgument("features: its shape is ", c->DebugString(c->input(0)),
                           ", expected rank 3: [batch, vectors, width].");
  }
  const DimensionHandle vectors = c->Dim(*features, 1), width = c->Dim(*features, 2);
  *output_width = c->UnknownDim();
  if (!c->ValueKnown(vectors) || !c->ValueKnown(width)) return Status();
  if (c->Value(vectors) < 1 || c->Value(width) < 1) {
    return InvalidArgument("features: its shape is ", c->DebugString(*features),
                           ", expected at least one vector of at least one value.");
  }
  *output_width = c->MakeDim(dlrm_dot_interaction_output_width(c->Value(vectors), c->Value(width)));
  return Status();
}

REGISTER_OP("DlrmDotInteraction")
    .Input("features: T")
    .Output("output: T")
    .Attr("T: {float, half, bfloat16}")
    .SetShapeFn([](InferenceContext* c) -> Status {
      ShapeHandle features;
      DimensionHandle output_width;
      TF_RETURN_IF_ERROR(features_shape(c, &features, &output_width));
      c->set_output(0, c->Matrix(c->Dim(features, 0), output_width));
      return Status();
    });

REGISTER_OP("DlrmDotInteractionGradient")
    .Input("features: T")
    .Input("upstream: T")
    .Output("gradient: T")
    .Attr("T: {float, half, bfloat16}")
    .SetShapeFn([](InferenceContext* c) -> Status {
      ShapeHandle features, upstream;
      DimensionHandle output_width;
      TF_RETURN_IF_ERROR(features_shape(c, &features, &output_width));
      const ShapeHandle expected = c->Matrix(c->Dim(features, 0), output_width);
      if (!c->Merge(c->input(1), expected, &upstream).ok()) {
        return InvalidArgument("upstream: its shape is ", c->DebugString(c->input(1)), ", expected ",
                               c->DebugString(expected), " for features ", c->DebugString(features), ".");
      }
      c->set_output(0, features);
      return Status();
    });

// What both ops check when they run, because a graph may have been built without shapes.
bool check_features(OpKernelContext* context, const Tensor& features) {
  const TensorShape& shape = features.shape();
  if (shape.dims() == 3 && shape.dim_size(1) >= 1 && shape.dim_size(2) >= 1) return true;
  context->CtxFailure(InvalidArgument("features: its shape is ", shape.DebugString(),
                                      ", expected [batch, vectors, width] with at least one vector and one value."));
  return false;
}

// The op's only output; nullptr when the context has the error.
template <typename T, bool kCuda>
Tensor* make_output(OpKernelContext* context, const TensorShape& shape) {
  Tensor* output = nullptr;
  const Status status = kCuda ? context->allocate_output(0, shape, &output)
                              : dlrm::make_host_output<T>(context, shape, &output);
  if (!status.ok()) context->CtxFailure(status);
  return output;
}

void check_code(OpKernelContext* context, int code) {
  OP_REQUIRES(context, code == DLRM_OK, tensorflow::errors::Internal("dot interaction: ", dlrm_error_text(code)));
}

// Runs `samples(first, last)` over disjoint ranges in TensorFlow's own threads; each sample's bits are the same however
// the batch is cut.
template <typename Function>
void run_in_threads(OpKernelContext* context, int64_t batch, int64_t num_vectors, int64_t width,
                    const Function& samples) {
  std::atomic<int> status{DLRM_OK};
  const int64_t cost = 100 + num_vectors * num_vectors * width / 8;  // cycles a sample
  context->device()->tensorflow_cpu_worker_threads()->workers->ParallelFor(
      batch, cost, [&](int64_t first, int64_t last) {
        const int code = samples(first, last);
        if (code != DLRM_OK) status = code;
      });
  check_code(context, status);
}

#ifdef DLRM_CUDA
void* stream_of(OpKernelContext* context) {
  return context->op_device_context()->stream()->platform_specific_handle().stream;
}
#endif

template <typename T, bool kCuda>
class DotInteraction : public OpKernel {
 public:
  explicit DotInteraction(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    const Tensor& features = context->input(0);
    if (!check_features(context, features)) return;
    const int64_t batch = features.dim_size(0), vectors = features.dim_size(1), width = features.dim_size(2);
    const TensorShape shape({batch, dlrm_dot_interaction_output_width(vectors, width)});
    Tensor* const output = make_output<T, kCuda>(context, shape);
    if (output == nullptr || output->NumElements() == 0) return;
#ifdef DLRM_CUDA
    if (kCuda) {
      check_code(context, dlrm_dot_interaction_cuda(features.data(), output->data(), batch, vectors, width,
                                                    element_type_of<T>(), -1, stream_of(context)));
      return;
    }
#endif
    run_in_threads(context, batch, vectors, width, [&](int64_t first, int64_t last) {
      return dlrm_dot_interaction_cpu(features.data(), output->data(), first, last, vectors, width,
                                      element_type_of<T>(), -1);
    });
  }
};

template <typename T, bool kCuda>
class DotInteractionGradient : public OpKernel {
 public:
  explicit DotInteractionGradient(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    const Tensor& features = context->input(0);
    const Tensor& upstream = context->input(1);
    if (!check_features(context, features)) return;
    const int64_t batch = features.dim_size(0), vectors = features.dim_size(1), width = features.dim_size(2);
    const TensorShape expected({batch, dlrm_dot_interaction_output_width(vectors, width)});
    OP_REQUIRES(context, upstream.shape() == expected,
                InvalidArgument("upstream: its shape is ", upstream.shape().DebugString(), ", expected ",
                                expected.DebugString(), " for features ", features.shape().DebugString(), "."));
    Tensor* const gradient = make_output<T, kCuda>(context, features.shape());
    if (gradient == nullptr || gradient->NumElements() == 0) return;
#ifdef DLRM_CUDA
    if (kCuda) {
      check_code(context,
                 dlrm_dot_interaction_gradient_cuda(features.data(), upstream.data(), gradient->data(), batch, vectors,
                                                    width, element_type_of<T>(), -1, stream_of(context)));
      return;
    }
#endif
    run_in_threads(context, batch, vectors, 2 * width, [&](int64_t first, int64_t last) {
      return dlrm_dot_interaction_gradient_cpu(features.data(), upstream.data(), gradient->data(), first, last,
                                               vectors, width, element_type_of<T>(), -1);
    });
  }
};

#define DLRM_REGISTER(T, DEVICE, kCuda)                                                                             \
  REGISTER_KERNEL_BUILDER(Name("DlrmDotInteraction").Device(DEVICE).TypeConstraint<T>("T"), DotInteraction<T, kCuda>); \
  REGISTER_KERNEL_BUILDER(Name("DlrmDotInteractionGradient").Device(DEVICE).TypeConstraint<T>("T"),                  \
                          DotInteractionGradient<T, kCuda>)
#define DLRM_REGISTER_TYPES(DEVICE, kCuda)     \
  DLRM_REGISTER(float, DEVICE, kCuda);         \
  DLRM_REGISTER(Eigen::half, DEVICE, kCuda);   \
  DLRM_REGISTER(Eigen::bfloat16, DEVICE, kCuda)

DLRM_REGISTER_TYPES(DEVICE_CPU, false);
#ifdef DLRM_CUDA
DLRM_REGISTER_TYPES(DEVICE_GPU, true);
#endif

}  // namespace
