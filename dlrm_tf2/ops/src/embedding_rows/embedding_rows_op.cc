// TensorFlow's ops around the embedding rows' kernels: names, shapes, checks, locks and threads. No arithmetic in here.
#include <math.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "embedding_rows.h"
#include "recycled_memory.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace {

using absl::Status;
using tensorflow::DEVICE_CPU;
using tensorflow::DT_BFLOAT16;
using tensorflow::DT_FLOAT;
using tensorflow::DT_INT32;
using tensorflow::DataType;
using tensorflow::mutex;
using tensorflow::OpInputList;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::Var;
using tensorflow::errors::InvalidArgument;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::core::RefCountPtr;

// One piece in the attribute `bags`, a row of kFields numbers; dlrm_tf2/ops/embedding_rows.py writes them in this order.
struct Piece {
  int64_t slab, first_row, num_ids, first_id, last_id;
  int64_t ids;      // number of the input with its ids
  int64_t hotness;  // -1 for any number
  int64_t column;   // of the ids, where the hotness is fixed
  int64_t lengths;  // number of the input with the row lengths, where it is not
  int64_t weights;  // number of the input with the weights; -1 for none
  int64_t mean;
  int64_t vectors;         // number of the tensor with the vectors
  int64_t vectors_column;  // first column of the vectors in it
};
constexpr int64_t kFields = 13;
static_assert(sizeof(Piece) == kFields * sizeof(int64_t), "the attribute is read as an array of pieces");

// What both ops are made with, and the arguments of the kernels as far as they are the same in every step.
struct Layout {
  std::vector<Piece> pieces;
  std::vector<std::string> features;
  DataType weights_type;

  Layout(OpKernelConstruction* context, bool has_weights) {
    std::vector<int64_t> numbers;
    OP_REQUIRES_OK(context, context->GetAttr("bags", &numbers));
    OP_REQUIRES_OK(context, context->GetAttr("features", &features));
    if (has_weights) OP_REQUIRES_OK(context, context->GetAttr("W", &weights_type));
    OP_REQUIRES(context, numbers.size() == features.size() * kFields,
                InvalidArgument("bags: it has ", numbers.size(), " numbers, expected ", kFields, " for each of the ",
                                features.size(), " features."));
    pieces.resize(features.size());
    if (!pieces.empty()) memcpy(pieces.data(), numbers.data(), numbers.size() * sizeof(int64_t));
  }
};

// The tensors of one call as the kernels take them.
class Call {
 public:
  Call(const Layout& layout, size_t element_bytes)
      : layout_(layout), element_bytes_(static_cast<int64_t>(element_bytes)), bags_(layout.pieces.size()) {}

  // Reads the inputs that both ops have. `vectors`: the memory and shape of each tensor with vectors.
  Status read(OpKernelContext* context, const std::vector<std::pair<char*, TensorShape>>& vectors) {
    OpInputList ids, lengths, weights;
    TF_RETURN_IF_ERROR(context->input_list("ids", &ids));
    TF_RETURN_IF_ERROR(context->input_list("row_lengths", &lengths));
    TF_RETURN_IF_ERROR(context->input_list("weights", &weights));
    splits_.resize(static_cast<size_t>(lengths.size()));
    for (size_t i = 0; i < bags_.size(); ++i) {
      TF_RETURN_IF_ERROR(read_bags(i, ids, lengths, weights, vectors));
    }
    return Status();
  }

  Status add_slab(const Tensor& weights, const std::vector<float*>& slots, const std::vector<DlrmShard>* shards) {
    if (weights.dtype() != layout_.weights_type || weights.dims() != 2) {
      return InvalidArgument("slab ", slabs_.size(), ": it is ", weights.DebugString(0), ", expected a matrix of ",
                             tensorflow::DataTypeString(layout_.weights_type), ".");
    }
    DlrmSlab slab = {};
    slab.weights = const_cast<void*>(static_cast<const void*>(weights.tensor_data().data()));
    slab.num_rows = weights.dim_size(0);
    slab.width = weights.dim_size(1);
    slab.weights_type = weights.dtype() == DT_FLOAT ? DLRM_FLOAT32 : DLRM_BFLOAT16;
    for (size_t i = 0; i < slots.size(); ++i) slab.slots[i] = slots[i];
    if (shards != nullptr) {
      slab.shards = shards->data();
      slab.num_shards = static_cast<int64_t>(shards->size());
    }
    slabs_.push_back(slab);
    return Status();
  }

  // A slab of which only the shape is read.
  void add_shape(int64_t num_rows, int64_t width) {
    DlrmSlab slab = {};
    slab.num_rows = num_rows;
    slab.width = width;
    slabs_.push_back(slab);
  }

  // Whether the pieces' vectors have the width of their slab, inside of their tensors.
  Status check_vectors(const std::vector<std::pair<char*, TensorShape>>& vectors) const {
    for (const Piece& piece : layout_.pieces) {
      const int64_t width = slabs_[static_cast<size_t>(piece.slab)].width;
      const TensorShape& shape = vectors[static_cast<size_t>(piece.vectors)].second;
      if (piece.vectors_column < 0 || piece.vectors_column + width > shape.dim_size(1)) {
        return InvalidArgument("vectors: their shape is ", shape.DebugString(), ", and columns ", piece.vectors_column,
                               " to ", piece.vectors_column + width, " are asked for.");
      }
    }
    return Status();
  }

  Status result(int code, const DlrmBadId& bad) const {
    if (code == DLRM_OK) return Status();
    if (code != DLRM_BAD_ID) return tensorflow::errors::Internal("embedding rows: ", dlrm_error_text(code));
    const size_t piece = static_cast<size_t>(bad.bags);
    return InvalidArgument("feature '", layout_.features[piece], "': its id ", bad.id, " in sample ", bad.sample,
                           " is not a row of its table; ids must be from 0 to ", layout_.pieces[piece].num_ids - 1, ".");
  }

  const std::vector<DlrmSlab>& slabs() const { return slabs_; }
  const std::vector<DlrmBags>& bags() const { return bags_; }
  int64_t num_ids() const { return num_ids_; }

 private:
  Status read_bags(size_t i, const OpInputList& ids, const OpInputList& lengths, const OpInputList& weights,
                   const std::vector<std::pair<char*, TensorShape>>& vectors) {
    const Piece& piece = layout_.pieces[i];
    const std::string& feature = layout_.features[i];
    const auto& [base, shape] = vectors[static_cast<size_t>(piece.vectors)];
    const Tensor& of = ids[static_cast<int>(piece.ids)];
    DlrmBags& bags = bags_[i];
    bags = {};
    bags.slab = piece.slab;
    bags.first_row = piece.first_row;
    bags.num_ids = piece.num_ids;
    bags.first_id = piece.first_id;
    bags.last_id = piece.last_id;
    bags.ids_type = of.dtype() == DT_INT32 ? DLRM_INT32 : DLRM_INT64;
    bags.hotness = piece.hotness;
    bags.mean = piece.mean != 0;
    bags.num_samples = shape.dim_size(0);
    bags.vector_stride = shape.dim_size(1);
    bags.vectors = base + piece.vectors_column * element_bytes_;
    int64_t count = 0;
    if (piece.hotness < 0) {
      const int number = static_cast<int>(piece.lengths);
      TF_RETURN_IF_ERROR(make_splits(feature, lengths[number], of.NumElements(), bags.num_samples,
                                     &splits_[static_cast<size_t>(number)]));
      bags.row_splits = splits_[static_cast<size_t>(number)].data();
      bags.ids = of.tensor_data().data();
      count = of.NumElements();
    } else {
      if (of.dims() != 2 || of.dim_size(0) != bags.num_samples || piece.column + piece.hotness > of.dim_size(1)) {
        return InvalidArgument("feature '", feature, "': its ids have the shape ", of.shape().DebugString(),
                               ", expected ", bags.num_samples, " samples and at least ",
                               piece.column + piece.hotness, " columns.");
      }
      bags.ids = of.tensor_data().data() + piece.column * tensorflow::DataTypeSize(of.dtype());
      bags.sample_stride = of.dim_size(1);
      count = bags.num_samples * piece.hotness;
    }
    num_ids_ += count;
    if (piece.weights < 0) return Status();
    const Tensor& of_ids = weights[static_cast<int>(piece.weights)];
    if (of_ids.NumElements() != count) {
      return InvalidArgument("feature '", feature, "': it has ", of_ids.NumElements(), " weights for ", count, " ids.");
    }
    bags.weights = of_ids.flat<float>().data();
    return Status();
  }

  static Status make_splits(const std::string& feature, const Tensor& lengths, int64_t num_ids, int64_t num_samples,
                            std::vector<int64_t>* splits) {
    if (lengths.NumElements() != num_samples) {
      return InvalidArgument("feature '", feature, "': it has ", lengths.NumElements(), " row lengths for ",
                             num_samples, " samples.");
    }
    if (static_cast<int64_t>(splits->size()) == num_samples + 1) return Status();  // another piece has made them
    splits->resize(static_cast<size_t>(num_samples) + 1);
    const auto length = lengths.flat<int32_t>();
    int64_t sum = 0;
    for (int64_t sample = 0; sample < num_samples; ++sample) {
      (*splits)[static_cast<size_t>(sample)] = sum;
      if (length(sample) < 0) {
        return InvalidArgument("feature '", feature, "': the length of row ", sample, " is ", length(sample), ".");
      }
      sum += length(sample);
    }
    (*splits)[static_cast<size_t>(num_samples)] = sum;
    if (sum == num_ids) return Status();
    return InvalidArgument("feature '", feature, "': its row lengths add up to ", sum, ", and it has ", num_ids,
                           " ids.");
  }

  const Layout& layout_;
  const int64_t element_bytes_;
  std::vector<DlrmSlab> slabs_;
  std::vector<DlrmBags> bags_;
  std::vector<std::vector<int64_t>> splits_;
  int64_t num_ids_ = 0;
};

Status look_up(OpKernelContext* context, const char* list, std::vector<RefCountPtr<Var>>* variables) {
  OpInputList handles;
  TF_RETURN_IF_ERROR(context->input_list(list, &handles));
  for (int i = 0; i < handles.size(); ++i) {
    RefCountPtr<Var> variable;
    TF_RETURN_IF_ERROR(LookupResource(context, handles[i].scalar<tensorflow::ResourceHandle>()(), &variable));
    variables->push_back(std::move(variable));
  }
  return Status();
}

template <typename T>
int element_type_of();
template <>
int element_type_of<float>() { return DLRM_FLOAT32; }
template <>
int element_type_of<Eigen::half>() { return DLRM_FLOAT16; }
template <>
int element_type_of<Eigen::bfloat16>() { return DLRM_BFLOAT16; }

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
    OP_REQUIRES_OK(context, allocate(context, shape, &output));
    const std::vector<std::pair<char*, TensorShape>> vectors = {{static_cast<char*>(output->data()), shape}};
    std::vector<RefCountPtr<Var>> variables;
    OP_REQUIRES_OK(context, look_up(context, "slabs", &variables));
    std::vector<std::unique_ptr<tensorflow::tf_shared_lock>> locks;
    Call call(layout_, sizeof(T));
    for (const auto& variable : variables) {
      locks.push_back(std::make_unique<tensorflow::tf_shared_lock>(*variable->mu()));
      OP_REQUIRES_OK(context, call.add_slab(*variable->tensor(), {}, nullptr));
    }
    OP_REQUIRES_OK(context, call.check_vectors(vectors));
    OP_REQUIRES_OK(context, call.read(context, vectors));
    run(context, call, shape.dim_size(0));
  }

 private:
  // Large outputs lie in recycled memory.
  Status allocate(OpKernelContext* context, const TensorShape& shape, Tensor** output) const {
    if (shape.num_elements() * sizeof(T) >= dlrm::RecycledMemory::kLargePage) {
      const Tensor recycled(dlrm::RecycledMemory::get(), tensorflow::DataTypeToEnum<T>::value, shape);
      if (recycled.IsInitialized()) {
        context->set_output(0, recycled);
        *output = context->mutable_output(0);
        return Status();
      }
    }
    return context->allocate_output(0, shape, output);
  }

  void run(OpKernelContext* context, const Call& call, int64_t num_samples) const {
    const int64_t cost = 50 + 40 * call.num_ids() / std::max<int64_t>(1, num_samples);  // cycles a sample
    std::atomic<int> status{DLRM_OK};
    std::mutex mutex;
    DlrmBadId bad_id = {};
    context->device()->tensorflow_cpu_worker_threads()->workers->ParallelFor(
        num_samples, cost, [&](int64_t first, int64_t last) {
          DlrmBadId bad = {};
          const int code = dlrm_embedding_lookup_cpu(
              call.slabs().data(), static_cast<int64_t>(call.slabs().size()), call.bags().data(),
              static_cast<int64_t>(call.bags().size()), first, last, element_type_of<T>(), -1, &bad);
          if (code == DLRM_OK) return;
          std::lock_guard<std::mutex> lock(mutex);
          status = code;
          bad_id = bad;
        });
    OP_REQUIRES_OK(context, call.result(status, bad_id));
  }

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

// Runs tasks in TensorFlow's own threads; `threads` is their pool.
void in_pool(void* threads, int64_t count, DlrmTask task, void* state) {
  auto* const pool = static_cast<tensorflow::thread::ThreadPool*>(threads);
  if (pool->NumThreads() == 1) {  // a second thread would take the core of another rank
    for (int64_t i = 0; i < count; ++i) task(state, i);
    return;
  }
  pool->ParallelFor(
      count,
      tensorflow::thread::ThreadPool::SchedulingParams(
          tensorflow::thread::ThreadPool::SchedulingStrategy::kFixedBlockSize, std::nullopt, 1),
      [=](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) task(state, i);
      });
}

// The variable has its memory for itself from now on: whoever reads it gets a copy.
Status make_own(OpKernelContext* context, Var* variable) {
  if (variable->copy_on_read_mode.load()) return Status();
  if (!variable->tensor()->RefCountIsOne()) {
    Tensor copy;
    TF_RETURN_IF_ERROR(context->allocate_temp(variable->tensor()->dtype(), variable->tensor()->shape(), &copy));
    memcpy(copy.data(), variable->tensor()->data(), copy.tensor_data().size());
    *variable->tensor() = copy;
  }
  variable->copy_on_read_mode.store(true);
  return Status();
}

template <typename T>
class EmbeddingUpdate : public OpKernel {
 public:
  explicit EmbeddingUpdate(OpKernelConstruction* context)
      : OpKernel(context), layout_(context, true), workspace_(dlrm_embedding_workspace_new()) {
    std::string name;
    std::vector<int64_t> betas, shards;
    OP_REQUIRES_OK(context, context->GetAttr("optimizer", &name));
    OP_REQUIRES_OK(context, context->GetAttr("epsilon", &optimizer_.epsilon));
    OP_REQUIRES_OK(context, context->GetAttr("betas", &betas));
    OP_REQUIRES(context, betas.size() == 2, InvalidArgument("betas: expected two numbers."));
    OP_REQUIRES_OK(context, context->GetAttr("shards", &shards));
    int num_slabs;
    OP_REQUIRES_OK(context, context->GetAttr("num_slabs", &num_slabs));
    const std::vector<std::string> names = {"sgd", "adagrad", "rowwise_adagrad", "adam"};
    optimizer_.kind = static_cast<int>(std::find(names.begin(), names.end(), name) - names.begin());
    memcpy(&optimizer_.beta1, &betas[0], sizeof(double));
    memcpy(&optimizer_.beta2, &betas[1], sizeof(double));
    shards_.resize(static_cast<size_t>(num_slabs));
    for (size_t i = 0; i + 4 < shards.size(); i += 5) {
      shards_[static_cast<size_t>(shards[i])].push_back(
          {shards[i + 1], shards[i + 2], shards[i + 3], static_cast<uint64_t>(shards[i + 4])});
    }
  }

  ~EmbeddingUpdate() override { dlrm_embedding_workspace_delete(workspace_); }

  void Compute(OpKernelContext* context) override {
    OpInputList gradients;
    OP_REQUIRES_OK(context, context->input_list("gradients", &gradients));
    std::vector<std::pair<char*, TensorShape>> vectors;
    for (int i = 0; i < gradients.size(); ++i) {
      OP_REQUIRES(context, gradients[i].dims() == 2,
                  InvalidArgument("gradients: number ", i, " has the shape ", gradients[i].shape().DebugString(),
                                  ", expected rank 2."));
      vectors.push_back({static_cast<char*>(gradients[i].data()), gradients[i].shape()});
    }
    std::vector<RefCountPtr<Var>> slabs, slots;
    OP_REQUIRES_OK(context, look_up(context, "slabs", &slabs));
    OP_REQUIRES_OK(context, look_up(context, "slots", &slots));
    const std::vector<std::unique_ptr<tensorflow::mutex_lock>> locks = lock_all(slabs, slots);
    Call call(layout_, sizeof(T));
    const size_t slots_each = slots.size() / slabs.size();
    for (size_t i = 0; i < slabs.size(); ++i) {
      OP_REQUIRES_OK(context, make_own(context, slabs[i].get()));
      std::vector<float*> of_slab;
      for (size_t slot = i * slots_each; slot < (i + 1) * slots_each; ++slot) {
        OP_REQUIRES_OK(context, make_own(context, slots[slot].get()));
        OP_REQUIRES_OK(context, check_slot(*slots[slot]->tensor(), *slabs[i]->tensor()));
        of_slab.push_back(slots[slot]->tensor()->flat<float>().data());
      }
      OP_REQUIRES_OK(context, call.add_slab(*slabs[i]->tensor(), of_slab, &shards_[i]));
    }
    OP_REQUIRES_OK(context, call.check_vectors(vectors));
    OP_REQUIRES_OK(context, call.read(context, vectors));
    run(context, call);
  }

 private:
  // In the order of their addresses, so that two updates cannot wait for each other.
  static std::vector<std::unique_ptr<tensorflow::mutex_lock>> lock_all(const std::vector<RefCountPtr<Var>>& slabs,
                                                                       const std::vector<RefCountPtr<Var>>& slots) {
    std::vector<mutex*> mutexes;
    for (const auto& variable : slabs) mutexes.push_back(variable->mu());
    for (const auto& variable : slots) mutexes.push_back(variable->mu());
    std::sort(mutexes.begin(), mutexes.end());
    std::vector<std::unique_ptr<tensorflow::mutex_lock>> locks;
    for (mutex* one : mutexes) locks.push_back(std::make_unique<tensorflow::mutex_lock>(*one));
    return locks;
  }

  Status check_slot(const Tensor& slot, const Tensor& weights) const {
    const int64_t width = optimizer_.kind == DLRM_ROWWISE_ADAGRAD ? 1 : weights.dim_size(1);
    if (slot.dtype() == DT_FLOAT && slot.shape() == TensorShape({weights.dim_size(0), width})) return Status();
    return InvalidArgument("slots: one is ", slot.DebugString(0), ", expected float [", weights.dim_size(0), ", ",
                           width, "].");
  }

  void run(OpKernelContext* context, const Call& call) {
    const auto& pool = *context->device()->tensorflow_cpu_worker_threads();
    std::lock_guard<std::mutex> lock(mutex_);
    DlrmOptimizer optimizer = optimizer_;
    const Tensor *learning_rate, *step;
    OP_REQUIRES_OK(context, context->input("learning_rate", &learning_rate));
    OP_REQUIRES_OK(context, context->input("step", &step));
    optimizer.learning_rate = learning_rate->scalar<float>()();
    optimizer.step = step->scalar<int64_t>()();
    int finite = 1;
    DlrmBadId bad_id = {};
    const int code = dlrm_embedding_update_cpu(
        call.slabs().data(), static_cast<int64_t>(call.slabs().size()), call.bags().data(),
        static_cast<int64_t>(call.bags().size()), &optimizer, element_type_of<T>(), -1, workspace_, in_pool,
        pool.workers, pool.num_threads, &finite, &bad_id);
    OP_REQUIRES_OK(context, call.result(code, bad_id));
    Tensor* check = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({}), &check));
    check->scalar<float>()() = finite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  }

  const Layout layout_;
  DlrmOptimizer optimizer_ = {};
  std::vector<std::vector<DlrmShard>> shards_;
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
                                            workspace_, in_pool, pool.workers, pool.num_threads, &found, &bad_id);
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
