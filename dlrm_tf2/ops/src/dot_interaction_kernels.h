// The CPU kernels, written once over a vector type V; each instruction set's translation unit includes this file.
//
// Everything is in an anonymous namespace and nothing inline from the standard library is used: a function compiled for
// AVX-512 must never be the one that the linker keeps for everybody.
//
// A vector type V names the memory of one multiply-add:
//   V::Element       what a sample's rows are kept as in scratch: float, or bfloat16 bits
//   V::Register      float32 sums, V::kSums of them
//   V::kStep         elements of one row that a register of elements holds
//   V::kFold         rows that one multiply-add of the gradient takes in (2 for bfloat16 pairs)
#pragma once

#include <stdint.h>
#include <string.h>

#include "dot_interaction.h"
#include "dot_interaction_cpu.h"

#define DLRM_INLINE inline __attribute__((always_inline))
#define DLRM_UNROLL _Pragma("GCC unroll 16")

namespace {

using dlrm::DotShape;

constexpr int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }
constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// ---- rows between memory and scratch ---------------------------------------------------------------------------

// Reads `count` values of a 2- or 4-byte type as float32, in full registers; what is past the end reads as zero.
template <class V>
DLRM_INLINE void read_floats(const void* from, int element_type, int64_t count, float* to) {
  constexpr int kStep = V::Float::kSums;
  const int64_t bytes = element_type == DLRM_FLOAT32 ? 4 : 2;
  const char* source = static_cast<const char*>(from);
  for (int64_t i = 0; i < count; i += kStep) {
    alignas(64) char tail[4 * kStep];
    const char* values = source + i * bytes;
    if (count - i < kStep) {
      memset(tail, 0, sizeof tail);
      memcpy(tail, values, static_cast<size_t>((count - i) * bytes));
      values = tail;
    }
    if (element_type == DLRM_FLOAT32) {
      V::Float::store(to + i, V::Float::load(reinterpret_cast<const float*>(values)));
    } else if (element_type == DLRM_FLOAT16) {
      V::Float::store(to + i, V::Float::from_float16(values));
    } else {
      V::Float::store(to + i, V::Float::from_bfloat16(values));
    }
  }
}

// The way back, rounding to nearest even. Writes exactly `count` values.
template <class V>
DLRM_INLINE void write_floats(const float* from, int element_type, int64_t count, void* to) {
  constexpr int kStep = V::Float::kSums;
  const int64_t bytes = element_type == DLRM_FLOAT32 ? 4 : 2;
  char* destination = static_cast<char*>(to);
  for (int64_t i = 0; i < count; i += kStep) {
    alignas(64) char tail[4 * kStep];
    const bool whole = count - i >= kStep;
    char* values = whole ? destination + i * bytes : tail;
    const auto sums = V::Float::load(from + i);
    if (element_type == DLRM_FLOAT32) {
      V::Float::store(reinterpret_cast<float*>(values), sums);
    } else if (element_type == DLRM_FLOAT16) {
      V::Float::to_float16(values, sums);
    } else {
      V::Float::to_bfloat16(values, sums);
    }
    if (!whole) memcpy(destination + i * bytes, tail, static_cast<size_t>((count - i) * bytes));
  }
}

// ---- scratch -----------------------------------------------------------------------------------------------------

// What one sample needs, as parts of one block that starts at a multiple of 64 bytes.
template <class V>
struct Layout {
  explicit Layout(const DotShape& shape)
      : row_elements(round_up(shape.width, V::kStep)),
        float_row(round_up(shape.width, 64)),
        weight_row(round_up(shape.num_vectors, V::kFold)) {
    const int64_t rows = round_up(shape.num_vectors, V::kFold);
    elements_at = 0;
    weights_at = elements_at + round_up(rows * row_elements * int64_t(sizeof(typename V::Element)), 64);
    sums_at = weights_at + round_up(shape.num_vectors * weight_row * int64_t(sizeof(typename V::Element)), 64);
    upstream_at = sums_at + round_up(V::kGradientRows * float_row * 4, 64);
    bytes = upstream_at + round_up(round_up(shape.output_width, 64) * 4, 64);
  }
  int64_t row_elements;  // of a row in `elements`, a whole number of registers
  int64_t float_row;     // of a row in `sums`
  int64_t weight_row;    // of a row in `weights`
  int64_t elements_at, weights_at, sums_at, upstream_at, bytes;
};

template <class V>
int64_t scratch_bytes(const DotShape& shape) {
  return Layout<V>(shape).bytes;
}

// ---- forward -------------------------------------------------------------------------------------------------------

// R x 4 dot products of rows a[0..R-1] and b[0..3]; out[r] takes the first counts[r] of row r.
template <class V, int R>
DLRM_INLINE void dot_tile(const typename V::Element* const* a, const typename V::Element* const* b, int64_t width,
                          float* const* out, const int* counts) {
  typename V::Register sums[R][4];
  DLRM_UNROLL for (int r = 0; r < R; ++r) {
    DLRM_UNROLL for (int c = 0; c < 4; ++c) sums[r][c] = V::zero();
  }
  for (int64_t k = 0; k < width; k += V::kStep) {
    typename V::Elements left[R];
    DLRM_UNROLL for (int r = 0; r < R; ++r) left[r] = V::load_elements(a[r] + k);
    DLRM_UNROLL for (int c = 0; c < 4; ++c) {
      const typename V::Elements right = V::load_elements(b[c] + k);
      DLRM_UNROLL for (int r = 0; r < R; ++r) sums[r][c] = V::multiply_add(left[r], right, sums[r][c]);
    }
  }
  DLRM_UNROLL for (int r = 0; r < R; ++r) {
    if (counts[r] > 0) V::store_totals(out[r], counts[r], sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
  }
}

// The strictly lower dots of one sample, row-major, into `dots`. Tiles of R rows by 4 columns; rows past the end are
// the last row again, and what they give is not stored.
template <class V>
DLRM_INLINE void lower_dots(const typename V::Element* rows, int64_t stride, int64_t num_vectors, int64_t width,
                            float* dots) {
  constexpr int R = V::kDotRows;
  const int64_t last = num_vectors - 1;
  for (int64_t i = 0; i < num_vectors; i += R) {
    const typename V::Element* a[R];
    DLRM_UNROLL for (int r = 0; r < R; ++r) a[r] = rows + smaller(i + r, last) * stride;
    for (int64_t j = 0; j < i + R - 1 && j < last; j += 4) {
      const typename V::Element* b[4];
      DLRM_UNROLL for (int c = 0; c < 4; ++c) b[c] = rows + smaller(j + c, last) * stride;
      float* out[R];
      int counts[R];
      DLRM_UNROLL for (int r = 0; r < R; ++r) {
        const int64_t row = i + r, below = row - j;
        counts[r] = row > last || below <= 0 ? 0 : int(smaller(below, 4));
        out[r] = counts[r] > 0 ? dots + row * (row - 1) / 2 + j : dots;
      }
      dot_tile<V, R>(a, b, width, out, counts);
    }
  }
}

template <class V>
void forward(const DotShape& shape, const void* features, void* output, int64_t first, int64_t last, void* scratch) {
  const Layout<V> layout(shape);
  char* memory = static_cast<char*>(scratch);
  auto* copy = reinterpret_cast<typename V::Element*>(memory + layout.elements_at);
  auto* narrow = reinterpret_cast<float*>(memory + layout.upstream_at);
  const int64_t bytes = shape.element_type == DLRM_FLOAT32 ? 4 : 2;
  const int64_t F = shape.num_vectors, D = shape.width, P = shape.output_width, pairs = F * (F - 1) / 2;
  for (int64_t sample = first; sample < last; ++sample) {
    const char* rows = static_cast<const char*>(features) + sample * F * D * bytes;
    char* out = static_cast<char*>(output) + sample * P * bytes;
    const typename V::Element* elements = copy;
    int64_t stride = layout.row_elements;
    if (V::is_native(shape.element_type) && D % V::kStep == 0) {
      elements = reinterpret_cast<const typename V::Element*>(rows);  // whole registers already: no copy
      stride = D;
    } else {
      for (int64_t row = 0; row < F; ++row) {
        V::read_row(rows + row * D * bytes, shape.element_type, D, copy + row * stride);
      }
    }
    memcpy(out, rows, static_cast<size_t>(D * bytes));
    if (shape.element_type == DLRM_FLOAT32) {
      lower_dots<V>(elements, stride, F, stride, reinterpret_cast<float*>(out) + D);
    } else {
      lower_dots<V>(elements, stride, F, stride, narrow);
      write_floats<V>(narrow, shape.element_type, pairs, out + D * bytes);
    }
    memset(out + (D + pairs) * bytes, 0, static_cast<size_t>((P - D - pairs) * bytes));
  }
}

// ---- gradient ------------------------------------------------------------------------------------------------------

// sums[r][0 .. C registers) = sum over folded rows j of weights[r][j] * rows[j]
template <class V, int R, int C>
DLRM_INLINE void gradient_tile(const typename V::Element* weights, int64_t weight_row,
                               const typename V::Element* rows, int64_t row_stride, int64_t num_folds, float* sums,
                               int64_t sum_row) {
  typename V::Register totals[R][C];
  DLRM_UNROLL for (int r = 0; r < R; ++r) {
    DLRM_UNROLL for (int c = 0; c < C; ++c) totals[r][c] = V::zero();
  }
  for (int64_t j = 0; j < num_folds; ++j) {
    typename V::Elements values[C];
    DLRM_UNROLL for (int c = 0; c < C; ++c) {
      values[c] = V::load_elements(rows + j * row_stride + c * V::kSums * V::kFold);
    }
    DLRM_UNROLL for (int r = 0; r < R; ++r) {
      const typename V::Elements weight = V::broadcast(weights + r * weight_row + j * V::kFold);
      DLRM_UNROLL for (int c = 0; c < C; ++c) totals[r][c] = V::multiply_add(weight, values[c], totals[r][c]);
    }
  }
  DLRM_UNROLL for (int r = 0; r < R; ++r) {
    DLRM_UNROLL for (int c = 0; c < C; ++c) V::Float::store(sums + r * sum_row + c * V::kSums, totals[r][c]);
  }
}

// R rows of the gradient, all of their columns, into `sums`.
template <class V, int R>
DLRM_INLINE void gradient_rows(const typename V::Element* weights, int64_t weight_row,
                               const typename V::Element* rows, int64_t row_stride, int64_t num_folds, int64_t width,
                               float* sums, int64_t sum_row) {
  constexpr int C = V::kGradientColumns;
  int64_t d = 0;
  for (; d + (C - 1) * V::kSums < width; d += C * V::kSums) {
    gradient_tile<V, R, C>(weights, weight_row, rows + d * V::kFold, row_stride, num_folds, sums + d, sum_row);
  }
  for (; d < width; d += V::kSums) {
    gradient_tile<V, R, 1>(weights, weight_row, rows + d * V::kFold, row_stride, num_folds, sums + d, sum_row);
  }
}

// The symmetric matrix with a zero diagonal whose strictly lower part, row-major, is `dots`. Its padding stays zero.
template <class E, class S>
DLRM_INLINE void fill_weights(const S* dots, int64_t num_vectors, int64_t weight_row, E* weights) {
  for (int64_t i = 0; i < num_vectors; ++i) {
    E* column = weights + i;
    E* row = weights + i * weight_row;
    for (int64_t j = 0; j < i; ++j) {
      row[j] = dots[j];
      column[j * weight_row] = dots[j];
    }
    dots += i;
  }
}

template <class V>
void gradient(const DotShape& shape, const void* features, const void* upstream, void* gradient, int64_t first,
              int64_t last, void* scratch) {
  const Layout<V> layout(shape);
  char* memory = static_cast<char*>(scratch);
  auto* copy = reinterpret_cast<typename V::Element*>(memory + layout.elements_at);
  auto* weights = reinterpret_cast<typename V::Element*>(memory + layout.weights_at);
  auto* sums = reinterpret_cast<float*>(memory + layout.sums_at);
  auto* wide = reinterpret_cast<float*>(memory + layout.upstream_at);
  const int element_type = shape.element_type;
  const int64_t bytes = element_type == DLRM_FLOAT32 ? 4 : 2;
  const int64_t F = shape.num_vectors, D = shape.width, P = shape.output_width, pairs = F * (F - 1) / 2;
  memset(memory, 0, static_cast<size_t>(layout.bytes));  // the diagonal, the paddings
  for (int64_t sample = first; sample < last; ++sample) {
    const char* rows = static_cast<const char*>(features) + sample * F * D * bytes;
    const char* up = static_cast<const char*>(upstream) + sample * P * bytes;
    char* out = static_cast<char*>(gradient) + sample * F * D * bytes;
    const typename V::Element* elements = copy;
    int64_t stride = layout.row_elements * V::kFold;
    if (V::kFold == 1 && V::is_native(element_type) && D % V::kStep == 0) {
      elements = reinterpret_cast<const typename V::Element*>(rows);
      stride = D;
    } else {
      V::fold_rows(rows, element_type, F, D, layout.row_elements, copy);
    }
    if (V::is_native(element_type)) {
      fill_weights(reinterpret_cast<const typename V::Element*>(up) + D, F, layout.weight_row, weights);
    } else {
      read_floats<V>(up + D * bytes, element_type, pairs, wide);
      fill_weights(wide, F, layout.weight_row, weights);
    }
    constexpr int R = V::kGradientRows;
    const int64_t folds = layout.weight_row / V::kFold;
    for (int64_t i = 0; i < F;) {
      const typename V::Element* weight = weights + i * layout.weight_row;
      const int64_t left = F - i;
      const int64_t done = left >= R ? R : left >= 3 && R > 3 ? 3 : 1;
      if (done == R) {
        gradient_rows<V, R>(weight, layout.weight_row, elements, stride, folds, D, sums, layout.float_row);
      } else if (done == 3) {
        gradient_rows<V, 3>(weight, layout.weight_row, elements, stride, folds, D, sums, layout.float_row);
      } else {
        gradient_rows<V, 1>(weight, layout.weight_row, elements, stride, folds, D, sums, layout.float_row);
      }
      if (i == 0) {  // row 0 was copied to the output too
        read_floats<V>(up, element_type, D, wide);
        for (int64_t d = 0; d < D; ++d) sums[d] += wide[d];
      }
      for (int64_t r = 0; r < done; ++r) {
        write_floats<V>(sums + r * layout.float_row, element_type, D, out + (i + r) * D * bytes);
      }
      i += done;
    }
  }
}

// For vector types whose elements are float32: rows as they are, padded to whole registers.
template <class V>
struct FloatElements {
  using Element = float;
  static constexpr int kFold = 1;
  static bool is_native(int element_type) { return element_type == DLRM_FLOAT32; }
  static DLRM_INLINE void read_row(const void* from, int element_type, int64_t width, float* to) {
    read_floats<V>(from, element_type, width, to);
  }
  static DLRM_INLINE void fold_rows(const char* rows, int element_type, int64_t num_vectors, int64_t width,
                                    int64_t stride, float* to) {
    const int64_t bytes = element_type == DLRM_FLOAT32 ? 4 : 2;
    for (int64_t row = 0; row < num_vectors; ++row) {
      read_floats<V>(rows + row * width * bytes, element_type, width, to + row * stride);
    }
  }
};

template <class V>
constexpr dlrm::DotKernels kernels() {
  return {scratch_bytes<V>, forward<V>, gradient<V>};
}

}  // namespace
