// TensorFlow's ops that load, erase and list what a key index in a GPU's memory has. Lists wait for the GPU, which alone
// knows how long they are; lists of admission and of erased keys are in the host's memory.
#include "key_hash.h"
#include "key_index_gpu_call.h"

namespace dlrm {
namespace {

#define DLRM_GPU_INDEX_OP(Class, REGISTRATION)                                                        \
  class Class : public GpuIndexOp {                                                                   \
   public:                                                                                            \
    using GpuIndexOp::GpuIndexOp;                                                                     \
                                                                                                      \
   private:                                                                                           \
    Status run(OpKernelContext* context, GpuIndexResource* resource, GpuCall* call) override;         \
  };                                                                                                  \
  REGISTER_KERNEL_BUILDER(DLRM_ON_GPU("DlrmKeyIndex" #Class).HostMemory("index") REGISTRATION, Class); \
  Status Class::run([[maybe_unused]] OpKernelContext* context, [[maybe_unused]] GpuIndexResource* resource, GpuCall* call)

DLRM_GPU_INDEX_OP(Assign, ) {
  const Tensor *keys, *scores, *steps;
  TF_RETURN_IF_ERROR(read_numbers(context, "keys", &keys));
  TF_RETURN_IF_ERROR(read_for_keys(context, "scores", *keys, &scores));
  TF_RETURN_IF_ERROR(read_for_keys(context, "steps", *keys, &steps));
  const int64_t count = keys->NumElements();
  int64_t *rows, *evicted;
  TF_RETURN_IF_ERROR(make_numbers(context, 0, count, &rows));
  TF_RETURN_IF_ERROR(call->begin(count));
  TF_RETURN_IF_ERROR(index_status(dlrm_index_assign_cuda(call->index(), numbers_of(*keys), count, numbers_of(*scores),
                                                         numbers_of(*steps), rows, call->arguments())));
  DlrmIndexOutcome outcome;
  TF_RETURN_IF_ERROR(call->wait(&outcome));
  if (!resource->index.rules.log_erased || outcome.changes.evicted == 0) return Status();
  TF_RETURN_IF_ERROR(call->make_list(outcome.changes.evicted, &evicted));
  int64_t* const lists[4] = {evicted, nullptr, nullptr, nullptr};
  TF_RETURN_IF_ERROR(index_status(dlrm_index_evicted_cuda(call->index(), count, lists, call->arguments())));
  return call->note_erased(evicted, outcome.changes.evicted);
}

DLRM_GPU_INDEX_OP(Erase, ) {
  const Tensor* keys;
  TF_RETURN_IF_ERROR(read_numbers(context, "keys", &keys));
  Tensor* output = nullptr;
  TF_RETURN_IF_ERROR(context->allocate_output(0, keys->shape(), &output));
  const int64_t count = keys->NumElements();
  auto* const was_stored = static_cast<unsigned char*>(output->data());
  TF_RETURN_IF_ERROR(call->begin(count));
  TF_RETURN_IF_ERROR(index_status(
      dlrm_index_erase_cuda(call->index(), numbers_of(*keys), count, was_stored, call->arguments())));
  DlrmIndexOutcome outcome;
  TF_RETURN_IF_ERROR(call->wait(&outcome));
  if (!resource->index.rules.log_erased || count == 0) return Status();
  std::vector<int64_t> key(static_cast<size_t>(count));
  std::vector<unsigned char> stored(key.size());
  TF_RETURN_IF_ERROR(call->read(numbers_of(*keys), count * 8, key.data()));
  TF_RETURN_IF_ERROR(call->read(was_stored, count, stored.data()));
  for (size_t i = 0; i < key.size(); ++i) {
    if (stored[i]) resource->erased.push_back({key[i], resource->step});
  }
  return Status();
}

// Makes the lists of selected rows as outputs; fields says which and in which order, as in the op of the CPU, and a capital
// letter stands for a list that is no output.
Status output_selected(OpKernelContext* context, GpuCall* call, const DlrmIndexSelection& of, const char* fields,
                       int64_t* (&lists)[4], DlrmIndexOutcome* outcome) {
  TF_RETURN_IF_ERROR(call->begin(0));
  TF_RETURN_IF_ERROR(index_status(dlrm_index_count_cuda(call->index(), of, call->arguments())));
  TF_RETURN_IF_ERROR(call->wait(outcome));
  const std::string order = "krstKRST";
  int output = 0;
  for (const char* field = fields; *field != 0; ++field) {
    const size_t number = order.find(*field);
    if (number < 4) TF_RETURN_IF_ERROR(make_numbers(context, output++, outcome->listed, &lists[number]));
    else TF_RETURN_IF_ERROR(call->make_list(outcome->listed, &lists[number - 4]));
  }
  return index_status(dlrm_index_list_cuda(call->index(), of, lists, call->arguments()));
}

DLRM_GPU_INDEX_OP(Expire, .HostMemory("before_step")) {
  int64_t before_step, *lists[4] = {};
  DlrmIndexOutcome outcome;
  TF_RETURN_IF_ERROR(read_number(context, "before_step", &before_step));
  const DlrmIndexSelection old = {0, INT64_MAX, before_step, 0};
  TF_RETURN_IF_ERROR(output_selected(context, call, old, "rK", lists, &outcome));
  TF_RETURN_IF_ERROR(index_status(dlrm_index_expire_cuda(call->index(), before_step, call->arguments())));
  return call->note_erased(lists[0], outcome.listed);
}

DLRM_GPU_INDEX_OP(Clear, ) {
  resource->erased.clear();
  return index_status(dlrm_index_clear_cuda(call->index(), stream_of(context)));
}

DLRM_GPU_INDEX_OP(Size, ) {
  Tensor* size = nullptr;
  TF_RETURN_IF_ERROR(context->allocate_output(0, TensorShape({}), &size));
  return index_status(dlrm_index_size_cuda(call->index(), size->flat<int64_t>().data(), stream_of(context)));
}

DLRM_GPU_INDEX_OP(Counters, ) {
  int64_t* counters;
  TF_RETURN_IF_ERROR(make_numbers(context, 0, sizeof(DlrmIndexCounters) / 8, &counters));
  return index_status(dlrm_index_counters_cuda(call->index(), counters, stream_of(context)));
}

DLRM_GPU_INDEX_OP(Export, .HostMemory("first_row").HostMemory("num_rows")) {
  int64_t first_row, num_rows, *lists[4] = {};
  TF_RETURN_IF_ERROR(read_number(context, "first_row", &first_row));
  TF_RETURN_IF_ERROR(read_number(context, "num_rows", &num_rows));
  const int64_t all_rows = resource->index.buckets.num_buckets * resource->index.buckets.rows_per_bucket;
  if (first_row < 0 || num_rows < 0 || first_row > all_rows || num_rows > all_rows - first_row) {
    return InvalidArgument("export_batch: found ", num_rows, " rows from row ", first_row, " on, expected rows from 0 to ",
                           all_rows - 1, ", which the table has.");
  }
  DlrmIndexOutcome outcome;
  return output_selected(context, call, {first_row, num_rows, INT64_MAX, 0}, "krst", lists, &outcome);
}

// ---- admission: lists in the host's memory -----------------------------------------------------------------------------

struct SketchOnHost {
  std::vector<uint16_t> cells;
  uint16_t* on_gpu = nullptr;
  int64_t first = 0;

  Status read(GpuCall* call) {
    int64_t count = 0;
    TF_RETURN_IF_ERROR(index_status(dlrm_index_sketch_cuda(call->index(), &on_gpu, &count, &first)));
    cells.resize(static_cast<size_t>(count));
    return call->read(on_gpu, count * 2, cells.data());
  }
};

DLRM_GPU_INDEX_OP(ExportCounts, .HostMemory("keys").HostMemory("counts")) {
  std::vector<int64_t> listed[2];
  TF_RETURN_IF_ERROR(call->begin(0));
  const DlrmIndexRules& rules = resource->index.rules;
  if (rules.admit_after > 1 && rules.counter == DLRM_COUNT_SKETCH) {
    SketchOnHost sketch;
    TF_RETURN_IF_ERROR(sketch.read(call));
    for (size_t i = 0; i < sketch.cells.size(); ++i) {
      if (sketch.cells[i] == 0) continue;
      listed[0].push_back(sketch.first + static_cast<int64_t>(i));
      listed[1].push_back(sketch.cells[i]);
    }
  } else if (rules.admit_after > 1) {
    DlrmIndexOutcome outcome;
    int64_t* lists[4] = {};
    TF_RETURN_IF_ERROR(output_selected(context, call, {0, INT64_MAX, INT64_MAX, 1}, "KS", lists, &outcome));
    for (int i = 0; i < 2; ++i) {
      listed[i].resize(static_cast<size_t>(outcome.listed));
      TF_RETURN_IF_ERROR(call->read(lists[2 * i], outcome.listed * 8, listed[i].data()));
    }
  }
  for (int i = 0; i < 2; ++i) {
    int64_t* numbers;
    TF_RETURN_IF_ERROR(make_numbers(context, i, static_cast<int64_t>(listed[i].size()), &numbers));
    std::copy(listed[i].begin(), listed[i].end(), numbers);
  }
  return Status();
}

// The counts that belong here, in the order of the call. An error where one is out of range.
Status counts_for(const GpuIndexResource& resource, const Tensor& keys, const Tensor& counts, int64_t cells_of_table,
                  std::vector<std::pair<int64_t, int64_t>>* here) {
  const bool is_sketch = resource.index.rules.counter == DLRM_COUNT_SKETCH;
  const DlrmIndexBuckets& buckets = resource.index.buckets;
  for (int64_t i = 0; i < keys.NumElements(); ++i) {
    const int64_t key = numbers_of(keys)[i], count = numbers_of(counts)[i];
    if (count < 0 || (is_sketch && (count > UINT16_MAX || key < 0 || key >= cells_of_table))) {
      return InvalidArgument("assign_admission: the count of ", key,
                             " is out of range, or this is not a cell of the sketch; counts must come from an index with "
                             "the same rules.");
    }
    const int64_t bucket = is_sketch ? key / (cells_of_table / buckets.num_buckets)
                                     : bucket_of(hash_of(key), buckets.num_buckets);
    if (bucket >= buckets.first_bucket && bucket < buckets.last_bucket) here->push_back({key, count});
  }
  return Status();
}

DLRM_GPU_INDEX_OP(AssignCounts, .HostMemory("keys").HostMemory("counts")) {
  const Tensor *keys, *counts;
  TF_RETURN_IF_ERROR(read_numbers(context, "keys", &keys));
  TF_RETURN_IF_ERROR(read_for_keys(context, "counts", *keys, &counts));
  if (keys->NumElements() == 0) return Status();
  const DlrmIndexRules& rules = resource->index.rules;
  if (rules.admit_after == 1) {
    return InvalidArgument("assign_admission: found counts for an index that counts no keys; its admit_after is 1.");
  }
  SketchOnHost sketch;
  TF_RETURN_IF_ERROR(call->begin(keys->NumElements()));
  int64_t cells_of_table = 0;
  if (rules.counter == DLRM_COUNT_SKETCH) {
    TF_RETURN_IF_ERROR(sketch.read(call));
    const DlrmIndexBuckets& b = resource->index.buckets;
    cells_of_table = b.first_bucket == b.last_bucket ? INT64_MAX
                                                     : static_cast<int64_t>(sketch.cells.size()) /
                                                           (b.last_bucket - b.first_bucket) * b.num_buckets;
  }
  std::vector<std::pair<int64_t, int64_t>> here;
  TF_RETURN_IF_ERROR(counts_for(*resource, *keys, *counts, cells_of_table, &here));
  const int64_t count = static_cast<int64_t>(here.size());
  if (rules.counter == DLRM_COUNT_SKETCH) {
    for (const auto& [cell, value] : here) sketch.cells[static_cast<size_t>(cell - sketch.first)] = static_cast<uint16_t>(value);
    return call->write(sketch.cells.data(), static_cast<int64_t>(sketch.cells.size()) * 2, sketch.on_gpu);
  }
  std::vector<int64_t> columns[2];
  for (const auto& [key, value] : here) columns[0].push_back(key), columns[1].push_back(value);
  int64_t* on_gpu[2];
  for (int i = 0; i < 2; ++i) {
    TF_RETURN_IF_ERROR(call->make_list(count, &on_gpu[i]));
    TF_RETURN_IF_ERROR(call->write(columns[i].data(), count * 8, on_gpu[i]));
  }
  return index_status(dlrm_index_assign_counts_cuda(call->index(), on_gpu[0], count, on_gpu[1], call->arguments()));
}

// ---- the log, in the host's memory -------------------------------------------------------------------------------------

DLRM_GPU_INDEX_OP(Erased, .HostMemory("since_step").HostMemory("keys").HostMemory("steps")) {
  int64_t since_step, *keys, *steps;
  TF_RETURN_IF_ERROR(read_number(context, "since_step", &since_step));
  std::vector<std::pair<int64_t, int64_t>> listed;
  for (const auto& entry : resource->erased) {
    if (entry.second >= since_step) listed.push_back(entry);
  }
  TF_RETURN_IF_ERROR(make_numbers(context, 0, static_cast<int64_t>(listed.size()), &keys));
  TF_RETURN_IF_ERROR(make_numbers(context, 1, static_cast<int64_t>(listed.size()), &steps));
  for (const auto& [key, step] : listed) *keys++ = key, *steps++ = step;
  return Status();
}

DLRM_GPU_INDEX_OP(TrimErased, .HostMemory("before_step")) {
  int64_t before_step;
  TF_RETURN_IF_ERROR(read_number(context, "before_step", &before_step));
  auto& erased = resource->erased;
  const auto old = [=](const auto& entry) { return entry.second < before_step; };
  erased.erase(std::remove_if(erased.begin(), erased.end(), old), erased.end());
  return Status();
}

}  // namespace
}  // namespace dlrm
