// The update on a GPU: a team for each run of sorted occurrences sums their gradients in registers, and reads and writes
// the row and its state once. Runs of more than kChunk occurrences are summed by chunks first, each by a team of its own.
#pragma once

#include "optimizers_cuda.cuh"
#include "order_cuda.cuh"

namespace rows {

// Where the vectors of sorted occurrences are: gradients; or, for runs of chunks, the sums of the chunks.
struct Vectors {
  const Piece* pieces;    // null for sums
  const uint32_t* order;  // sorted: as `values` of Occurrences
  const uint32_t* places;
  const float* factors;
  int shift;
  const float* sums;  // [chunks, width]
  int width;
};

template <class T>
DLRM_DEVICE const T* vector_of(const Vectors& vectors, uint32_t i, float* factor) {
  if (vectors.pieces == nullptr) {
    *factor = 1;
    return reinterpret_cast<const T*>(vectors.sums) + static_cast<int64_t>(i) * vectors.width;  // T is float
  }
  const uint32_t value = vectors.order[i], place = vectors.places == nullptr ? value : vectors.places[value];
  const Piece& piece = vectors.pieces[place >> vectors.shift];
  *factor = vectors.factors == nullptr ? piece.factor : vectors.factors[value];
  const int64_t sample = place & ((1u << vectors.shift) - 1);
  return in_global(static_cast<const T*>(piece.bags.vectors)) + sample * piece.bags.vector_stride;
}

// The sum of a run, of a pack of columns from `column` on, with kDeep loads under way. Multiplying by 1 changes no bit.
template <class T, int kPack, int kDeep>
DLRM_DEVICE void sum_run(const Vectors& vectors, const Run& run, int column, float (&sums)[kPack]) {
  for (uint32_t i = 0; i < run.count; i += kDeep) {
    float values[kDeep][kPack], factors[kDeep];
#pragma unroll
    for (uint32_t k = 0; k < kDeep; ++k) {
      if (i + k < run.count) load(vector_of<T>(vectors, run.start + i + k, &factors[k]) + column, values[k]);
    }
#pragma unroll
    for (uint32_t k = 0; k < kDeep; ++k) {
      if (i + k >= run.count) continue;
#pragma unroll
      for (int c = 0; c < kPack; ++c) {
        const float value = values[k][c] * factors[k];
        sums[c] = i + k == 0 ? value : sums[c] + value;
      }
    }
  }
}

DLRM_DEVICE int64_t first_team_of_warp(int team_bits) {
  return static_cast<int64_t>(blockIdx.x) * (kThreads >> team_bits) + (threadIdx.x / 32 * 32 >> team_bits);
}

// Where the sums of runs go.
struct Sums {
  float* sums;            // [runs, width]
  int64_t* of_rows;       // the row of each sum; null where nobody asks
  const uint32_t* rows;   // of the occurrences
  const uint32_t* first;  // how many sums others write before these; null for none
};

template <class T, int kPack>
__global__ void __launch_bounds__(kThreads, 2)
    sum_runs(const Run* runs, const uint32_t* num_runs, Vectors vectors, int team_bits, Sums to) {
  const int lanes = 1 << team_bits, lane = threadIdx.x & (lanes - 1), width = vectors.width;
  const int64_t step = static_cast<int64_t>(gridDim.x) * (kThreads >> team_bits), count = *num_runs;
  const int64_t before = to.first == nullptr ? 0 : *to.first;
  for (int64_t i = first_team_of_warp(team_bits) + (threadIdx.x % 32 >> team_bits); i < count; i += step) {
    const Run run = runs[i];
    for (int column = lane * kPack; column < width; column += lanes * kPack) {
      float sum[kPack] = {};
      sum_run<T, kPack, 2 * kAtOnce>(vectors, run, column, sum);
      store(sum, to.sums + (before + i) * width + column);
    }
    if (to.of_rows != nullptr && lane == 0) to.of_rows[before + i] = to.rows[run.start];
  }
}

// Asks for the columns of a row that are updated when the gradients are there.
template <int kPack>
DLRM_DEVICE void ask_for_row(const Step& step, int64_t row, int lane, int lanes) {
  for (int column = lane * kPack; column < step.width; column += lanes * kPack) {
    const int64_t place = row * step.width + column;
    ask_for(static_cast<const char*>(step.weights) + place * (step.weights_type == DLRM_FLOAT32 ? 4 : 2));
    if (step.kind == DLRM_ADAGRAD || step.kind == DLRM_ADAM) ask_for(step.slots[0] + place);
    if (step.kind == DLRM_ADAM) ask_for(step.slots[1] + place);
  }
}

// Shared memory, for rowwise_adagrad only: for each team the sum of a run [width] and 16 partial sums, which whole warps
// fill and read; so all teams of a warp go round together.
template <class T, int kPack>
__global__ void __launch_bounds__(kThreads, 2)
    update_rows(const Run* runs, const uint32_t* num_runs, const uint32_t* rows, Vectors vectors, Step step, int team_bits,
                DlrmCudaStatus* status) {
  DLRM_SHARED(memory);
  const int lanes = 1 << team_bits, lane = threadIdx.x & (lanes - 1);
  float* const whole = reinterpret_cast<float*>(memory) + (threadIdx.x >> team_bits) * (step.width + 16);
  const int64_t num_teams = static_cast<int64_t>(gridDim.x) * (kThreads >> team_bits), count = *num_runs;
  const bool rowwise = step.kind == DLRM_ROWWISE_ADAGRAD;
  float check = 0;
  for (int64_t first = first_team_of_warp(team_bits); first < count; first += num_teams) {
    const int64_t number = first + (threadIdx.x % 32 >> team_bits);
    const bool busy = number < count;
    const Run run = busy ? runs[number] : Run{0, 0};
    const int64_t row = busy ? rows[run.start] : 0;
    const int width = busy ? step.width : 0;
    if (busy) ask_for_row<kPack>(step, row, lane, lanes);
    RowStep of_row = row_step(step, row);
    const float before = rowwise && busy ? step.slots[0][row] : 0.0f;
    for (int column = lane * kPack; column < width; column += lanes * kPack) {
      float sum[kPack] = {};
      sum_run<T, kPack, kAtOnce>(vectors, run, column, sum);
      if (!rowwise) {
        check += apply<false>(step, of_row, column, sum);
        continue;
      }
#pragma unroll
      for (int c = 0; c < kPack; ++c) whole[column + c] = sum[c];
    }
    if (!rowwise) continue;
    __syncwarp();
    const float after = before + mean_square(whole, step.width, lane, lanes, whole + step.width);
    of_row.root = sqrtf(after) + step.epsilon;
    for (int column = lane * kPack; column < width; column += lanes * kPack) {
      float sum[kPack];
#pragma unroll
      for (int c = 0; c < kPack; ++c) sum[c] = whole[column + c];
      check += apply<true>(step, of_row, column, sum);
    }
    if (busy && lane == 0) {
      check += after - after;
      step.slots[0][row] = after;
    }
    __syncwarp();  // before the next run's sum takes this one's place
  }
  if (check != 0) status->not_finite = 1;
}

}  // namespace rows
