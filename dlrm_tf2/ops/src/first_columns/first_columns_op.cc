// TensorFlow's op that writes the first columns of a matrix in place: no copy of the other columns.
#include <string.h>

#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace {

using absl::Status;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::errors::InvalidArgument;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

REGISTER_OP("DlrmWithFirstColumns")
    .Input("matrix: T")
    .Input("first: T")
    .Output("output: T")
    .Attr("T: {float, half, bfloat16}")
    .SetShapeFn([](InferenceContext* c) -> Status {
      ShapeHandle matrix, first;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 2, &matrix));
      TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 2, &first));
      c->set_output(0, matrix);
      return Status();
    });

// Writes into the memory of `matrix` where nobody else reads it, and else into a copy.
class WithFirstColumns : public OpKernel {
 public:
  explicit WithFirstColumns(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    const Tensor& matrix = context->input(0);
    const Tensor& first = context->input(1);
    OP_REQUIRES(context,
                matrix.dims() == 2 && first.dims() == 2 && matrix.dim_size(0) == first.dim_size(0) &&
                    first.dim_size(1) <= matrix.dim_size(1),
                InvalidArgument("first: its shape is ", first.shape().DebugString(),
                                ", expected the rows of matrix, ", matrix.shape().DebugString(),
                                ", and at most as many columns."));
    const char* const from = matrix.tensor_data().data();
    Tensor* output = nullptr;
    OP_REQUIRES_OK(context, context->forward_input_or_allocate_output({0}, 0, matrix.shape(), &output));
    char* const to = const_cast<char*>(output->tensor_data().data());
    if (to != from) memcpy(to, from, matrix.tensor_data().size());
    const int64_t element = tensorflow::DataTypeSize(matrix.dtype());
    const int64_t row = matrix.dim_size(1) * element, part = first.dim_size(1) * element;
    const char* const values = first.tensor_data().data();
    context->device()->tensorflow_cpu_worker_threads()->workers->ParallelFor(
        matrix.dim_size(0), 20 + part / 8, [&](int64_t start, int64_t stop) {
          for (int64_t i = start; i < stop; ++i) memcpy(to + i * row, values + i * part, static_cast<size_t>(part));
        });
  }
};

REGISTER_KERNEL_BUILDER(Name("DlrmWithFirstColumns").Device(tensorflow::DEVICE_CPU), WithFirstColumns);

}  // namespace
