// TensorFlow's ops around a cache of rows: making one, moving the rows of a batch into memory, asking for rows.
#include <string.h>

#include "row_cache_resource.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"
#include "tensors.h"

namespace dlrm {
namespace {

REGISTER_OP("DlrmRowCache")
    .Input("file: resource")  // [rows, bytes of a record]
    .Output("cache: resource")
    .Attr("table: string")  // of the table, for errors
    .Attr("first_slot: int >= 0")  // row of the slab
    .Attr("num_slots: int >= 1")
    .SetIsStateful()
    .SetShapeFn(tensorflow::shape_inference::ScalarShape);

// Makes a cache, which lives as long as somebody holds the output.
class MakeRowCache : public OpKernel {
 public:
  explicit MakeRowCache(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("table", &name_));
    OP_REQUIRES_OK(context, context->GetAttr("first_slot", &first_slot_));
    OP_REQUIRES_OK(context, context->GetAttr("num_slots", &num_slots_));
  }

  void Compute(OpKernelContext* context) override {
    RefCountPtr<Var> file;
    OP_REQUIRES_OK(context, LookupResource(context, tensorflow::HandleFromInput(context, 0), &file));
    const int64_t num_rows = file->tensor()->dim_size(0);
    OP_REQUIRES(context, num_slots_ < INT32_MAX && num_slots_ <= num_rows,
                InvalidArgument("cache of rows: ", num_slots_, " slots for ", num_rows, " rows."));
    auto* const cache = new CacheResource(std::move(file), num_rows, first_slot_, num_slots_, name_);
    const ResourceHandle handle = ResourceHandle::MakeRefCountingHandle(cache, context->device()->name());
    OP_REQUIRES(context, cache->cache.has_memory(),
                tensorflow::errors::ResourceExhausted("cache of rows: there is no memory for ", num_rows, " rows."));
    Tensor* output = nullptr;
    OP_REQUIRES_OK(context, context->allocate_output(0, TensorShape({}), &output));
    output->scalar<ResourceHandle>()() = handle;
  }

 private:
  std::string name_;
  int64_t first_slot_ = 0, num_slots_ = 0;
};
REGISTER_KERNEL_BUILDER(Name("DlrmRowCache").Device(DEVICE_CPU), MakeRowCache);

REGISTER_OP("DlrmRowCachePlace")
    .Input("cache: resource")
    .Input("variables: num_variables * resource")
    .Input("rows: int64")
    .Input("fresh: int64")
    .Output("slots: int64")
    .Output("fresh_slots: int64")
    .Attr("num_variables: int >= 1")
    .Attr("default_row: int")
    .Attr("written: bool")
    .SetIsStateful()
    .SetShapeFn([](tensorflow::shape_inference::InferenceContext* c) -> Status {
      c->set_output(0, c->input(c->num_inputs() - 2));
      c->set_output(1, c->input(c->num_inputs() - 1));
      return Status();
    });

// Moves the rows of a batch into memory, on all threads, and says where they are: rows of the slab.
class PlaceRows : public OpKernel {
 public:
  explicit PlaceRows(OpKernelConstruction* context) : OpKernel(context) {
    OP_REQUIRES_OK(context, context->GetAttr("default_row", &default_row_));
    OP_REQUIRES_OK(context, context->GetAttr("written", &written_));
  }

  void Compute(OpKernelContext* context) override {
    RefCountPtr<CacheResource> cache;
    OP_REQUIRES_OK(context, find_cache(context, &cache));
    const Tensor &rows = context->input(context->num_inputs() - 2), &fresh = context->input(context->num_inputs() - 1);
    OP_REQUIRES_OK(context, cache->check_rows(rows));
    OP_REQUIRES_OK(context, cache->check_rows(fresh));
    std::lock_guard<std::mutex> lock(cache->mutex);
    std::vector<Array> arrays;
    OP_REQUIRES_OK(context, cache->arrays(context, &arrays));
    std::vector<RowMove> moves;
    const int64_t different = cache->cache.place(rows.flat<int64_t>().data(), rows.NumElements(), fresh.flat<int64_t>().data(),
                                                 fresh.NumElements(), written_, &moves);
    OP_REQUIRES(context, different <= cache->cache.num_slots(), too_large(*cache, arrays, different));
    move_rows(context, *cache, arrays, moves);
    OP_REQUIRES_OK(context, write_slots(context, *cache, rows, 0));
    OP_REQUIRES_OK(context, write_slots(context, *cache, fresh, 1));
  }

 private:
  static Status too_large(const CacheResource& cache, const std::vector<Array>& arrays, int64_t different) {
    const int64_t bytes = arrays.back().in_record + arrays.back().row_bytes;
    return tensorflow::errors::ResourceExhausted(
        "table ", cache.name, ": a batch has ", different, " different rows, ", different * bytes,
        " bytes with their state; the cache has room for ", cache.cache.num_slots(), " rows, ", cache.cache.num_slots() * bytes,
        " bytes. Give the tables a larger part of memory (hbm_for_embeddings), or make the batch smaller.");
  }

  static void move_rows(OpKernelContext* context, const CacheResource& cache, const std::vector<Array>& arrays,
                        const std::vector<RowMove>& moves) {
    constexpr int64_t kMovesEach = 64;
    const auto move_some = [&](int64_t task) {
      const int64_t first = task * kMovesEach, last = std::min<int64_t>(first + kMovesEach, moves.size());
      for (int64_t i = first; i < last; ++i) {  // so that a disk works on all of them at a time
        if (moves[i].comes >= 0 && !moves[i].asked) ask_for(cache.record(moves[i].comes), cache.record_bytes);
        if (moves[i].leaves >= 0) ask_for(cache.record(moves[i].leaves), cache.record_bytes);
      }
      for (int64_t i = first; i < last; ++i) {
        for (const Array& array : arrays) {
          char* const slot = array.slots + moves[i].slot * array.row_bytes;
          const auto bytes = static_cast<size_t>(array.row_bytes);
          if (moves[i].leaves >= 0) memcpy(cache.record(moves[i].leaves) + array.in_record, slot, bytes);
          if (moves[i].comes >= 0) memcpy(slot, cache.record(moves[i].comes) + array.in_record, bytes);
        }
      }
    };
    in_parallel_tasks(context, (static_cast<int64_t>(moves.size()) + kMovesEach - 1) / kMovesEach, move_some);
  }

  template <class Run>
  static void in_parallel_tasks(OpKernelContext* context, int64_t count, const Run& run) {
    if (count == 0) return;
    const DlrmTask task = [](void* state, int64_t index) { (*static_cast<const Run*>(state))(index); };
    in_pool(context->device()->tensorflow_cpu_worker_threads()->workers, count, task, const_cast<Run*>(&run));
  }

  Status write_slots(OpKernelContext* context, const CacheResource& cache, const Tensor& rows, int number) const {
    Tensor* output = nullptr;
    TF_RETURN_IF_ERROR(context->allocate_output(number, rows.shape(), &output));
    const int64_t* const row = rows.flat<int64_t>().data();
    int64_t* const slot = output->flat<int64_t>().data();
    for (int64_t i = 0; i < rows.NumElements(); ++i) {
      slot[i] = row[i] < 0 ? default_row_ : cache.first_slot + cache.cache.slot(row[i]);
    }
    return Status();
  }

  int64_t default_row_ = 0;
  bool written_ = false;
};
REGISTER_KERNEL_BUILDER(Name("DlrmRowCachePlace").Device(DEVICE_CPU), PlaceRows);

REGISTER_OP("DlrmRowCacheAsk")
    .Input("cache: resource")
    .Input("rows: int64")
    .SetIsStateful()
    .SetShapeFn(tensorflow::shape_inference::NoOutputs);

// Asks the system for the rows that are not in memory, and for the places of rows that will leave. No variable is an
// input, so that it may run during an update.
class AskForRows : public OpKernel {
 public:
  explicit AskForRows(OpKernelConstruction* context) : OpKernel(context) {}

  void Compute(OpKernelContext* context) override {
    RefCountPtr<CacheResource> cache;
    OP_REQUIRES_OK(context, find_cache(context, &cache));
    const Tensor& rows = context->input(1);
    OP_REQUIRES_OK(context, cache->check_rows(rows));
    std::vector<int64_t> asked;
    std::lock_guard<std::mutex> lock(cache->mutex);
    for (int64_t i = 0; i < rows.NumElements(); ++i) {
      const int64_t row = rows.flat<int64_t>()(i);
      if (row >= 0 && cache->cache.ask(row)) asked.push_back(row);
    }
    cache->cache.append_leaving(static_cast<int64_t>(asked.size()), &asked);  // a part of a page is read, then written
    std::sort(asked.begin(), asked.end());
    for (size_t i = 0; i < asked.size();) {
      size_t next = i + 1;
      while (next < asked.size() && asked[next] == asked[next - 1] + 1) ++next;
      ask_for(cache->record(asked[i]), static_cast<int64_t>(next - i) * cache->record_bytes);
      i = next;
    }
  }
};
REGISTER_KERNEL_BUILDER(Name("DlrmRowCacheAsk").Device(DEVICE_CPU), AskForRows);

}  // namespace
}  // namespace dlrm
