// The first values of rows on a GPU, with the bits of the CPU. Compile with -fmad=false.
#include "cuda_host.h"
#include "cuda_primitives.cuh"
#include "initial_values.h"
#include "key_index_cuda.h"

namespace first_values {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 1 << 20;

struct Places {
  const int64_t *rows, *keys;
  int64_t count, num_rows;
};

template <class T>
DLRM_DEVICE T stored_as(float value);
template <>
DLRM_DEVICE float stored_as<float>(float value) { return value; }
template <>
DLRM_DEVICE uint16_t stored_as<uint16_t>(float value) { return dlrm::nearest_bfloat16(value); }

// Calls each(i, row, column) for all columns of all rows that are there, one a thread.
template <class Each>
DLRM_DEVICE void for_each(const Places& of, int64_t width, const Each& each) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t place = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; place < of.count * width; place += step) {
    const int64_t i = place / width, row = of.rows[i];
    if (row >= 0 && row < of.num_rows) each(i, row, place - i * width);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    write_weights(Places of, DlrmInitializer initializer, T* weights, int64_t width) {
  for_each(of, width, [&](int64_t i, int64_t row, int64_t column) {
    const uint64_t stream = dlrm::stream_of(of.keys[i], initializer.seed);
    weights[row * width + column] =
        stored_as<T>(dlrm::initial_value(initializer, stream, static_cast<uint64_t>(column)));
  });
}

__global__ void __launch_bounds__(kThreads) fill_slot(Places of, float* slot, int64_t width, float value) {
  for_each(of, width, [&](int64_t, int64_t row, int64_t column) { slot[row * width + column] = value; });
}

__global__ void __launch_bounds__(kThreads) check_rows(Places of, DlrmIndexOutcome* outcome) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= of.count || (of.rows[i] >= 0 && of.rows[i] < of.num_rows)) return;
  atomicAdd(reinterpret_cast<unsigned long long*>(&outcome->num_bad), 1ull);
  outcome->bad_key = of.rows[i];
}

int64_t blocks_of(int64_t elements) {
  const int64_t blocks = dlrm::blocks_for(elements, kThreads);
  return blocks < kMostBlocks ? blocks : kMostBlocks;
}

}  // namespace first_values

extern "C" int dlrm_initialize_rows_cuda(const DlrmInitialRows* to, const DlrmInitializer* initializer,
                                         const int64_t* rows, const int64_t* keys, int64_t count, int64_t num_rows,
                                         DlrmIndexOutcome* outcome, void* stream) {
  using namespace first_values;
  if (initializer->kind < DLRM_CONSTANT || initializer->kind > DLRM_TRUNCATED_NORMAL || count < 0 ||
      count >= int64_t{1} << 31 || (to->weights_type != DLRM_FLOAT32 && to->weights_type != DLRM_BFLOAT16)) {
    return DLRM_BAD_ARGUMENT;
  }
  const Places of = {rows, keys, count, num_rows};
  int error = fill_with_zeros(outcome, sizeof(DlrmIndexOutcome), stream);
  if (count == 0) return dlrm::code_of(error);
  if (error == 0) error = launch(check_rows, dlrm::blocks_for(count, kThreads), kThreads, 0, stream, of, outcome);
  const int64_t blocks = blocks_of(count * to->width);
  if (error == 0 && blocks > 0 && to->weights_type == DLRM_FLOAT32) {
    error = launch(write_weights<float>, blocks, kThreads, 0, stream, of, *initializer, to->weights, to->width);
  } else if (error == 0 && blocks > 0) {
    error = launch(write_weights<uint16_t>, blocks, kThreads, 0, stream, of, *initializer, to->weights, to->width);
  }
  for (int64_t slot = 0; slot < to->num_slots && error == 0; ++slot) {
    const int64_t width = to->slot_widths[slot];
    if (width == 0) continue;
    error = launch(fill_slot, blocks_of(count * width), kThreads, 0, stream, of, to->slots[slot], width, to->state[slot]);
  }
  return dlrm::code_of(error);
}
