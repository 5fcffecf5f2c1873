// The gradients of the ids' weights on the CPU: for the bags of some samples, rows are found, and each makes one dot.
#include <stddef.h>

#include <vector>

#include "embedding_rows_cpu.h"

namespace {

class WeightGradient {
 public:
  WeightGradient(const DlrmSlab* slabs, int vectors_type, const dlrm::RowKernels& kernels, DlrmBadId* bad_id)
      : slabs_(slabs), vectors_type_(vectors_type), kernels_(kernels), bad_id_(bad_id) {}

  template <class Id>
  bool add(const DlrmBags& bags, int64_t piece, int64_t first, int64_t last, float* gradients) {
    for (int64_t sample = first; sample < last; ++sample) {
      const bool ragged = bags.hotness < 0;
      const int64_t start = ragged ? bags.row_splits[sample] : sample * bags.hotness;
      const int64_t count = ragged ? bags.row_splits[sample + 1] - start : bags.hotness;
      const Id* const ids = static_cast<const Id*>(bags.ids) + (ragged ? start : sample * bags.sample_stride);
      if (!find(bags, ids, count)) {
        *bad_id_ = {piece, sample, bad_};
        return false;
      }
      const char* const vector = static_cast<const char*>(bags.vectors) +
                                 sample * bags.vector_stride * dlrm::element_bytes(vectors_type_);
      const DlrmSlab& slab = slabs_[bags.slab];
      dots_.resize(rows_.size());
      kernels_.dots[slab.weights_type == DLRM_FLOAT32 ? 0 : 1][vectors_type_](
          vector, rows_.data(), static_cast<int64_t>(rows_.size()), slab.width, dots_.data());
      add_bag(bags.mean, bags.weights + start, count, gradients + start);
    }
    return true;
  }

 private:
  // The rows of the ids that lie in the shard, and their places in the bag.
  template <class Id>
  bool find(const DlrmBags& bags, const Id* ids, int64_t count) {
    const DlrmSlab& slab = slabs_[bags.slab];
    const int64_t bytes = slab.width * dlrm::element_bytes(slab.weights_type);
    rows_.clear();
    places_.clear();
    for (int64_t i = 0; i < count; ++i) {
      bad_ = ids[i];
      if (static_cast<uint64_t>(bad_) >= static_cast<uint64_t>(bags.num_ids)) return false;
      if (bad_ < bags.first_id || bad_ >= bags.last_id) continue;
      const char* const row = static_cast<const char*>(slab.weights) + (bags.first_row + bad_) * bytes;
      for (int64_t line = 0; line < bytes; line += 64) __builtin_prefetch(row + line);
      rows_.push_back(row);
      places_.push_back(i);
    }
    return true;
  }

  void add_bag(bool mean, const float* weights, int64_t count, float* gradients) const {
    if (!mean) {
      for (size_t i = 0; i < dots_.size(); ++i) gradients[places_[i]] += dots_[i];
      return;
    }
    const float total = dlrm::total_weight(weights, count);
    if (total == 0) return;
    float of_vector = 0;  // the dot of the gradient with the pooled vector
    for (size_t i = 0; i < dots_.size(); ++i) of_vector += dlrm::factor_of(weights, places_[i], total) * dots_[i];
    size_t next = 0;  // ids of other shards count as rows of zeros: they too change the total
    for (int64_t i = 0; i < count; ++i) {
      const bool here = next < dots_.size() && places_[next] == i;
      gradients[i] += ((here ? dots_[next] : 0) - of_vector) / total;
      next += here;
    }
  }

  const DlrmSlab* slabs_;
  int vectors_type_;
  const dlrm::RowKernels& kernels_;
  DlrmBadId* bad_id_;
  int64_t bad_ = 0;
  std::vector<const char*> rows_;
  std::vector<int64_t> places_;
  std::vector<float> dots_;
};

}  // namespace

extern "C" int dlrm_embedding_weight_gradient_cpu(const DlrmSlab* slabs, int64_t num_slabs, const DlrmBags* bags,
                                                  int64_t num_bags, int64_t first, int64_t last, int vectors_type,
                                                  int instruction_set, float* const* gradients, DlrmBadId* bad_id) {
  if (first < 0 || last < first || !dlrm::good_arguments(slabs, num_slabs, bags, num_bags, vectors_type)) {
    return DLRM_BAD_ARGUMENT;
  }
  const dlrm::RowKernels* const kernels = dlrm::row_kernels(instruction_set);
  if (kernels == nullptr) return DLRM_NO_INSTRUCTION_SET;
  WeightGradient gradient(slabs, vectors_type, *kernels, bad_id);
  for (int64_t i = 0; i < num_bags; ++i) {
    if (bags[i].weights == nullptr) continue;
    const bool good = bags[i].ids_type == DLRM_INT32 ? gradient.add<int32_t>(bags[i], i, first, last, gradients[i])
                                                     : gradient.add<int64_t>(bags[i], i, first, last, gradients[i]);
    if (!good) return DLRM_BAD_ID;
  }
  return DLRM_OK;
}
