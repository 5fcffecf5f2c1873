// TensorFlow's ops around the embedding rows' kernels: names, shapes, checks, locks and threads. No arithmetic in here.
#include "update_call.h"

namespace {

// ---- lookup ----------------------------------------------------------------------------------------------------------

REGISTER_OP("DlrmEmbeddingLookup")
    .Input("slabs: num_slabs * resource")
    .Input("ids: id_types")
    .Input("row_lengths: num_ragged * int32")
    .Input("weights: num_weights * float")
    .Output("vectors: T")
    .Attr("num_slabs: int >= 1")
    .Attr("id_types: list({int32, int64}) >= 1")
    .Attr("num_ragged: int >= 0")
    .Attr("num_weights: int >= 0")
    .Attr("bags: list(int)")
    .Attr("features: list(string)")
    .Attr("width: int >= 0")
    .Attr("W: {float, bfloat16}")
    .Attr("T: {float, half, bfloat16}")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) -> Status {
      std::vector<tensorflow::shape_inference::ShapeHandle> ids;
      TF_RETURN_IF_ERROR(c->input("ids", &ids));
      int64_t width;
      TF_RETURN_IF_ERROR(c->GetAttr("width", &width));
      TF_RETURN_IF_ERROR(c->WithRank(ids[0], 2, &ids[0]));
      c->set_output(0, c->Matrix(c->Dim(ids[0], 0), width));
      return Status();
    });

template <typename T>
class EmbeddingLookup : public OpKernel {
 public:
  explicit EmbeddingLookup(OpKernelConstruction* context) : OpKernel(context), layout_(context, true) {
    OP_REQUIRES_OK(context, context->GetAttr("width", &width_));
  }

  void Compute(OpKernelContext* context) override {
    OpInputList ids;
    OP_REQUIRES_OK(context, context->input_list("ids", &ids));
    OP_REQUIRES(context, ids[0].dims() == 2,
                InvalidArgument("ids: the first has the shape ", ids[0].shape().DebugString(), ", expected rank 2."));
    const TensorShape shape({ids[0].dim_size(0), width_});
    Tensor* output = nullptr;
    OP_REQUIRES_OK(context, dlrm::make_host_output<T>(context, shape, &output));
    const std::vector<std::pair<char*, TensorShape>> vectors = {{static_cast<char*>(output->data()), shape}};
    Call call(layout_, sizeof(T));
    SlabsToRead slabs;
    OP_REQUIRES_OK(context, slabs.lock(context, &call));
    OP_REQUIRES_OK(context, call.check_vectors(vectors));
    OP_REQUIRES_OK(context, call.read(context, vectors));
    const auto kernel = [&](int64_t first, int64_t last, DlrmBadId* bad) {
      return dlrm_embedding_lookup_cpu(call.slabs().data(), static_cast<int64_t>(call.slabs().size()),
                                       call.bags().data(), static_cast<int64_t>(call.bags().size()), first, last,
                                       element_type_of<T>(), -1, bad);
    };
    OP_REQUIRES_OK(context, on_samples(context, call, shape.dim_size(0), 40, kernel));
  }

 private:
  const Layout layout_;
  int64_t width_ = 0;
};

// ---- update ----------------------------------------------------------------------------------------------------------

REGISTER_OP("DlrmEmbeddingUpdate")
    .Input("slabs: num_slabs * resource")
    .Input("slots: num_slots * resource")  // of the first slab, then of the second, ...
    .Input("ids: id_types")
    .Input("row_lengths: num_ragged * int32")
    .Input("weights: num_weights * float")
    .Input("gradients: num_gradients * T")
    .Input("learning_rate: float")
    .Input("step: int64")
    .Output("check: float")
    .Attr("num_slabs: int >= 1")
    .Attr("num_slots: int >= 0")
    .Attr("id_types: list({int32, int64}) >= 1")
    .Attr("num_ragged: int >= 0")
    .Attr("num_weights: int >= 0")
    .Attr("num_gradients: int >= 1")
    .Attr("bags: list(int)")
    .Attr("features: list(string)")
    .Attr("shards: list(int)")  // of each shard: slab, first row, row of the table, column of the table, key
    .Attr("optimizer: {'sgd', 'adagrad', 'rowwise_adagrad', 'adam'}")
    .Attr("epsilon: float")
    .Attr("betas: list(int)")  // the bits of two doubles: an attribute of type float has 32 bits
    .Attr("W: {float, bfloat16}")
    .Attr("T: {float, half, bfloat16}")
    .SetIsStateful()
    .SetShapeFn(tensorflow::shape_inference::ScalarShape);

template <typename T>
class EmbeddingUpdate : public OpKernel {
 public:
  explicit EmbeddingUpdate(OpKernelConstruction* context)
      : OpKernel(context), layout_(context, true), settings_(context), workspace_(dlrm_embedding_workspace_new()) {}

  ~EmbeddingUpdate() override { dlrm_embedding_workspace_delete(workspace_); }

  void Compute(OpKernelContext* context) override {
    OpInputList gradients;
    std::vector<std::pair<char*, TensorShape>> vectors;
    OP_REQUIRES_OK(context, context->input_list("gradients", &gradients));
    OP_REQUIRES_OK(context, matrices(gradients, "gradients", &vectors));
    LockedVariables variables;
    OP_REQUIRES_OK(context, variables.lock(context));
    Call call(layout_, sizeof(T));
    OP_REQUIRES_OK(context, variables.add_to(&call, context, settings_, [](void* to, const void* from, size_t bytes) {
      memcpy(to, from, bytes);
      return Status();
    }));
    OP_REQUIRES_OK(context, call.check_vectors(vectors));
    OP_REQUIRES_OK(context, call.read(context, vectors));
    run(context, call);
  }

 private:
  void run(OpKernelContext* context, const Call& call) {
    const auto& pool = *context->device()->tensorflow_cpu_worker_threads();
    std::lock_guard<std::mutex> lock(mutex_);
    DlrmOptimizer optimizer;
    OP_REQUIRES_OK(context, settings_.read_step(context, &optimizer));
    int finite = 1;
    DlrmBadId bad_id = {};
    const int code = dlrm_embedding_update_cpu(
        call.slabs().data(), static_cast<int64_t>(call.slabs().size()), call.bags().data(),
        static_cast<int64_t>(call.bags().size()), &optimizer, element_type_of<T>(), -1, workspace_, dlrm::in_pool,
        pool.workers, pool.num_threads, &finite, &bad_id);
    OP_REQUIRES_OK(context, call.result(code, bad_id));
    Tensor* check = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({}), &check));
    check->scalar<float>()() = finite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  }

  const Layout layout_;
  const UpdateSettings settings_;
  std::mutex mutex_;  // of the workspace
  void* const workspace_;
};

// ---- sums ------------------------------------------------------------------------------------------------------------

REGISTER_OP("DlrmEmbeddingSum")
    .Input("ids: id_types")
    .Input("row_lengths: num_ragged * int32")
    .Input("weights: num_weights * float")
    .Input("gradients: T")
    .Output("rows: int64")
    .Output("sums: float")
    .Attr("id_types: list({int32, int64}) >= 1")
    .Attr("num_ragged: int >= 0")
    .Attr("num_weights: int >= 0")
    .Attr("bags: list(int)")
    .Attr("features: list(string)")
    .Attr("num_rows: int")
    .Attr("width: int")
    .Attr("T: {float, half, bfloat16}")
    .SetShapeFn([](InferenceContext* c) -> Status {
      int64_t width;
      TF_RETURN_IF_ERROR(c->GetAttr("width", &width));
      c->set_output(0, c->Vector(InferenceContext::kUnknownDim));
      c->set_output(1, c->Matrix(InferenceContext::kUnknownDim, width));
      return Status();
    });

template <typename T>
class EmbeddingSum : public OpKernel {
 public:
  explicit EmbeddingSum(OpKernelConstruction* context)
      : OpKernel(context), layout_(context, false), workspace_(dlrm_embedding_workspace_new()) {
    OP_REQUIRES_OK(context, context->GetAttr("num_rows", &num_rows_));
    OP_REQUIRES_OK(context, context->GetAttr("width", &width_));
  }

  ~EmbeddingSum() override { dlrm_embedding_workspace_delete(workspace_); }

  void Compute(OpKernelContext* context) override {
    const Tensor* gradients;
    OP_REQUIRES_OK(context, context->input("gradients", &gradients));
    OP_REQUIRES(context, gradients->dims() == 2,
                InvalidArgument("gradients: their shape is ", gradients->shape().DebugString(), ", expected rank 2."));
    const std::vector<std::pair<char*, TensorShape>> vectors = {
        {static_cast<char*>(gradients->data()), gradients->shape()}};
    Call call(layout_, sizeof(T));
    call.add_shape(num_rows_, width_);
    OP_REQUIRES_OK(context, call.check_vectors(vectors));
    OP_REQUIRES_OK(context, call.read(context, vectors));
    const auto& pool = *context->device()->tensorflow_cpu_worker_threads();
    std::lock_guard<std::mutex> lock(mutex_);
    int64_t found = 0;
    DlrmBadId bad_id = {};
    const int code = dlrm_embedding_sum_cpu(call.slabs().data(), call.bags().data(),
                                            static_cast<int64_t>(call.bags().size()), element_type_of<T>(), -1,
                                            workspace_, dlrm::in_pool, pool.workers, pool.num_threads, &found, &bad_id);
    OP_REQUIRES_OK(context, call.result(code, bad_id));
    Tensor *rows = nullptr, *sums = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({found}), &rows));
    OP_REQUIRES_OK(context, context->allocate_output(1, TensorShape({found, width_}), &sums));
    dlrm_embedding_sums(workspace_, rows->flat<int64_t>().data(), sums->flat<float>().data());
  }

 private:
  const Layout layout_;
  int64_t num_rows_ = 0, width_ = 0;
  std::mutex mutex_;  // of the workspace
  void* const workspace_;
};

#define DLRM_REGISTER(T)                                                                                          \
  REGISTER_KERNEL_BUILDER(Name("DlrmEmbeddingLookup").Device(DEVICE_CPU).TypeConstraint<T>("T"), EmbeddingLookup<T>); \
  REGISTER_KERNEL_BUILDER(Name("DlrmEmbeddingUpdate").Device(DEVICE_CPU).TypeConstraint<T>("T"), EmbeddingUpdate<T>); \
  REGISTER_KERNEL_BUILDER(Name("DlrmEmbeddingSum").Device(DEVICE_CPU).TypeConstraint<T>("T"), EmbeddingSum<T>)
DLRM_REGISTER(float);
DLRM_REGISTER(Eigen::half);
DLRM_REGISTER(Eigen::bfloat16);

}  // namespace
