// What the ops that update rows have in common on every device: the optimizer, and variables that they may write.
#pragma once

#include "embedding_rows_call.h"

namespace {

// The attributes of an update.
struct UpdateSettings {
  DlrmOptimizer optimizer = {};                // without rate and step
  std::vector<std::vector<DlrmShard>> shards;  // of each slab

  explicit UpdateSettings(OpKernelConstruction* context) {
    std::string name;
    std::vector<int64_t> betas, numbers;
    OP_REQUIRES_OK(context, context->GetAttr("optimizer", &name));
    OP_REQUIRES_OK(context, context->GetAttr("epsilon", &optimizer.epsilon));
    OP_REQUIRES_OK(context, context->GetAttr("betas", &betas));
    OP_REQUIRES(context, betas.size() == 2, InvalidArgument("betas: expected two numbers."));
    OP_REQUIRES_OK(context, context->GetAttr("shards", &numbers));
    int num_slabs;
    OP_REQUIRES_OK(context, context->GetAttr("num_slabs", &num_slabs));
    const std::vector<std::string> names = {"sgd", "adagrad", "rowwise_adagrad", "adam"};
    optimizer.kind = static_cast<int>(std::find(names.begin(), names.end(), name) - names.begin());
    memcpy(&optimizer.beta1, &betas[0], sizeof(double));
    memcpy(&optimizer.beta2, &betas[1], sizeof(double));
    shards.resize(static_cast<size_t>(num_slabs));
    for (size_t i = 0; i + 4 < numbers.size(); i += 5) {
      shards[static_cast<size_t>(numbers[i])].push_back(
          {numbers[i + 1], numbers[i + 2], numbers[i + 3], static_cast<uint64_t>(numbers[i + 4])});
    }
  }

  // With the rate and the number of this step, which lie in the host's memory on every device.
  Status read_step(OpKernelContext* context, DlrmOptimizer* of_step) const {
    const Tensor *learning_rate, *step;
    TF_RETURN_IF_ERROR(context->input("learning_rate", &learning_rate));
    TF_RETURN_IF_ERROR(context->input("step", &step));
    *of_step = optimizer;
    of_step->learning_rate = learning_rate->scalar<float>()();
    of_step->step = step->scalar<int64_t>()();
    return Status();
  }

  Status check_slot(const Tensor& slot, const Tensor& weights) const {
    const int64_t width = optimizer.kind == DLRM_ROWWISE_ADAGRAD ? 1 : weights.dim_size(1);
    if (slot.dtype() == DT_FLOAT && slot.shape() == TensorShape({weights.dim_size(0), width})) return Status();
    return InvalidArgument("slots: one is ", slot.DeviceSafeDebugString(), ", expected float [", weights.dim_size(0), ", ",
                           width, "].");
  }
};

// The variables of an update, locked as long as this lives: in the order of their addresses, so that two updates cannot
// wait for each other.
class LockedVariables {
 public:
  Status lock(OpKernelContext* context) {
    TF_RETURN_IF_ERROR(look_up(context, "slabs", &slabs_));
    TF_RETURN_IF_ERROR(look_up(context, "slots", &slots_));
    std::vector<mutex*> mutexes;
    for (const auto& variable : slabs_) mutexes.push_back(variable->mu());
    for (const auto& variable : slots_) mutexes.push_back(variable->mu());
    std::sort(mutexes.begin(), mutexes.end());
    for (mutex* one : mutexes) locks_.push_back(std::make_unique<tensorflow::mutex_lock>(*one));
    return Status();
  }

  // Adds all slabs with their slots to `call`. copy(to, from, bytes) copies what another one holds as well.
  template <class Copy>
  Status add_to(Call* call, OpKernelContext* context, const UpdateSettings& settings, const Copy& copy) const {
    const size_t slots_each = slots_.size() / slabs_.size();
    for (size_t i = 0; i < slabs_.size(); ++i) {
      TF_RETURN_IF_ERROR(make_own(context, slabs_[i].get(), copy));
      std::vector<float*> of_slab;
      for (size_t slot = i * slots_each; slot < (i + 1) * slots_each; ++slot) {
        TF_RETURN_IF_ERROR(make_own(context, slots_[slot].get(), copy));
        TF_RETURN_IF_ERROR(settings.check_slot(*slots_[slot]->tensor(), *slabs_[i]->tensor()));
        of_slab.push_back(slots_[slot]->tensor()->flat<float>().data());
      }
      TF_RETURN_IF_ERROR(call->add_slab(*slabs_[i]->tensor(), of_slab, &settings.shards[i]));
    }
    return Status();
  }

  // The tensors of the slabs, then of the slots, to be written in place.
  template <class Copy>
  Status tensors(OpKernelContext* context, const Copy& copy, std::vector<Tensor>* found) const {
    for (const auto* variables : {&slabs_, &slots_}) {
      for (const auto& variable : *variables) {
        TF_RETURN_IF_ERROR(make_own(context, variable.get(), copy));
        found->push_back(*variable->tensor());
      }
    }
    return Status();
  }

 private:
  // The variable has its memory for itself from now on: whoever reads it gets a copy.
  template <class Copy>
  static Status make_own(OpKernelContext* context, Var* variable, const Copy& copy) {
    if (variable->copy_on_read_mode.load()) return Status();
    if (!variable->tensor()->RefCountIsOne()) {
      Tensor own;
      TF_RETURN_IF_ERROR(context->allocate_temp(variable->tensor()->dtype(), variable->tensor()->shape(), &own));
      TF_RETURN_IF_ERROR(copy(own.data(), variable->tensor()->data(), own.tensor_data().size()));
      *variable->tensor() = own;
    }
    variable->copy_on_read_mode.store(true);
    return Status();
  }

  std::vector<RefCountPtr<Var>> slabs_, slots_;
  std::vector<std::unique_ptr<tensorflow::mutex_lock>> locks_;  // given up before the variables
};

// The memory and shape of each tensor with vectors; an error for one that is not a matrix.
Status matrices(const OpInputList& tensors, const char* name, std::vector<std::pair<char*, TensorShape>>* vectors) {
  for (int i = 0; i < tensors.size(); ++i) {
    if (tensors[i].dims() != 2) {
      return InvalidArgument(name, ": number ", i, " has the shape ", tensors[i].shape().DebugString(),
                             ", expected rank 2.");
    }
    vectors->push_back({static_cast<char*>(tensors[i].data()), tensors[i].shape()});
  }
  return Status();
}

}  // namespace
