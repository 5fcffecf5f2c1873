// TensorFlow's ops around an exchange of vectors: pieces that several ranks made become the columns of one matrix, and a
// gradient of this matrix goes back to the pieces. Runs of columns are copied; no indices are made.
#include <string.h>

#include <vector>

#include "tensors.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace {

using absl::Status;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::errors::InvalidArgument;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

// Some columns of one source that are next to each other in the result too.
struct Run {
  int64_t source, column, target, width;
};

// What both ops know of the columns.
struct Columns {
  std::vector<Run> runs;           // first the runs that are copied, then the runs that are added
  int64_t num_copied;              // runs that are copied
  std::vector<int64_t> of_source;  // columns of each source; the last is `own`
  int64_t width;                   // columns of the result

  Status read(OpKernelConstruction* context) {
    std::vector<int64_t> numbers;
    TF_RETURN_IF_ERROR(context->GetAttr("runs", &numbers));
    TF_RETURN_IF_ERROR(context->GetAttr("num_copied", &num_copied));
    TF_RETURN_IF_ERROR(context->GetAttr("columns", &of_source));
    TF_RETURN_IF_ERROR(context->GetAttr("width", &width));
    if (numbers.size() % 4 != 0 || of_source.empty()) return InvalidArgument("runs: four numbers each, some columns.");
    for (size_t i = 0; i < numbers.size(); i += 4) {
      const Run run{numbers[i], numbers[i + 1], numbers[i + 2], numbers[i + 3]};
      const int64_t num_sources = static_cast<int64_t>(of_source.size());
      if (run.source < 0 || run.source >= num_sources || run.column < 0 || run.target < 0 || run.width < 1 ||
          run.column + run.width > of_source[run.source] || run.target + run.width > width) {
        return InvalidArgument("runs: run ", i / 4, " is outside of its source or of the result.");
      }
      runs.push_back(run);
    }
    return absl::OkStatus();
  }

  // Columns of all ranks' pieces together.
  int64_t received() const {
    int64_t sum = 0;
    for (size_t i = 0; i + 1 < of_source.size(); ++i) sum += of_source[i];
    return sum;
  }
};

// Where the vectors of each source begin: [samples, its columns] each, the vectors of the ranks one after the other.
template <typename T>
std::vector<T*> places(T* of_ranks, T* own, const Columns& columns, int64_t samples) {
  std::vector<T*> found;
  for (size_t i = 0; i + 1 < columns.of_source.size(); ++i) {
    found.push_back(of_ranks);
    of_ranks += samples * columns.of_source[i];
  }
  found.push_back(own);
  return found;
}

template <typename Body>
void for_samples(OpKernelContext* context, const Columns& columns, int64_t samples, const Body& body) {
  const int64_t cycles = 10 * static_cast<int64_t>(columns.runs.size()) + columns.width / 2;
  context->device()->tensorflow_cpu_worker_threads()->workers->ParallelFor(
      samples, cycles, [&](int64_t start, int64_t stop) {
        for (int64_t sample = start; sample < stop; ++sample) body(sample);
      });
}

template <typename T>
class JoinColumns : public OpKernel {
 public:
  explicit JoinColumns(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, columns_.read(context));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& received = context->input(0);
    const Tensor& own = context->input(1);
    OP_REQUIRES(context, own.dims() == 2 && own.dim_size(1) == columns_.of_source.back(),
                InvalidArgument("own: its shape is ", own.shape().DebugString(), ", expected [samples, ",
                                columns_.of_source.back(), "]."));
    const int64_t samples = own.dim_size(0);
    OP_REQUIRES(context, received.NumElements() == samples * columns_.received(),
                InvalidArgument("received: its shape is ", received.shape().DebugString(), ", expected ",
                                columns_.received(), " numbers for each of ", samples, " samples."));
    Tensor* result = nullptr;
    OP_REQUIRES_OK(context,
                   dlrm::make_host_output<T>(context, TensorShape({samples, columns_.width}), &result));
    T* const to = result->flat<T>().data();
    const auto from = places<const T>(received.flat<T>().data(), own.flat<T>().data(), columns_, samples);
    for_samples(context, columns_, samples, [&](int64_t sample) {
      T* const row = to + sample * columns_.width;
      for (int64_t i = 0; i < static_cast<int64_t>(columns_.runs.size()); ++i) {
        const Run& run = columns_.runs[i];
        const T* const part = from[run.source] + sample * columns_.of_source[run.source] + run.column;
        if (i < columns_.num_copied) {
          memcpy(row + run.target, part, run.width * sizeof(T));
        } else {
          for (int64_t k = 0; k < run.width; ++k) {
            row[run.target + k] = static_cast<T>(static_cast<float>(row[run.target + k]) + static_cast<float>(part[k]));
          }
        }
      }
    });
  }

 private:
  Columns columns_;
};

template <typename T>
class SplitColumns : public OpKernel {
 public:
  explicit SplitColumns(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, columns_.read(context));
  }

  void Compute(OpKernelContext* context) override {
    const Tensor& result = context->input(0);
    OP_REQUIRES(context, result.dims() == 2 && result.dim_size(1) == columns_.width,
                InvalidArgument("result: its shape is ", result.shape().DebugString(), ", expected [samples, ",
                                columns_.width, "]."));
    const int64_t samples = result.dim_size(0);
    Tensor* received = nullptr;
    Tensor* own = nullptr;
    OP_REQUIRES_OK(context, dlrm::make_host_output<T>(context, TensorShape({samples * columns_.received()}), &received));
    OP_REQUIRES_OK(context, context->allocate_output(1, TensorShape({samples, columns_.of_source.back()}), &own));
    const T* const from = result.flat<T>().data();
    const auto to = places<T>(received->flat<T>().data(), own->flat<T>().data(), columns_, samples);
    for_samples(context, columns_, samples, [&](int64_t sample) {
      for (const Run& run : columns_.runs) {
        memcpy(to[run.source] + sample * columns_.of_source[run.source] + run.column,
               from + sample * columns_.width + run.target, run.width * sizeof(T));
      }
    });
  }

 private:
  Columns columns_;
};

REGISTER_OP("DlrmJoinColumns")
    .Input("received: T")
    .Input("own: T")
    .Output("result: T")
    .Attr("runs: list(int)")
    .Attr("num_copied: int")
    .Attr("columns: list(int)")
    .Attr("width: int")
    .Attr("T: {float, half, bfloat16}")
    .SetShapeFn([](InferenceContext* c) -> Status {
      ShapeHandle own;
      int64_t width;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(1), 2, &own));
      TF_RETURN_IF_ERROR(c->GetAttr("width", &width));
      c->set_output(0, c->Matrix(c->Dim(own, 0), width));
      return Status();
    });

REGISTER_OP("DlrmSplitColumns")
    .Input("result: T")
    .Output("received: T")
    .Output("own: T")
    .Attr("runs: list(int)")
    .Attr("num_copied: int")
    .Attr("columns: list(int)")
    .Attr("width: int")
    .Attr("T: {float, half, bfloat16}")
    .SetShapeFn([](InferenceContext* c) -> Status {
      ShapeHandle result;
      std::vector<int64_t> columns;
      TF_RETURN_IF_ERROR(c->WithRank(c->input(0), 2, &result));
      TF_RETURN_IF_ERROR(c->GetAttr("columns", &columns));
      c->set_output(0, c->Vector(c->UnknownDim()));
      c->set_output(1, c->Matrix(c->Dim(result, 0), columns.empty() ? 0 : columns.back()));
      return Status();
    });

#define REGISTER(type)                                                                                          \
  REGISTER_KERNEL_BUILDER(Name("DlrmJoinColumns").Device(tensorflow::DEVICE_CPU).TypeConstraint<type>("T"),     \
                          JoinColumns<type>);                                                                   \
  REGISTER_KERNEL_BUILDER(Name("DlrmSplitColumns").Device(tensorflow::DEVICE_CPU).TypeConstraint<type>("T"),    \
                          SplitColumns<type>)
REGISTER(float);
REGISTER(Eigen::half);
REGISTER(Eigen::bfloat16);

}  // namespace
