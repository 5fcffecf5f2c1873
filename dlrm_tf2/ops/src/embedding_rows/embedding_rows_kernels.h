// The CPU kernels of embedding rows, written once over an instruction set V (vector.h); each instruction set's
// translation unit includes this file. Nothing here is reassociated or fused: compile with -ffp-contract=off.
#pragma once

#include "embedding_rows_cpu.h"
#include "vector.h"

namespace {

using dlrm::ApplyRow;
using dlrm::Gradients;
using dlrm::PoolBlock;
using dlrm::RowSums;
using dlrm::RowUpdate;
using dlrm::kChunk;

typedef uint32_t Bits __attribute__((vector_size(4 * DLRM_LANES)));

constexpr int64_t kAnyWidth = 0;
constexpr int kMostRegisters = 8;  // sums in registers at a time

// ---- numbers between memory and registers ----------------------------------------------------------------------------

// The first kCount values at `from`; the lanes past them are zero. kCount is known, so this is one or two loads.
template <class V, int kType, int kCount>
DLRM_INLINE Floats load_first(const char* from) {
  if constexpr (kCount == kLanes) return load_as_floats<V, kType>(from);
  char whole[4 * kLanes] = {};
  memcpy(whole, from, kCount * (kType == DLRM_FLOAT32 ? 4 : 2));
  return load_as_floats<V, kType>(whole);
}

template <class V, int kType>
DLRM_INLINE Floats load_some(const char* from, int64_t count) {
  if (count >= kLanes) return load_as_floats<V, kType>(from);
  char whole[4 * kLanes] = {};
  memcpy(whole, from, static_cast<size_t>(count * bytes_of(kType)));
  return load_as_floats<V, kType>(whole);
}

template <int64_t kWidth>
struct Columns {  // of a width that is known
  static constexpr int kFull = kWidth / kLanes, kRest = kWidth % kLanes, kRegisters = kFull + (kRest > 0);
};

template <class V, int kType, int64_t kWidth>
DLRM_INLINE void load_row(const char* from, Floats* to) {
  using C = Columns<kWidth>;
  DLRM_UNROLL for (int r = 0; r < C::kFull; ++r) {
    to[r] = load_as_floats<V, kType>(from + r * kLanes * bytes_of(kType));
  }
  if constexpr (C::kRest > 0) to[C::kFull] = load_first<V, kType, C::kRest>(from + C::kFull * kLanes * bytes_of(kType));
}

template <class V, int kType, int64_t kWidth>
DLRM_INLINE void store_row(const Floats* from, char* to, bool stream = false) {
  using C = Columns<kWidth>;
  if (stream) {
    DLRM_UNROLL for (int r = 0; r < C::kFull; ++r) {
      store_part<V, kType>(from[r], kLanes, true, to + r * kLanes * bytes_of(kType));
    }
  } else {
    DLRM_UNROLL for (int r = 0; r < C::kFull; ++r) {
      store_part<V, kType>(from[r], kLanes, false, to + r * kLanes * bytes_of(kType));
    }
  }
  if constexpr (C::kRest > 0) {
    const auto stored = stored_as<V, kType>(from[C::kFull]);
    memcpy(to + C::kFull * kLanes * bytes_of(kType), &stored, C::kRest * (kType == DLRM_FLOAT32 ? 4 : 2));
  }
}

// ---- lookup ----------------------------------------------------------------------------------------------------------

// Sums of kWidth columns of some rows, from `column` on. As many columns as there are registers for their sums.
template <class V, int kFrom, int kTo, int64_t kWidth>
DLRM_INLINE void pool_registers(const char* const* row, const float* factor, int64_t count, int64_t column, bool stream,
                                char* to) {
  constexpr int kRegisters = Columns<kWidth>::kRegisters;
  Floats sums[kRegisters] = {}, values[kRegisters];
  for (int64_t i = 0; i < count; ++i) {
    load_row<V, kFrom, kWidth>(row[i] + column * bytes_of(kFrom), values);
    if (factor != nullptr) {
      DLRM_UNROLL for (int r = 0; r < kRegisters; ++r) values[r] *= broadcast(factor[i]);
    }
    // The first is not added to zero, which would lose the sign of -0.
    DLRM_UNROLL for (int r = 0; r < kRegisters; ++r) sums[r] = i == 0 ? values[r] : sums[r] + values[r];
  }
  store_row<V, kTo, kWidth>(sums, to + column * bytes_of(kTo), stream);
}

template <class V, int kFrom, int kTo, int64_t kWidth>
DLRM_INLINE void pool_known(const PoolBlock& block) {
  constexpr int64_t kAtOnce = smaller(kWidth, kMostRegisters * kLanes);
  const char* const* row = block.rows;
  const float* factor = block.factors;
  char* to = block.to;
  for (int64_t bag = 0; bag < block.num_bags; ++bag, to += block.to_stride) {
    const int64_t count = block.counts == nullptr ? block.count : block.counts[bag];
    for (int64_t column = 0; column < kWidth; column += kAtOnce) {
      pool_registers<V, kFrom, kTo, kAtOnce>(row, factor, count, column, block.stream, to);
    }
    row += count;
    if (factor != nullptr) factor += count;
  }
  if (block.stream) V::end_streams();
}

template <class V, int kFrom, int kTo>
DLRM_INLINE void pool_columns(const PoolBlock& block, const char* const* row, const float* factor, int64_t count,
                              int64_t column, char* to) {
  const int64_t left = block.width - column;
  Floats sums = {};
  for (int64_t i = 0; i < count; ++i) {
    Floats values = load_some<V, kFrom>(row[i] + column * bytes_of(kFrom), left);
    if (factor != nullptr) values *= broadcast(factor[i]);
    sums = i == 0 ? values : sums + values;
  }
  store_part<V, kTo>(sums, left, false, to + column * bytes_of(kTo));
}

template <class V, int kFrom, int kTo>
void pool_any(const PoolBlock& block) {
  const char* const* row = block.rows;
  const float* factor = block.factors;
  for (int64_t bag = 0; bag < block.num_bags; ++bag) {
    const int64_t count = block.counts == nullptr ? block.count : block.counts[bag];
    for (int64_t column = 0; column < block.width; column += kLanes) {
      pool_columns<V, kFrom, kTo>(block, row, factor, count, column, block.to + bag * block.to_stride);
    }
    row += count;
    if (factor != nullptr) factor += count;
  }
}

template <class V, int kFrom, int kTo>
void pool(const PoolBlock& block) {
  switch (block.width) {
    case 8: return pool_known<V, kFrom, kTo, 8>(block);
    case 16: return pool_known<V, kFrom, kTo, 16>(block);
    case 32: return pool_known<V, kFrom, kTo, 32>(block);
    case 64: return pool_known<V, kFrom, kTo, 64>(block);
    case 128: return pool_known<V, kFrom, kTo, 128>(block);
  }
  pool_any<V, kFrom, kTo>(block);
}

// ---- sums of gradients -----------------------------------------------------------------------------------------------

DLRM_INLINE const char* vector_of(const Gradients& gradients, uint64_t pair, float* factor) {
  const uint32_t occurrence = static_cast<uint32_t>(pair);
  const uint32_t place = gradients.places == nullptr ? occurrence : gradients.places[occurrence];
  const uint32_t bags = gradients.shift < 32 ? place >> gradients.shift : 0;
  if (gradients.factors != nullptr) *factor = gradients.factors[gradients.places == nullptr ? bags : occurrence];
  return gradients.bases[bags] + static_cast<int64_t>(place & gradients.mask) * gradients.strides[bags];
}

template <class V, int kType, int64_t kWidth>
DLRM_INLINE void sum_registers(const Gradients& gradients, const uint64_t* pairs, int64_t count, int64_t column,
                               float* sum) {
  constexpr int kRegisters = Columns<kWidth>::kRegisters;
  Floats sums[kRegisters] = {}, values[kRegisters];
  for (int64_t i = 0; i < count; ++i) {
    float factor = 1;
    load_row<V, kType, kWidth>(vector_of(gradients, pairs[i], &factor) + column * bytes_of(kType), values);
    if (gradients.factors != nullptr) {
      DLRM_UNROLL for (int r = 0; r < kRegisters; ++r) values[r] *= broadcast(factor);
    }
    DLRM_UNROLL for (int r = 0; r < kRegisters; ++r) sums[r] = i == 0 ? values[r] : sums[r] + values[r];
  }
  store_row<V, DLRM_FLOAT32, kWidth>(sums, reinterpret_cast<char*>(sum + column));
}

template <class V, int kType, int64_t kWidth>
DLRM_INLINE void sum_known(const Gradients& gradients, const uint64_t* pairs, int64_t count, float* sum) {
  constexpr int64_t kAtOnce = smaller(kWidth, kMostRegisters * kLanes);
  for (int64_t column = 0; column < kWidth; column += kAtOnce) {
    sum_registers<V, kType, kAtOnce>(gradients, pairs, count, column, sum);
  }
}

template <class V, int kType>
void sum_any(const Gradients& gradients, const uint64_t* pairs, int64_t count, int64_t width, float* sum) {
  for (int64_t i = 0; i < count; ++i) {
    float factor = 1;
    const char* const from = vector_of(gradients, pairs[i], &factor);
    for (int64_t column = 0; column < width; column += kLanes) {
      Floats values = load_some<V, kType>(from + column * bytes_of(kType), width - column);
      if (gradients.factors != nullptr) values *= broadcast(factor);
      if (i > 0) values = load_some<V, DLRM_FLOAT32>(reinterpret_cast<char*>(sum + column), width - column) + values;
      store_part<V, DLRM_FLOAT32>(values, width - column, false, reinterpret_cast<char*>(sum + column));
    }
  }
}

template <class V, int kType, int64_t kWidth>
DLRM_INLINE void sum_one_chunk(const Gradients& gradients, const uint64_t* pairs, int64_t count, int64_t width,
                               float* sum) {
  if constexpr (kWidth == kAnyWidth) {
    sum_any<V, kType>(gradients, pairs, count, width, sum);
  } else {
    sum_known<V, kType, kWidth>(gradients, pairs, count, sum);
  }
}

template <class V, int kType>
void sum_chunk(const Gradients& gradients, const uint64_t* pairs, int64_t count, int64_t width, float* sum) {
  switch (width) {
    case 8: return sum_known<V, kType, 8>(gradients, pairs, count, sum);
    case 16: return sum_known<V, kType, 16>(gradients, pairs, count, sum);
    case 32: return sum_known<V, kType, 32>(gradients, pairs, count, sum);
    case 64: return sum_known<V, kType, 64>(gradients, pairs, count, sum);
    case 128: return sum_known<V, kType, 128>(gradients, pairs, count, sum);
  }
  sum_any<V, kType>(gradients, pairs, count, width, sum);
}

constexpr int64_t kAhead = 12;  // occurrences between asking for memory and using it

// to = sum ? to + values : values, for one row. `values` may be of any type.
template <class V, int kType, int64_t kWidth>
DLRM_INLINE void add_row(const char* values, float factor, bool scaled, int64_t width, bool sum, float* to) {
  char* const at = reinterpret_cast<char*>(to);
  if constexpr (kWidth == kAnyWidth) {
    for (int64_t column = 0; column < width; column += kLanes) {
      Floats added = load_some<V, kType>(values + column * bytes_of(kType), width - column);
      if (scaled) added *= broadcast(factor);
      if (sum) added = load_some<V, DLRM_FLOAT32>(at + column * 4, width - column) + added;
      store_part<V, DLRM_FLOAT32>(added, width - column, false, at + column * 4);
    }
  } else {
    constexpr int kRegisters = Columns<kWidth>::kRegisters;
    Floats added[kRegisters], before[kRegisters];
    load_row<V, kType, kWidth>(values, added);
    if (scaled) {
      DLRM_UNROLL for (int r = 0; r < kRegisters; ++r) added[r] *= broadcast(factor);
    }
    if (sum) {
      load_row<V, DLRM_FLOAT32, kWidth>(at, before);
      DLRM_UNROLL for (int r = 0; r < kRegisters; ++r) added[r] = before[r] + added[r];
    }
    store_row<V, DLRM_FLOAT32, kWidth>(added, at);
  }
}

template <class V, int kType, int64_t kWidth>
DLRM_INLINE void accumulate_known(const Gradients& gradients, const uint64_t* pairs, int64_t count, int64_t width,
                                  const RowSums& sums) {
  for (int64_t i = 0; i < count; ++i) {
    float factor = 1;
    if (i + kAhead < count) {
      prefetch(vector_of(gradients, pairs[i + kAhead], &factor), width * bytes_of(kType));
    }
    const char* const values = vector_of(gradients, pairs[i], &factor);
    const int64_t row = static_cast<int64_t>(pairs[i] >> 32);
    const uint32_t before = sums.counts[row]++;
    float* const chunk = sums.chunks + row * width;
    const bool starts = before % kChunk == 0;
    if (starts && before > 0) {
      float* const total = sums.totals + row * width;
      add_row<V, DLRM_FLOAT32, kWidth>(reinterpret_cast<char*>(chunk), 1, false, width, before > kChunk, total);
    }
    add_row<V, kType, kWidth>(values, factor, gradients.factors != nullptr, width, !starts, chunk);
  }
}

template <class V, int kType>
void accumulate(const Gradients& gradients, const uint64_t* pairs, int64_t count, int64_t width, const RowSums& sums) {
  switch (width) {
    case 8: return accumulate_known<V, kType, 8>(gradients, pairs, count, width, sums);
    case 16: return accumulate_known<V, kType, 16>(gradients, pairs, count, width, sums);
  }
  accumulate_known<V, kType, kAnyWidth>(gradients, pairs, count, width, sums);
}

// ---- optimizers ------------------------------------------------------------------------------------------------------

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

DLRM_INLINE uint64_t mix64(uint64_t z) {  // SplitMix64's output function
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

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

// ---- many rows -------------------------------------------------------------------------------------------------------

DLRM_INLINE void prefetch_for(const Gradients& gradients, const RowUpdate& update, const uint64_t* pair,
                              int64_t gradient_bytes) {
  float factor;
  prefetch(vector_of(gradients, pair[0], &factor), gradient_bytes);
  const int64_t row = static_cast<int64_t>(pair[0] >> 32);
  if (row == static_cast<int64_t>(pair[-1] >> 32)) return;
  const int64_t in_slab = update.first_row + row, weight_bytes = update.weights_type == DLRM_FLOAT32 ? 4 : 2;
  prefetch(update.weights + in_slab * update.width * weight_bytes, update.width * weight_bytes);
  if (update.slots[0] == nullptr) return;
  const int64_t slot_width = update.slot_width;
  prefetch(reinterpret_cast<const char*>(update.slots[0] + in_slab * slot_width), slot_width * 4);
  if (update.slots[1] == nullptr) return;
  prefetch(reinterpret_cast<const char*>(update.slots[1] + in_slab * slot_width), slot_width * 4);
}

template <class V, int kType, int64_t kWidth>
DLRM_INLINE float update_known(const Gradients& gradients, const RowUpdate& update, ApplyRow apply,
                               const uint64_t* pairs, int64_t count, float* scratch) {
  const int64_t width = kWidth == kAnyWidth ? update.width : kWidth;
  float* const sum = scratch;
  float* const next = scratch + width;
  float check = 0;
  for (int64_t first = 0, asked = 1; first < count;) {
    const uint64_t row = pairs[first] >> 32;
    int64_t last = first + 1;
    while (last < count && pairs[last] >> 32 == row) ++last;
    for (; asked < count && asked < last + kAhead; ++asked) {
      prefetch_for(gradients, update, pairs + asked, width * bytes_of(kType));
    }
    for (int64_t from = first; from < last; from += kChunk) {
      const int64_t size = smaller(kChunk, last - from);
      sum_one_chunk<V, kType, kWidth>(gradients, pairs + from, size, width, from == first ? sum : next);
      if (from == first) continue;
      for (int64_t column = 0; column < width; ++column) sum[column] += next[column];
    }
    check += apply(update, update.first_row + static_cast<int64_t>(row), sum);
    first = last;
  }
  return check;
}

template <class V, int kType>
float update_rows(const Gradients& gradients, const RowUpdate& update, ApplyRow apply, const uint64_t* pairs,
                  int64_t count, float* scratch) {
  switch (update.width) {
    case 8: return update_known<V, kType, 8>(gradients, update, apply, pairs, count, scratch);
    case 16: return update_known<V, kType, 16>(gradients, update, apply, pairs, count, scratch);
    case 32: return update_known<V, kType, 32>(gradients, update, apply, pairs, count, scratch);
    case 64: return update_known<V, kType, 64>(gradients, update, apply, pairs, count, scratch);
    case 128: return update_known<V, kType, 128>(gradients, update, apply, pairs, count, scratch);
  }
  return update_known<V, kType, kAnyWidth>(gradients, update, apply, pairs, count, scratch);
}

}  // namespace

// All kernels of an instruction set, for the table in embedding_rows_cpu.h.
#define DLRM_POOL(V, FROM) {pool<V, FROM, DLRM_FLOAT32>, pool<V, FROM, DLRM_FLOAT16>, pool<V, FROM, DLRM_BFLOAT16>}
#define DLRM_APPLY(V, FROM)                                                          \
  {apply_row<V, FROM, DLRM_SGD>, apply_row<V, FROM, DLRM_ADAGRAD>,                   \
   apply_row<V, FROM, DLRM_ROWWISE_ADAGRAD>, apply_row<V, FROM, DLRM_ADAM>}
#define DLRM_ROW_KERNELS(V)                                                                                    \
  {{DLRM_POOL(V, DLRM_FLOAT32), DLRM_POOL(V, DLRM_BFLOAT16)},                                                  \
   {sum_chunk<V, DLRM_FLOAT32>, sum_chunk<V, DLRM_FLOAT16>, sum_chunk<V, DLRM_BFLOAT16>},                      \
   {DLRM_APPLY(V, DLRM_FLOAT32), DLRM_APPLY(V, DLRM_BFLOAT16)},                                                \
   {accumulate<V, DLRM_FLOAT32>, accumulate<V, DLRM_FLOAT16>, accumulate<V, DLRM_BFLOAT16>},                   \
   {update_rows<V, DLRM_FLOAT32>, update_rows<V, DLRM_FLOAT16>, update_rows<V, DLRM_BFLOAT16>}}
