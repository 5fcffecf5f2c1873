// One row's step of an optimizer on a GPU, with the bits of the CPU kernels (embedding_rows_kernels.h, whose formulas and
// random numbers these are).
#pragma once

#include "embedding_rows_cuda.cuh"

namespace rows {

// A step on the rows of one slab, with what it needs ready.
struct Step {
  void* weights;
  float* slots[2];
  const DlrmShard* shards;  // whose keys have the step in them already
  int width, num_shards, weights_type, kind;
  float learning_rate, epsilon, beta1, beta2, rest1, rest2;  // rest = 1 - beta
  float correction1, correction2;                            // 1 - beta**step
};

// What the columns of a row have in common.
struct RowStep {
  int64_t row;
  float root;          // of rowwise_adagrad
  uint32_t key;        // of the random bits
  uint32_t first_column;  // the table's
};

__host__ __device__ inline uint64_t mix64(uint64_t z) {  // SplitMix64's output function
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

// Source: the finalizer of MurmurHash3.
DLRM_DEVICE uint32_t random_bits(uint32_t row_key, uint32_t column) {
  uint32_t h = column * 0x9e3779b9u + row_key;
  h = (h ^ h >> 16) * 0x85ebca6bu;
  h = (h ^ h >> 13) * 0xc2b2ae35u;
  return h ^ h >> 16;
}

DLRM_DEVICE uint32_t bits_of_float(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Up or down to one of the two nearest bfloat16, with the probability that makes the mean right. Infinity stays, and NaN.
DLRM_DEVICE uint16_t rounded_bits(uint32_t bits, uint32_t random) {
  if ((bits & 0x7f800000u) != 0x7f800000u) return static_cast<uint16_t>((bits + (random >> 16)) >> 16);
  return static_cast<uint16_t>(bits >> 16 | ((bits & 0x007fffffu) != 0 ? 0x40u : 0u));
}

DLRM_DEVICE RowStep row_step(const Step& step, int64_t row) {
  RowStep of_row = {row, 0, 0, 0};
  if (step.weights_type != DLRM_BFLOAT16) return of_row;
  int low = 0, high = step.num_shards;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (step.shards[middle].first_row <= row ? low : high) = middle;
  }
  const DlrmShard& shard = step.shards[low];
  const uint64_t table_row = static_cast<uint64_t>(row - shard.first_row + shard.table_row);
  of_row.key = static_cast<uint32_t>(mix64(shard.key + table_row * 0x9e3779b97f4a7c15));
  of_row.first_column = static_cast<uint32_t>(shard.table_column);
  return of_row;
}

// What is subtracted from a pack of columns; writes the new state, and makes `check` NaN where that is not finite.
template <bool kRowwise, int kPack>
DLRM_DEVICE void steps_of(const Step& s, const RowStep& of_row, int64_t place, const float (&gradient)[kPack],
                          float (&steps)[kPack], float* check) {
  if (kRowwise) {
#pragma unroll
    for (int c = 0; c < kPack; ++c) steps[c] = gradient[c] / of_row.root * s.learning_rate;
  } else if (s.kind == DLRM_SGD) {
#pragma unroll
    for (int c = 0; c < kPack; ++c) steps[c] = gradient[c] * s.learning_rate;
  } else if (s.kind == DLRM_ADAGRAD) {
    float sums[kPack];
    load(s.slots[0] + place, sums);
#pragma unroll
    for (int c = 0; c < kPack; ++c) {
      sums[c] += gradient[c] * gradient[c];
      *check += sums[c] - sums[c];
      steps[c] = gradient[c] / (sqrtf(sums[c]) + s.epsilon) * s.learning_rate;
    }
    store(sums, s.slots[0] + place);
  } else {
    float first[kPack], second[kPack];
    load(s.slots[0] + place, first);
    load(s.slots[1] + place, second);
#pragma unroll
    for (int c = 0; c < kPack; ++c) {
      first[c] = s.beta1 * first[c] + s.rest1 * gradient[c];
      second[c] = s.beta2 * second[c] + s.rest2 * (gradient[c] * gradient[c]);
      *check += (first[c] - first[c]) + (second[c] - second[c]);
      const float corrected = sqrtf(second[c] / s.correction2) + s.epsilon;
      steps[c] = first[c] / s.correction1 / corrected * s.learning_rate;
    }
    store(first, s.slots[0] + place);
    store(second, s.slots[1] + place);
  }
}

// Updates a pack of columns of a row, `column` on, by the sum of their gradients. Returns 0, or NaN when a new number is
// not finite.
template <bool kRowwise, int kPack>
DLRM_DEVICE float apply(const Step& s, const RowStep& of_row, int column, const float (&gradient)[kPack]) {
  const int64_t place = of_row.row * s.width + column;
  float steps[kPack], weights[kPack], check = 0;
  const bool whole = s.weights_type == DLRM_FLOAT32;
  if (whole) {
    load(static_cast<const float*>(s.weights) + place, weights);
  } else {
    load(static_cast<const Bfloat*>(s.weights) + place, weights);
  }
  steps_of<kRowwise>(s, of_row, place, gradient, steps, &check);
#pragma unroll
  for (int c = 0; c < kPack; ++c) {
    weights[c] -= steps[c];
    check += weights[c] - weights[c];
  }
  if (whole) {
    store(weights, static_cast<float*>(s.weights) + place);
  } else {
    Pack<Bfloat, kPack> rounded;
#pragma unroll
    for (int c = 0; c < kPack; ++c) {
      const uint32_t random = random_bits(of_row.key, of_row.first_column + static_cast<uint32_t>(column) + c);
      rounded.values[c].bits = rounded_bits(bits_of_float(weights[c]), random);
    }
    *reinterpret_cast<Pack<Bfloat, kPack>*>(static_cast<Bfloat*>(s.weights) + place) = rounded;
  }
  return check;
}

// The mean of the squares of a row that the team has in shared memory, in the CPU's order: 16 sums of every 16th column,
// then these by halves. Called by whole warps. `partial`: [16].
DLRM_DEVICE float mean_square(const float* values, int width, int lane, int lanes, float* partial) {
  for (int i = lane; i < 16; i += lanes) {
    float sum = 0;
    for (int column = i; column < width; column += 16) sum += values[column] * values[column];
    partial[i] = sum;
  }
  __syncwarp();
  const auto two = [&](int i) { return partial[i] + partial[i + 8]; };
  const auto four = [&](int i) { return two(i) + two(i + 4); };
  const auto eight = [&](int i) { return four(i) + four(i + 2); };
  return (eight(0) + eight(1)) / static_cast<float>(width);
}

}  // namespace rows
