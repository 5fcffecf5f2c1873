// What the ops of embedding rows need on a GPU: memory of one call, row splits made on the GPU, and what the kernels found,
// told without waiting for them.
#pragma once

#include "embedding_rows_call.h"
#include "gpu_op.h"

namespace {

using dlrm::allocate_bytes;
using dlrm::stream_of;
using dlrm::when_done;

Status status_of(int code) { return dlrm::status_of(code, "embedding rows"); }

Status copy_on_gpu(OpKernelContext* context, void* to, const void* from, size_t bytes) {
  return status_of(dlrm_cuda_copy(to, from, static_cast<int64_t>(bytes), stream_of(context)));
}

// What a status that the host can read says of the ids of a step.
Status complaint(const Layout& layout, const DlrmCudaStatus& found, const char* when) {
  const DlrmBadId& bad = found.bad_id;
  if (found.found_bad_id == 0) return Status();
  if (found.found_bad_id == DLRM_FOUND_ID) return layout.refuse(bad, when);
  const std::string& feature = layout.features[static_cast<size_t>(bad.bags)];
  if (bad.sample < 0) {
    return InvalidArgument("feature '", feature, "': its row lengths add up to ", bad.id, when,
                           ", which is not the number of its ids.");
  }
  return InvalidArgument("feature '", feature, "': the length of row ", bad.sample, when, " is ", bad.id, ".");
}

// What the kernels of one op have found so far. Each step queues a copy for the host and does not wait for it; a later
// step, perhaps many steps later, returns the error.
class Watch {
 public:
  // The status on the GPU; or the error of an earlier step, once.
  Status begin(OpKernelContext* context, const Layout& layout, DlrmCudaStatus** status) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (status_ == nullptr) {
      void* start;
      TF_RETURN_IF_ERROR(allocate_bytes(context, sizeof(DlrmCudaStatus), false, &memory_, &start));
      TF_RETURN_IF_ERROR(status_of(dlrm_cuda_zeros(start, sizeof(DlrmCudaStatus), stream_of(context))));
      status_ = static_cast<DlrmCudaStatus*>(start);
    }
    *status = status_;
    const DlrmCudaStatus found = known_->read();
    if (found.found_bad_id == 0) return Status();
    known_ = std::make_shared<Known>();  // copies that are still on their way know the old one
    TF_RETURN_IF_ERROR(status_of(dlrm_cuda_zeros(status_, sizeof(DlrmCudaStatus), stream_of(context))));
    return complaint(layout, found, " of an earlier step");
  }

  // After the kernels of a step are queued.
  Status end(OpKernelContext* context) {
    std::lock_guard<std::mutex> lock(mutex_);
    Tensor on_host;
    void* start;
    TF_RETURN_IF_ERROR(allocate_bytes(context, sizeof(DlrmCudaStatus), true, &on_host, &start));
    TF_RETURN_IF_ERROR(copy_on_gpu(context, start, status_, sizeof(DlrmCudaStatus)));
    when_done(context, [known = known_, on_host, start] { known->write(*static_cast<const DlrmCudaStatus*>(start)); });
    return Status();
  }

 private:
  class Known {
   public:
    DlrmCudaStatus read() {
      std::lock_guard<std::mutex> lock(mutex_);
      return status_;
    }
    void write(const DlrmCudaStatus& status) {
      std::lock_guard<std::mutex> lock(mutex_);
      if (status.found_bad_id != 0) status_ = status;  // copies may arrive in any order
    }

   private:
    std::mutex mutex_;
    DlrmCudaStatus status_ = {};
  };

  std::mutex mutex_;
  Tensor memory_;
  DlrmCudaStatus* status_ = nullptr;
  std::shared_ptr<Known> known_ = std::make_shared<Known>();
};

// A call whose row lengths lie on the GPU, with the memory that its kernels need.
class CudaCall : public Call {
 public:
  CudaCall(OpKernelContext* context, const Layout& layout, size_t element_bytes)
      : Call(layout, element_bytes), context_(context) {}

  void set_status(DlrmCudaStatus* status) { status_ = status; }

  // Memory of as many bytes as count(slabs, num_slabs, bags, num_bags, &bytes) says.
  template <class Count>
  Status allocate(const Count& count, void** start, int64_t* bytes) {
    TF_RETURN_IF_ERROR(status_of(count(slabs().data(), num_slabs(), bags().data(), num_bags(), bytes)));
    kept_.emplace_back();
    return allocate_bytes(context_, *bytes, false, &kept_.back(), start);
  }

  int64_t num_slabs() const { return static_cast<int64_t>(slabs().size()); }
  int64_t num_bags() const { return static_cast<int64_t>(bags().size()); }

 protected:
  Status make_splits(size_t i, const Tensor& lengths, int64_t num_ids, const int64_t** splits) override {
    const int64_t num_samples = lengths.NumElements();
    void* start;
    kept_.emplace_back();
    TF_RETURN_IF_ERROR(allocate_bytes(context_, (num_samples + 1) * 8, false, &kept_.back(), &start));
    *splits = static_cast<const int64_t*>(start);
    return status_of(dlrm_embedding_row_splits_cuda(lengths.flat<int32_t>().data(), num_samples, num_ids,
                                                    static_cast<int64_t>(i), static_cast<int64_t*>(start), status_,
                                                    stream_of(context_)));
  }

 private:
  OpKernelContext* const context_;
  DlrmCudaStatus* status_ = nullptr;
  std::vector<Tensor> kept_;
};

}  // namespace
