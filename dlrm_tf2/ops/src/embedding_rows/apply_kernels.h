// One row: the step of an optimizer, and the rounding of 16-bit weights.
#pragma once

#include "embedding_rows_cpu.h"
#include "row_registers.h"
#include "splitmix64.h"

namespace {

using dlrm::RowUpdate;
using dlrm::mix64;

typedef uint32_t Bits __attribute__((vector_size(4 * DLRM_LANES)));

// The same formulas for a register of columns and for the columns past the last full register.
DLRM_INLINE float finite_check(float x) { return x - x; }  // 0, or NaN
DLRM_INLINE Floats finite_check(Floats x) { return x - x; }

template <class V>
DLRM_INLINE Floats root(Floats x) { return V::square_root(x); }
template <class V>
DLRM_INLINE float root(float x) { return __builtin_sqrtf(x); }

template <class X>
DLRM_INLINE X all(float x) { return x - X{}; }

template <class X>
DLRM_INLINE X read_at(const float* from) { return read_as<X>(from); }
template <class X>
DLRM_INLINE void write_at(float* to, X value) { memcpy(to, &value, sizeof value); }

// What is subtracted from columns `column` on of a row; writes the new state.
template <class V, int kKind, class X>
DLRM_INLINE X step_of(const RowUpdate& u, X gradient, int64_t place, float row_root, X* check) {
  const X rate = all<X>(u.learning_rate);
  if constexpr (kKind == DLRM_SGD) {
    return gradient * rate;
  } else if constexpr (kKind == DLRM_ADAGRAD) {
    const X accumulator = read_at<X>(u.slots[0] + place) + gradient * gradient;
    write_at(u.slots[0] + place, accumulator);
    *check += finite_check(accumulator);
    return gradient / (root<V>(accumulator) + all<X>(u.epsilon)) * rate;
  } else if constexpr (kKind == DLRM_ROWWISE_ADAGRAD) {
    return gradient / all<X>(row_root) * rate;
  } else {
    const X first = all<X>(u.beta1) * read_at<X>(u.slots[0] + place) + all<X>(u.rest1) * gradient;
    const X second = all<X>(u.beta2) * read_at<X>(u.slots[1] + place) + all<X>(u.rest2) * (gradient * gradient);
    write_at(u.slots[0] + place, first);
    write_at(u.slots[1] + place, second);
    *check += finite_check(first) + finite_check(second);
    const X corrected = root<V>(second / all<X>(u.correction2)) + all<X>(u.epsilon);
    return first / all<X>(u.correction1) / corrected * rate;
  }
}

// The mean of the squares, always added up in the same order: 16 sums of every 16th column, then these by halves.
DLRM_INLINE float mean_square(const float* values, int64_t width) {
  float sums[16] = {};
  int64_t column = 0;
  for (; column + 16 <= width; column += 16) {
    for (int i = 0; i < 16; ++i) sums[i] += values[column + i] * values[column + i];
  }
  for (int i = 0; column + i < width; ++i) sums[i] += values[column + i] * values[column + i];
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) sums[i] += sums[i + half];
  }
  return sums[0] / static_cast<float>(width);
}

// ---- stochastic rounding ---------------------------------------------------------------------------------------------

// 32 random bits for each column; `X` is uint32_t or Bits. Source: the finalizer of MurmurHash3.
template <class X>
DLRM_INLINE X random_bits(uint32_t row_key, X column) {
  X h = column * 0x9e3779b9u + row_key;
  h = (h ^ h >> 16) * 0x85ebca6bu;
  h = (h ^ h >> 13) * 0xc2b2ae35u;
  return h ^ h >> 16;
}

// The random bits of a row in this step: see dlrm_tf2/embedding/rounding.py.
DLRM_INLINE uint32_t row_key_of(const RowUpdate& update, int64_t row, int64_t* first_column) {
  int64_t shard = 0;
  while (shard + 1 < update.num_shards && update.shards[shard + 1].first_row <= row) ++shard;
  const DlrmShard& of = update.shards[shard];
  const uint64_t table_row = static_cast<uint64_t>(row - of.first_row + of.table_row);
  *first_column = of.table_column;
  const uint64_t of_step = mix64(of.key + update.step * 0x9e3779b97f4a7c15);
  return static_cast<uint32_t>(mix64(of_step + table_row * 0x9e3779b97f4a7c15));
}

// Up or down to one of the two nearest bfloat16, with the probability that makes the mean right. Infinity stays, and NaN.
template <class X, class I>
DLRM_INLINE I rounded_bits(I bits, I random) {
  const I sum = bits + (random >> 16);
  if constexpr (sizeof(I) == sizeof(uint32_t)) {
    return (bits & 0x7f800000u) == 0x7f800000u ? bits >> 16 | ((bits & 0x007fffffu) != 0 ? 0x40u : 0u) : sum >> 16;
  } else {
    const I special = reinterpret_cast<I>((bits & 0x7f800000u) == 0x7f800000u);
    const I nan = reinterpret_cast<I>((bits & 0x007fffffu) != 0) & 0x40u;
    return (special & (bits >> 16 | nan)) | (~special & sum >> 16);
  }
}

// ---- one row ---------------------------------------------------------------------------------------------------------

constexpr Bits lane_numbers() {
  Bits lanes{};
  for (int i = 0; i < kLanes; ++i) lanes[i] = static_cast<uint32_t>(i);
  return lanes;
}

template <class V, int kWeights, int kKind>
float apply_row(const RowUpdate& u, int64_t row, const float* sum) {
  const int64_t width = u.width;
  float check_rest = 0, row_root = 0;
  Floats check = {};
  if constexpr (kKind == DLRM_ROWWISE_ADAGRAD) {
    float* const accumulator = u.slots[0] + row;
    *accumulator += mean_square(sum, width);
    check_rest += finite_check(*accumulator);
    row_root = __builtin_sqrtf(*accumulator) + u.epsilon;
  }
  uint32_t row_key = 0;
  int64_t table_column = 0;
  if constexpr (kWeights == DLRM_BFLOAT16) row_key = row_key_of(u, row, &table_column);
  char* const weights = u.weights + row * width * bytes_of(kWeights);
  int64_t column = 0;
  for (; column + kLanes <= width; column += kLanes) {
    const Floats step = step_of<V, kKind, Floats>(u, read_as<Floats>(sum + column), row * width + column, row_root, &check);
    char* const at = weights + column * bytes_of(kWeights);
    const Floats updated = load_as_floats<V, kWeights>(at) - step;
    check += finite_check(updated);
    if constexpr (kWeights == DLRM_FLOAT32) {
      memcpy(at, &updated, sizeof updated);
    } else {
      const Bits columns = lane_numbers() + static_cast<uint32_t>(table_column + column);
      const Bits random = random_bits<Bits>(row_key, columns);
      const Halves halves = __builtin_convertvector(
          rounded_bits<Floats>(reinterpret_cast<Bits>(updated), random), Halves);
      memcpy(at, &halves, sizeof halves);
    }
  }
  for (; column < width; ++column) {
    const float step = step_of<V, kKind, float>(u, sum[column], row * width + column, row_root, &check_rest);
    char* const at = weights + column * bytes_of(kWeights);
    if constexpr (kWeights == DLRM_FLOAT32) {
      const float updated = read_as<float>(at) - step;
      check_rest += finite_check(updated);
      memcpy(at, &updated, sizeof updated);
    } else {
      const uint32_t wide = static_cast<uint32_t>(read_as<uint16_t>(at)) << 16;
      const float updated = read_as<float>(&wide) - step;
      check_rest += finite_check(updated);
      const uint32_t random = random_bits<uint32_t>(row_key, static_cast<uint32_t>(table_column + column));
      const uint16_t half = static_cast<uint16_t>(rounded_bits<float>(read_as<uint32_t>(&updated), random));
      memcpy(at, &half, sizeof half);
    }
  }
  for (int i = 0; i < kLanes; ++i) check_rest += check[i];
  return check_rest;
}

}  // namespace
