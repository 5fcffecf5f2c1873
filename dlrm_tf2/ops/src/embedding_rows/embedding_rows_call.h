// The attributes and inputs of TensorFlow's ops of embedding rows, checked, as the arguments of the kernels.
#pragma once

#include <math.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "embedding_rows.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensors.h"

namespace {

using absl::Status;
using dlrm::element_type_of;
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

  // when: "", or which step it was.
  Status refuse(const DlrmBadId& bad, const char* when) const {
    const size_t piece = static_cast<size_t>(bad.bags);
    return InvalidArgument("feature '", features[piece], "': its id ", bad.id, " in sample ", bad.sample, when,
                           " is not a row of its table; ids must be from 0 to ", pieces[piece].num_ids - 1, ".");
  }
};

// The tensors of one call as the kernels take them.
class Call {
 public:
  Call(const Layout& layout, size_t element_bytes)
      : layout_(layout), element_bytes_(static_cast<int64_t>(element_bytes)), bags_(layout.pieces.size()) {}

  virtual ~Call() = default;

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
      return InvalidArgument("slab ", slabs_.size(), ": it is ", weights.DeviceSafeDebugString(), ", expected a matrix of ",
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
    if (code == DLRM_BAD_ID) return layout_.refuse(bad, "");
    return code == DLRM_OK ? Status() : tensorflow::errors::Internal("embedding rows: ", dlrm_error_text(code));
  }

  const std::vector<DlrmSlab>& slabs() const { return slabs_; }
  const std::vector<DlrmBags>& bags() const { return bags_; }
  int64_t num_ids() const { return num_ids_; }

 protected:
  // Row splits [samples + 1] from row lengths; `i`: of the bags that have them. On a GPU they are made there.
  virtual Status make_splits(size_t i, const Tensor& lengths, int64_t num_ids, const int64_t** splits) {
    const std::string& feature = layout_.features[i];
    const auto length = lengths.flat<int32_t>();
    std::vector<int64_t> made(1, 0);
    for (int64_t sample = 0; sample < lengths.NumElements(); ++sample) {
      if (length(sample) < 0) {
        return InvalidArgument("feature '", feature, "': the length of row ", sample, " is ", length(sample), ".");
      }
      made.push_back(made.back() + length(sample));
    }
    if (made.back() != num_ids) {
      return InvalidArgument("feature '", feature, "': its row lengths add up to ", made.back(), ", and it has ",
                             num_ids, " ids.");
    }
    kept_.push_back(std::move(made));
    *splits = kept_.back().data();
    return Status();
  }

  const Layout& layout_;

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
      const int64_t*& splits = splits_[static_cast<size_t>(piece.lengths)];
      const Tensor& of_samples = lengths[static_cast<int>(piece.lengths)];
      if (of_samples.NumElements() != bags.num_samples) {
        return InvalidArgument("feature '", feature, "': it has ", of_samples.NumElements(), " row lengths for ",
                               bags.num_samples, " samples.");
      }
      if (splits == nullptr) TF_RETURN_IF_ERROR(make_splits(i, of_samples, of.NumElements(), &splits));
      bags.row_splits = splits;
      bags.ids = of.tensor_data().data();
      bags.all_ids = count = of.NumElements();
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

  const int64_t element_bytes_;
  std::vector<DlrmSlab> slabs_;
  std::vector<DlrmBags> bags_;
  std::vector<const int64_t*> splits_;      // of each input of row lengths
  std::vector<std::vector<int64_t>> kept_;  // their memory
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

// The slabs of a call, which nobody changes while this object exists.
class SlabsToRead {
 public:
  Status lock(OpKernelContext* context, Call* call) {
    TF_RETURN_IF_ERROR(look_up(context, "slabs", &variables_));
    for (const auto& variable : variables_) {
      locks_.push_back(std::make_unique<tensorflow::tf_shared_lock>(*variable->mu()));
      TF_RETURN_IF_ERROR(call->add_slab(*variable->tensor(), {}, nullptr));
    }
    return Status();
  }

 private:
  std::vector<RefCountPtr<Var>> variables_;
  std::vector<std::unique_ptr<tensorflow::tf_shared_lock>> locks_;
};

// Runs `kernel`, (first sample, end, bad id) -> code, on TensorFlow's threads. cycles_of_id: what an id costs.
template <class Kernel>
Status on_samples(OpKernelContext* context, const Call& call, int64_t num_samples, int64_t cycles_of_id,
                  const Kernel& kernel) {
  const int64_t cycles = 50 + cycles_of_id * call.num_ids() / std::max<int64_t>(1, num_samples);  // of a sample
  std::mutex mutex;
  int status = DLRM_OK;
  DlrmBadId bad_id = {};
  context->device()->tensorflow_cpu_worker_threads()->workers->ParallelFor(
      num_samples, cycles, [&](int64_t first, int64_t last) {
        DlrmBadId bad = {};
        const int code = kernel(first, last, &bad);
        if (code == DLRM_OK) return;
        std::lock_guard<std::mutex> lock(mutex);
        status = code;
        bad_id = bad;
      });
  return call.result(status, bad_id);
}

}  // namespace
