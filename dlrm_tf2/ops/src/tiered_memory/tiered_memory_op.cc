// TensorFlow's ops for tables that are larger than memory: a tensor whose first bytes are in memory and whose other bytes
// are in a file, and the request to fetch rows of such a table before they are read.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <string>
#include <vector>

#include "tensorflow/core/framework/allocation_description.pb.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace {

using absl::Status;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::errors::ResourceExhausted;

constexpr size_t kLargePage = 2 << 20;

size_t round_up(size_t bytes, size_t page) { return (bytes + page - 1) / page * page; }

// Zeros in one range of addresses: [0, in_memory) in memory, the rest in a file without a name, which is gone with the
// process however it ends. Pages of the file that are in use are in the system's page cache, as far as it has room.
class TieredMemory : public tensorflow::TensorBuffer {
 public:
  // On success *made has one reference.
  static Status make(size_t bytes, size_t in_memory, const std::string& folder, TieredMemory** made) {
    const size_t size = round_up(std::max<size_t>(bytes, 1), kLargePage);
    void* const mapped = mmap(nullptr, size + kLargePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) return failed(bytes, "addresses");
    char* const start = reinterpret_cast<char*>(round_up(reinterpret_cast<uintptr_t>(mapped), kLargePage));
    auto* const memory = new TieredMemory(start, bytes, mapped, size + kLargePage);
    const Status status = memory->fill_in(size, in_memory >= bytes ? size : in_memory / kLargePage * kLargePage, folder);
    if (!status.ok()) {
      memory->Unref();
      return status;
    }
    *made = memory;
    return Status();
  }

  size_t size() const override { return bytes_; }
  TensorBuffer* root_buffer() override { return this; }
  void FillAllocationDescription(tensorflow::AllocationDescription* description) const override {
    description->set_requested_bytes(static_cast<int64_t>(bytes_));
    description->set_allocator_name("dlrm_tiered");
  }

 private:
  TieredMemory(void* data, size_t bytes, void* mapped, size_t mapped_bytes)
      : TensorBuffer(data), bytes_(bytes), mapped_(mapped), mapped_bytes_(mapped_bytes) {}
  ~TieredMemory() override { munmap(mapped_, mapped_bytes_); }

  static Status failed(size_t bytes, const std::string& of_what) {
    return ResourceExhausted("tiered memory: no ", of_what, " for ", bytes, " bytes: ", strerror(errno), ".");
  }

  Status fill_in(size_t size, size_t in_memory, const std::string& folder) {
    char* const start = static_cast<char*>(data());
    const int access = PROT_READ | PROT_WRITE;
    if (in_memory > 0) {
      if (mprotect(start, in_memory, access) != 0) return failed(in_memory, "memory");
      madvise(start, in_memory, MADV_HUGEPAGE);
    }
    if (in_memory == size) return Status();
    const int file = nameless_file(folder);
    if (file < 0) return failed(size - in_memory, "file in " + folder);
    // The disk is taken now: a write to a page that the disk has no room for would end the process.
    struct statvfs disk = {};
    const bool has_room = fstatvfs(file, &disk) != 0 || disk.f_bavail * disk.f_frsize >= size - in_memory;
    errno = has_room ? posix_fallocate(file, 0, static_cast<off_t>(size - in_memory)) : ENOSPC;
    void* const at = errno == 0 ? mmap(start + in_memory, size - in_memory, access, MAP_SHARED | MAP_FIXED, file, 0) : MAP_FAILED;
    const Status status = at == MAP_FAILED ? failed(size - in_memory, "room in " + folder) : Status();
    close(file);
    if (status.ok()) madvise(start + in_memory, size - in_memory, MADV_RANDOM);  // the pages around a row are others' rows
    return status;
  }

  static int nameless_file(const std::string& folder) {
    const int file = open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (file >= 0 || (errno != EOPNOTSUPP && errno != EISDIR)) return file;
    std::string name = folder + "/.dlrm_tiered_XXXXXX";  // a file system that makes no file without a name
    const int named = mkostemp(name.data(), O_CLOEXEC);
    if (named >= 0) unlink(name.c_str());
    return named;
  }

  const size_t bytes_;
  void* const mapped_;
  const size_t mapped_bytes_;
};

REGISTER_OP("DlrmTieredMemory")
    .Output("output: T")
    .Attr("shape: shape")
    .Attr("bytes_in_memory: int >= 0")
    .Attr("folder: string")
    .Attr("T: {float, uint16, double}")
    .SetIsStateful()
    .SetShapeFn(tensorflow::shape_inference::ExplicitShape);

class MakeTieredMemory : public OpKernel {
 public:
  explicit MakeTieredMemory(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("shape", &shape_));
    OP_REQUIRES_OK(context, context->GetAttr("bytes_in_memory", &bytes_in_memory_));
    OP_REQUIRES_OK(context, context->GetAttr("folder", &folder_));
    OP_REQUIRES_OK(context, context->GetAttr("T", &type_));
  }

  void Compute(OpKernelContext* context) override {
    const size_t bytes = static_cast<size_t>(shape_.num_elements()) * tensorflow::DataTypeSize(type_);
    TieredMemory* memory = nullptr;
    OP_REQUIRES_OK(context, TieredMemory::make(bytes, static_cast<size_t>(bytes_in_memory_), folder_, &memory));
    const Tensor tensor(type_, shape_, memory);
    memory->Unref();  // the tensor has its own reference
    context->set_output(0, tensor);
  }

 private:
  TensorShape shape_;
  int64_t bytes_in_memory_ = 0;
  std::string folder_;
  tensorflow::DataType type_ = tensorflow::DT_INVALID;
};
REGISTER_KERNEL_BUILDER(Name("DlrmTieredMemory").Device(tensorflow::DEVICE_CPU), MakeTieredMemory);

// A table for requests. A resource of its own, so that TensorFlow orders no request after an update of the table.
class TieredRows : public tensorflow::ResourceBase {
 public:
  explicit TieredRows(tensorflow::core::RefCountPtr<tensorflow::Var> table) : table(std::move(table)) {}
  std::string DebugString() const override { return "tiered rows"; }

  const tensorflow::core::RefCountPtr<tensorflow::Var> table;
  std::mutex mutex;
  std::vector<bool> asked_ahead;  // for each page of the table, from the first on; empty until one is asked for ahead
};

REGISTER_OP("DlrmTieredRows")
    .Input("table: resource")
    .Output("tiered: resource")
    .SetIsStateful()
    .SetShapeFn(tensorflow::shape_inference::ScalarShape);

class MakeTieredRows : public OpKernel {
 public:
  explicit MakeTieredRows(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    tensorflow::core::RefCountPtr<tensorflow::Var> table;
    OP_REQUIRES_OK(context, tensorflow::LookupResource(context, tensorflow::HandleFromInput(context, 0), &table));
    OP_REQUIRES(context, table->tensor()->dims() == 2, tensorflow::errors::InvalidArgument("table: expected a matrix."));
    Tensor* output = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({}), &output));
    output->scalar<tensorflow::ResourceHandle>()() = tensorflow::ResourceHandle::MakeRefCountingHandle(
        new TieredRows(std::move(table)), context->device()->name());
  }
};
REGISTER_KERNEL_BUILDER(Name("DlrmTieredRows").Device(tensorflow::DEVICE_CPU), MakeTieredRows);

REGISTER_OP("DlrmFetchRows")
    .Input("tiered: resource")
    .Input("rows: int64")
    .Attr("ahead: bool")
    .SetIsStateful()
    .SetShapeFn(tensorflow::shape_inference::NoOutputs);

// Asks the system for the pages of rows, all at once and without waiting; a row that is read before its page is there
// waits for this page only. A page that was asked for ahead is not asked for again when it is read.
class FetchRows : public OpKernel {
 public:
  explicit FetchRows(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("ahead", &ahead_));
  }

  void Compute(OpKernelContext* context) override {
    tensorflow::core::RefCountPtr<TieredRows> tiered;
    OP_REQUIRES_OK(context, tensorflow::LookupResource(context, tensorflow::HandleFromInput(context, 0), &tiered));
    const Tensor& rows = context->input(1);
    const Tensor& table = *tiered->table->tensor();  // without its lock: updates write in place, and move no table
    const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const int64_t row_bytes = table.dim_size(1) * tensorflow::DataTypeSize(table.dtype());
    const auto first = reinterpret_cast<uintptr_t>(table.tensor_data().data());
    const int64_t* const numbers = static_cast<const int64_t*>(rows.data());
    std::vector<uintptr_t> pages;
    for (int64_t i = 0; i < rows.NumElements(); ++i) {
      if (numbers[i] < 0 || numbers[i] >= table.dim_size(0)) continue;
      const uintptr_t start = first + static_cast<uintptr_t>(numbers[i] * row_bytes);
      for (uintptr_t at = start / page; at <= (start + static_cast<uintptr_t>(row_bytes) - 1) / page; ++at) {
        pages.push_back(at);
      }
    }
    std::sort(pages.begin(), pages.end());
    pages.erase(std::unique(pages.begin(), pages.end()), pages.end());
    note(*tiered, table, page, &pages);
    for (size_t i = 0; i < pages.size();) {
      size_t next = i + 1;
      while (next < pages.size() && pages[next] == pages[next - 1] + 1) ++next;
      madvise(reinterpret_cast<void*>(pages[i] * page), (next - i) * page, MADV_WILLNEED);
      i = next;
    }
  }

 private:
  // Notes the pages that are asked for ahead; else takes those out that were.
  void note(TieredRows& tiered, const Tensor& table, uintptr_t page, std::vector<uintptr_t>* pages) const {
    const auto first = reinterpret_cast<uintptr_t>(table.data()) / page;
    std::lock_guard<std::mutex> lock(tiered.mutex);
    std::vector<bool>& asked = tiered.asked_ahead;
    if (ahead_) {
      asked.resize(table.TotalBytes() / page + 2);
      for (const uintptr_t one : *pages) asked[one - first] = true;
    } else if (!asked.empty()) {
      const auto was_asked = [&](uintptr_t one) {
        const bool found = asked[one - first];
        asked[one - first] = false;
        return found;
      };
      pages->erase(std::remove_if(pages->begin(), pages->end(), was_asked), pages->end());
    }
  }

  bool ahead_ = false;
};
REGISTER_KERNEL_BUILDER(Name("DlrmFetchRows").Device(tensorflow::DEVICE_CPU), FetchRows);

}  // namespace
