// TensorFlow's ops that load, erase and list what a key index has. No arithmetic in here.
#include "key_index_call.h"

namespace dlrm {
namespace {

// Registers an op whose class is written as a function of (context, resource).
#define DLRM_KEY_INDEX_OP(Class)                                                                     \
  class Class : public KeyIndexOp {                                                                  \
   public:                                                                                           \
    using KeyIndexOp::KeyIndexOp;                                                                    \
                                                                                                     \
   private:                                                                                          \
    Status run(OpKernelContext* context, const KeyIndexResource& resource) override;                 \
  };                                                                                                 \
  REGISTER_KERNEL_BUILDER(Name("DlrmKeyIndex" #Class).Device(DEVICE_CPU), Class);                    \
  Status Class::run([[maybe_unused]] OpKernelContext* context, const KeyIndexResource& resource)

// The lists of the last call as outputs; kFields says which and in which order: k(eys), r(ows), s(cores), t (steps).
Status output_listed(OpKernelContext* context, const KeyIndexResource& resource, const char* fields, int64_t count) {
  int64_t* lists[4] = {};
  const std::string order = "krst";
  for (int i = 0; fields[i] != 0; ++i) {
    TF_RETURN_IF_ERROR(make_numbers(context, i, count, &lists[order.find(fields[i])]));
  }
  dlrm_index_listed(resource.index, lists[0], lists[1], lists[2], lists[3]);
  return Status();
}

REGISTER_OP("DlrmKeyIndexAssign")
    .Input("index: resource")
    .Input("keys: int64")
    .Input("scores: int64")
    .Input("steps: int64")
    .Output("rows: int64")
    .SetIsStateful()
    .SetShapeFn(rows_for_keys);

DLRM_KEY_INDEX_OP(Assign) {
  const Tensor *keys, *scores, *steps;
  TF_RETURN_IF_ERROR(read_numbers(context, "keys", &keys));
  TF_RETURN_IF_ERROR(read_for_keys(context, "scores", *keys, &scores));
  TF_RETURN_IF_ERROR(read_for_keys(context, "steps", *keys, &steps));
  const auto& pool = *context->device()->tensorflow_cpu_worker_threads();
  int64_t *rows, bad_key = 0;
  TF_RETURN_IF_ERROR(make_numbers(context, 0, keys->NumElements(), &rows));
  const int code = dlrm_index_assign(resource.index, numbers_of(*keys), keys->NumElements(), numbers_of(*scores),
                                     numbers_of(*steps), rows, in_pool, pool.workers, pool.num_threads, &bad_key);
  return result_of(code, resource, bad_key);
}

REGISTER_OP("DlrmKeyIndexErase")
    .Input("index: resource")
    .Input("keys: int64")
    .Output("was_stored: bool")
    .SetIsStateful()
    .SetShapeFn(rows_for_keys);

DLRM_KEY_INDEX_OP(Erase) {
  const Tensor* keys;
  TF_RETURN_IF_ERROR(read_numbers(context, "keys", &keys));
  Tensor* output = nullptr;
  TF_RETURN_IF_ERROR(context->allocate_output(0, keys->shape(), &output));
  static_assert(sizeof(bool) == 1, "written as bytes");
  auto* const was_stored = reinterpret_cast<unsigned char*>(output->flat<bool>().data());
  const auto& pool = *context->device()->tensorflow_cpu_worker_threads();
  int64_t bad_key = 0;
  const int code = dlrm_index_erase(resource.index, numbers_of(*keys), keys->NumElements(), was_stored, in_pool,
                                    pool.workers, pool.num_threads, &bad_key);
  return result_of(code, resource, bad_key);
}

REGISTER_OP("DlrmKeyIndexExpire")
    .Input("index: resource")
    .Input("before_step: int64")
    .Output("rows: int64")
    .SetIsStateful()
    .SetShapeFn(lists);

DLRM_KEY_INDEX_OP(Expire) {
  int64_t before_step;
  TF_RETURN_IF_ERROR(read_number(context, "before_step", &before_step));
  auto* const pool = context->device()->tensorflow_cpu_worker_threads()->workers;
  return output_listed(context, resource, "r", dlrm_index_expire(resource.index, before_step, in_pool, pool));
}

REGISTER_OP("DlrmKeyIndexClear").Input("index: resource").SetIsStateful().SetShapeFn(lists);

DLRM_KEY_INDEX_OP(Clear) { return result_of(dlrm_index_clear(resource.index), resource, 0); }

REGISTER_OP("DlrmKeyIndexSize")
    .Input("index: resource")
    .Output("size: int64")
    .SetIsStateful()
    .SetShapeFn(tensorflow::shape_inference::ScalarShape);

DLRM_KEY_INDEX_OP(Size) {
  Tensor* size = nullptr;
  TF_RETURN_IF_ERROR(context->allocate_output(0, TensorShape({}), &size));
  size->scalar<int64_t>()() = dlrm_index_size(resource.index);
  return Status();
}

REGISTER_OP("DlrmKeyIndexCounters")
    .Input("index: resource")
    .Output("counters: int64")  // the fields of DlrmIndexCounters
    .SetIsStateful()
    .SetShapeFn(lists);

DLRM_KEY_INDEX_OP(Counters) {
  DlrmIndexCounters counters;
  dlrm_index_counters(resource.index, &counters);
  int64_t* numbers;
  TF_RETURN_IF_ERROR(make_numbers(context, 0, sizeof counters / sizeof *numbers, &numbers));
  memcpy(numbers, &counters, sizeof counters);
  return Status();
}

REGISTER_OP("DlrmKeyIndexExport")
    .Input("index: resource")
    .Input("first_row: int64")
    .Input("num_rows: int64")
    .Output("keys: int64")
    .Output("rows: int64")
    .Output("scores: int64")
    .Output("steps: int64")
    .SetIsStateful()
    .SetShapeFn(lists);

DLRM_KEY_INDEX_OP(Export) {
  int64_t first_row, num_rows;
  TF_RETURN_IF_ERROR(read_number(context, "first_row", &first_row));
  TF_RETURN_IF_ERROR(read_number(context, "num_rows", &num_rows));
  const int64_t all_rows = resource.buckets.num_buckets * resource.buckets.rows_per_bucket;
  if (first_row < 0 || num_rows < 0 || first_row > all_rows || num_rows > all_rows - first_row) {
    return InvalidArgument("export_batch: found ", num_rows, " rows from row ", first_row, " on, expected rows from 0 to ",
                           all_rows - 1, ", which the table has.");
  }
  return output_listed(context, resource, "krst", dlrm_index_export(resource.index, first_row, num_rows));
}

REGISTER_OP("DlrmKeyIndexExportCounts")
    .Input("index: resource")
    .Output("keys: int64")
    .Output("counts: int64")
    .SetIsStateful()
    .SetShapeFn(lists);

DLRM_KEY_INDEX_OP(ExportCounts) {
  return output_listed(context, resource, "ks", dlrm_index_export_counts(resource.index));
}

REGISTER_OP("DlrmKeyIndexAssignCounts")
    .Input("index: resource")
    .Input("keys: int64")
    .Input("counts: int64")
    .SetIsStateful()
    .SetShapeFn(lists);

DLRM_KEY_INDEX_OP(AssignCounts) {
  const Tensor *keys, *counts;
  TF_RETURN_IF_ERROR(read_numbers(context, "keys", &keys));
  TF_RETURN_IF_ERROR(read_for_keys(context, "counts", *keys, &counts));
  int64_t bad_key = 0;
  const int code = dlrm_index_assign_counts(resource.index, numbers_of(*keys), keys->NumElements(), numbers_of(*counts),
                                            &bad_key);
  if (code == DLRM_OK) return Status();
  if (code == DLRM_BAD_ARGUMENT) {
    return InvalidArgument("assign_admission: found counts for an index that counts no keys; its admit_after is 1.");
  }
  return InvalidArgument("assign_admission: the count of ", bad_key,
                         " is out of range, or this is not a cell of the sketch; counts must come from an index with "
                         "the same rules.");
}

REGISTER_OP("DlrmKeyIndexErased")
    .Input("index: resource")
    .Input("since_step: int64")
    .Output("keys: int64")
    .Output("steps: int64")
    .SetIsStateful()
    .SetShapeFn(lists);

DLRM_KEY_INDEX_OP(Erased) {
  int64_t since_step;
  TF_RETURN_IF_ERROR(read_number(context, "since_step", &since_step));
  return output_listed(context, resource, "kt", dlrm_index_erased(resource.index, since_step));
}

REGISTER_OP("DlrmKeyIndexTrimErased")
    .Input("index: resource")
    .Input("before_step: int64")
    .SetIsStateful()
    .SetShapeFn(lists);

DLRM_KEY_INDEX_OP(TrimErased) {
  int64_t before_step;
  TF_RETURN_IF_ERROR(read_number(context, "before_step", &before_step));
  dlrm_index_trim_erased(resource.index, before_step);
  return Status();
}

}  // namespace
}  // namespace dlrm
