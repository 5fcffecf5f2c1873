// A cache of rows (row_cache.h) for TensorFlow's ops: the rows of one dynamic table, with their optimizer state, between the
// slots in a slab's variables and the records in a file. A record has the row of each variable, one after the other.
#pragma once

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "row_cache.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"

namespace dlrm {

using absl::Status;
using tensorflow::DEVICE_CPU;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::ResourceHandle;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::Var;
using tensorflow::core::RefCountPtr;
using tensorflow::errors::InvalidArgument;

// The rows of one variable: the first slot of the cache in memory, and the place of a row in a record.
struct Array {
  char* slots;
  int64_t row_bytes, in_record;
};

class CacheResource : public tensorflow::ResourceBase {
 public:
  CacheResource(RefCountPtr<Var> file, int64_t num_rows, int64_t first_slot, int64_t num_slots, std::string name)
      : cache(num_rows, num_slots), first_slot(first_slot), name(std::move(name)), file_(std::move(file)),
        records_(static_cast<char*>(file_->tensor()->data())),
        record_bytes(file_->tensor()->dim_size(1) * tensorflow::DataTypeSize(file_->tensor()->dtype())) {}
  std::string DebugString() const override { return "cache of rows of " + name; }

  char* record(int64_t row) const { return records_ + row * record_bytes; }

  // The variables of the inputs `variables` as arrays. Nobody moves them: the update writes in place.
  Status arrays(OpKernelContext* context, std::vector<Array>* found) const {
    tensorflow::OpInputList handles;
    TF_RETURN_IF_ERROR(context->input_list("variables", &handles));
    int64_t in_record = 0;
    for (int i = 0; i < handles.size(); ++i) {
      RefCountPtr<Var> variable;
      TF_RETURN_IF_ERROR(LookupResource(context, handles[i].scalar<ResourceHandle>()(), &variable));
      tensorflow::tf_shared_lock lock(*variable->mu());
      const Tensor& tensor = *variable->tensor();
      if (tensor.dims() != 2 || tensor.dim_size(0) < first_slot + cache.num_slots()) {
        return InvalidArgument("cache of rows: a variable is ", tensor.shape().DebugString(), ", expected a matrix of at least ",
                               first_slot + cache.num_slots(), " rows.");
      }
      const int64_t bytes = tensor.dim_size(1) * tensorflow::DataTypeSize(tensor.dtype());
      found->push_back({static_cast<char*>(tensor.data()) + first_slot * bytes, bytes, in_record});
      in_record += bytes;
    }
    if (in_record <= record_bytes) return Status();
    return InvalidArgument("cache of rows: a row has ", in_record, " bytes, expected at most ", record_bytes, ".");
  }

  Status check_rows(const Tensor& rows) const {
    const int64_t* const row = rows.flat<int64_t>().data();
    for (int64_t i = 0; i < rows.NumElements(); ++i) {
      if (row[i] >= cache.num_rows()) {
        return InvalidArgument("cache of rows: found row ", row[i], ", expected at most ", cache.num_rows() - 1, ".");
      }
    }
    return Status();
  }

  std::mutex mutex;
  RowCache cache;
  const int64_t first_slot;
  const std::string name;

 private:
  const RefCountPtr<Var> file_;
  char* const records_;

 public:
  const int64_t record_bytes;  // initialized after the file
};

inline Status find_cache(OpKernelContext* context, RefCountPtr<CacheResource>* cache) {
  return LookupResource(context, context->input(0).scalar<ResourceHandle>()(), cache);
}

// Asks the system for the pages of some bytes of a file, and does not wait.
inline void ask_for(const char* start, int64_t bytes) {
  static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t first = reinterpret_cast<uintptr_t>(start) / page * page;
  madvise(reinterpret_cast<void*>(first), reinterpret_cast<uintptr_t>(start) + static_cast<uintptr_t>(bytes) - first, MADV_WILLNEED);
}

}  // namespace dlrm
