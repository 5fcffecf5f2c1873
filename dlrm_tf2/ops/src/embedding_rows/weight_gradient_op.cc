// TensorFlow's op around the gradients of the ids' weights: the backward pass of DlrmEmbeddingLookup to its `weights`.
#include "embedding_rows_call.h"

namespace {

REGISTER_OP("DlrmEmbeddingWeightGradient")
    .Input("slabs: num_slabs * resource")
    .Input("ids: id_types")
    .Input("row_lengths: num_ragged * int32")
    .Input("weights: num_weights * float")
    .Input("gradient: T")  // of the vectors
    .Output("weight_gradients: num_weights * float")
    .Attr("num_slabs: int >= 1")
    .Attr("id_types: list({int32, int64}) >= 1")
    .Attr("num_ragged: int >= 0")
    .Attr("num_weights: int >= 1")
    .Attr("bags: list(int)")
    .Attr("features: list(string)")
    .Attr("W: {float, bfloat16}")
    .Attr("T: {float, half, bfloat16}")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) -> Status {
      std::vector<tensorflow::shape_inference::ShapeHandle> weights;
      TF_RETURN_IF_ERROR(c->input("weights", &weights));
      return c->set_output("weight_gradients", weights);
    });

template <typename T>
class EmbeddingWeightGradient : public OpKernel {
 public:
  explicit EmbeddingWeightGradient(OpKernelConstruction* context) : OpKernel(context), layout_(context, true) {}

  void Compute(OpKernelContext* context) override {
    const Tensor* gradient;
    OP_REQUIRES_OK(context, context->input("gradient", &gradient));
    OP_REQUIRES(context, gradient->dims() == 2,
                InvalidArgument("gradient: its shape is ", gradient->shape().DebugString(), ", expected rank 2."));
    const std::vector<std::pair<char*, TensorShape>> vectors = {
        {static_cast<char*>(gradient->data()), gradient->shape()}};
    std::vector<float*> to;
    OP_REQUIRES_OK(context, make_outputs(context, &to));
    Call call(layout_, sizeof(T));
    SlabsToRead slabs;
    OP_REQUIRES_OK(context, slabs.lock(context, &call));
    OP_REQUIRES_OK(context, call.check_vectors(vectors));
    OP_REQUIRES_OK(context, call.read(context, vectors));
    const auto kernel = [&](int64_t first, int64_t last, DlrmBadId* bad) {
      return dlrm_embedding_weight_gradient_cpu(
          call.slabs().data(), static_cast<int64_t>(call.slabs().size()), call.bags().data(),
          static_cast<int64_t>(call.bags().size()), first, last, element_type_of<T>(), -1, to.data(), bad);
    };
    OP_REQUIRES_OK(context, on_samples(context, call, gradient->dim_size(0), 80, kernel));
  }

 private:
  // Zeros of the shapes of the weights; `to`: for each piece, the gradients of its weights.
  Status make_outputs(OpKernelContext* context, std::vector<float*>* to) const {
    OpInputList weights;
    TF_RETURN_IF_ERROR(context->input_list("weights", &weights));
    std::vector<float*> outputs;
    for (int i = 0; i < weights.size(); ++i) {
      Tensor* output = nullptr;
      TF_RETURN_IF_ERROR(context->allocate_output(i, weights[i].shape(), &output));
      output->flat<float>().setZero();
      outputs.push_back(output->flat<float>().data());
    }
    for (const Piece& piece : layout_.pieces) {
      to->push_back(piece.weights < 0 ? nullptr : outputs[static_cast<size_t>(piece.weights)]);
    }
    return Status();
  }

  const Layout layout_;
};

#define DLRM_REGISTER(T)                                                                              \
  REGISTER_KERNEL_BUILDER(Name("DlrmEmbeddingWeightGradient").Device(DEVICE_CPU).TypeConstraint<T>("T"), \
                          EmbeddingWeightGradient<T>)
DLRM_REGISTER(float);
DLRM_REGISTER(Eigen::half);
DLRM_REGISTER(Eigen::bfloat16);

}  // namespace
