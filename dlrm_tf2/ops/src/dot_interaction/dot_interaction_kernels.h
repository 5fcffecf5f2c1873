// The CPU kernels, written once over a vector type V and an element type; each instruction set's translation unit
// includes this file.
//
// A vector type V names the memory of one multiply-add, whose sums are always float32:
//   V::kElementType  the element type whose rows it takes as they are; others become V::Element in scratch first
//   V::Element       float, or bfloat16 bits; V::Elements a register of them
//   V::Float         the vector type of the same instruction set whose elements are float
//   V::kStep         elements of one row that a register of elements holds
//   V::kFold         rows that one multiply-add of the gradient takes in (2 for bfloat16 pairs)
//   V::kDotRows, V::kGradientRows, V::kGradientColumns  the tiles: as many sums as there are registers to keep them in
#pragma once

#include "dot_interaction_cpu.h"
#include "vector.h"

namespace {

using dlrm::DotShape;

// What one sample needs, as parts of one block that starts at a multiple of 64 bytes.
template <class V>
struct Layout {
  explicit Layout(const DotShape& shape)
      : row_elements(round_up(shape.width, V::kStep)), weight_row(round_up(shape.num_vectors, V::kFold)) {
    constexpr int64_t kElement = sizeof(typename V::Element);
    weights_at = round_up(weight_row * row_elements * kElement, 64);
    upstream_at = weights_at + round_up(shape.num_vectors * weight_row * kElement, 64);
    bytes = upstream_at + round_up(shape.output_width, 64) * 4;
  }
  int64_t row_elements;  // of a row of the copy, which starts the block: a whole number of registers
  int64_t weight_row;    // of a row of weights
  int64_t weights_at, upstream_at, bytes;
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
  Floats sums[R][4];
  DLRM_UNROLL for (int r = 0; r < R; ++r) {
    DLRM_UNROLL for (int c = 0; c < 4; ++c) sums[r][c] = Floats{};
  }
  // A loop of a few rounds whose end the processor can foresee.
  _Pragma("GCC unroll 4") for (int64_t k = 0; k < width; k += V::kStep) {
    typename V::Elements left[R];
    DLRM_UNROLL for (int r = 0; r < R; ++r) left[r] = V::load_elements(a[r] + k);
    DLRM_UNROLL for (int c = 0; c < 4; ++c) {
      const typename V::Elements right = V::load_elements(b[c] + k);
      DLRM_UNROLL for (int r = 0; r < R; ++r) sums[r][c] = V::multiply_add(left[r], right, sums[r][c]);
    }
  }
  DLRM_UNROLL for (int r = 0; r < R; ++r) {
    if (counts[r] <= 0) continue;
    store_totals<typename V::Float>(out[r], counts[r], sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
  }
}

// The strictly lower dots of one sample, row-major, into `dots`. Tiles of R rows by 4 columns; rows past the end are
// the last row again, and what they give is not stored. Meanwhile the `row_bytes` of each row of `next` come nearer.
template <class V>
DLRM_INLINE void lower_dots(const typename V::Element* rows, int64_t stride, int64_t num_vectors, const char* next,
                            int64_t row_bytes, float* dots) {
  constexpr int R = V::kDotRows;
  const int64_t last = num_vectors - 1;
  for (int64_t i = 0; i < num_vectors; i += R) {
    prefetch(next + i * row_bytes, smaller(R, num_vectors - i) * row_bytes);
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
      dot_tile<V, R>(a, b, stride, out, counts);
    }
  }
}

template <class V, int kType>
void forward(const DotShape& shape, const void* features, void* output, int64_t first, int64_t last, void* scratch) {
  const Layout<V> layout(shape);
  constexpr int64_t kBytes = bytes_of(kType);
  char* memory = static_cast<char*>(scratch);
  auto* copy = reinterpret_cast<typename V::Element*>(memory);
  auto* wide = reinterpret_cast<float*>(memory + layout.upstream_at);
  const int64_t F = shape.num_vectors, D = shape.width, P = shape.output_width, pairs = F * (F - 1) / 2;
  const bool as_they_are = V::kElementType == kType && D % V::kStep == 0;  // whole registers already
  const int64_t stride = layout.row_elements;
  for (int64_t sample = first; sample < last; ++sample) {
    const char* rows = static_cast<const char*>(features) + sample * F * D * kBytes;
    const char* next = sample + 1 < last ? rows + F * D * kBytes : rows;
    char* out = static_cast<char*>(output) + sample * P * kBytes;
    if (!as_they_are) {
      for (int64_t row = 0; row < F; ++row) {
        V::template read_row<kType>(rows + row * D * kBytes, D, copy + row * stride);
      }
    }
    const auto* elements = as_they_are ? reinterpret_cast<const typename V::Element*>(rows) : copy;
    memcpy(out, rows, static_cast<size_t>(D * kBytes));
    if constexpr (kType == DLRM_FLOAT32) {
      lower_dots<V>(elements, stride, F, next, D * kBytes, reinterpret_cast<float*>(out) + D);
    } else {
      lower_dots<V>(elements, stride, F, next, D * kBytes, wide);
      write_floats<typename V::Float, kType>(wide, pairs, out + D * kBytes);
    }
    memset(out + (D + pairs) * kBytes, 0, static_cast<size_t>((P - D - pairs) * kBytes));
  }
}

// ---- gradient ------------------------------------------------------------------------------------------------------

// R rows of the gradient, C registers of each from column d on: out[r] = sum over folded rows j of weights[r][j] *
// rows[j]. `start`, where there is one, is added to the first row.
template <class V, int kType, int R, int C>
DLRM_INLINE void gradient_tile(const typename V::Element* weights, int64_t weight_row,
                               const typename V::Element* rows, int64_t row_stride, int64_t num_folds,
                               const float* start, int64_t d, int64_t width, bool stream, char* out) {
  Floats totals[R][C];
  DLRM_UNROLL for (int c = 0; c < C; ++c) {
    totals[0][c] = start != nullptr ? read_as<Floats>(start + d + c * kLanes) : Floats{};
    DLRM_UNROLL for (int r = 1; r < R; ++r) totals[r][c] = Floats{};
  }
  rows += d * V::kFold;
  for (int64_t j = 0; j < num_folds; ++j) {
    typename V::Elements values[C];
    DLRM_UNROLL for (int c = 0; c < C; ++c) {
      values[c] = V::load_elements(rows + j * row_stride + c * kLanes * V::kFold);
    }
    DLRM_UNROLL for (int r = 0; r < R; ++r) {
      const typename V::Elements weight = V::load_weights(weights + r * weight_row + j * V::kFold);
      DLRM_UNROLL for (int c = 0; c < C; ++c) totals[r][c] = V::multiply_add(weight, values[c], totals[r][c]);
    }
  }
  DLRM_UNROLL for (int r = 0; r < R; ++r) {
    DLRM_UNROLL for (int c = 0; c < C; ++c) {
      const int64_t column = d + c * kLanes;
      store_part<typename V::Float, kType>(totals[r][c], width - column, stream,
                                           out + (r * width + column) * bytes_of(kType));
    }
  }
}

// R rows of the gradient, all of their columns.
template <class V, int kType, int R>
DLRM_INLINE void gradient_rows(const typename V::Element* weights, int64_t weight_row,
                               const typename V::Element* rows, int64_t row_stride, int64_t num_folds,
                               const float* start, int64_t width, bool stream, char* out) {
  constexpr int C = V::kGradientColumns;
  int64_t d = 0;
  for (; d + (C - 1) * kLanes < width; d += C * kLanes) {
    gradient_tile<V, kType, R, C>(weights, weight_row, rows, row_stride, num_folds, start, d, width, stream, out);
  }
  for (; d < width; d += kLanes) {
    gradient_tile<V, kType, R, 1>(weights, weight_row, rows, row_stride, num_folds, start, d, width, stream, out);
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

// A thread's part of a gradient from which on it is written past the caches, whole lines at a time: it would be gone
// from them before anybody reads it, and memory that is written without being read first costs half.
constexpr int64_t kStreamedBytes = 4 << 20;

template <class V, int kType>
void gradient(const DotShape& shape, const void* features, const void* upstream, void* gradient, int64_t first,
              int64_t last, void* scratch) {
  const Layout<V> layout(shape);
  constexpr int64_t kBytes = bytes_of(kType);
  char* memory = static_cast<char*>(scratch);
  auto* copy = reinterpret_cast<typename V::Element*>(memory);
  auto* weights = reinterpret_cast<typename V::Element*>(memory + layout.weights_at);
  auto* wide = reinterpret_cast<float*>(memory + layout.upstream_at);
  const int64_t F = shape.num_vectors, D = shape.width, P = shape.output_width, pairs = F * (F - 1) / 2;
  const bool as_they_are = V::kFold == 1 && V::kElementType == kType && D % V::kStep == 0;
  const int64_t stride = layout.row_elements * V::kFold, folds = layout.weight_row / V::kFold;
  const int64_t row_bytes = D * kBytes;
  const bool stream = (last - first) * F * row_bytes >= kStreamedBytes && row_bytes % 64 == 0 &&
                      reinterpret_cast<uintptr_t>(gradient) % 64 == 0;
  memset(memory, 0, static_cast<size_t>(layout.bytes));  // the diagonal, the paddings
  for (int64_t sample = first; sample < last; ++sample) {
    const char* rows = static_cast<const char*>(features) + sample * F * D * kBytes;
    const char* next = sample + 1 < last ? rows + F * D * kBytes : rows;
    const char* up = static_cast<const char*>(upstream) + sample * P * kBytes;
    char* out = static_cast<char*>(gradient) + sample * F * D * kBytes;
    if (!as_they_are) V::template fold_rows<kType>(rows, F, D, layout.row_elements, copy);
    const auto* elements = as_they_are ? reinterpret_cast<const typename V::Element*>(rows) : copy;
    if constexpr (V::kElementType == kType) {
      fill_weights(reinterpret_cast<const typename V::Element*>(up) + D, F, layout.weight_row, weights);
    } else {
      read_floats<typename V::Float, kType>(up + D * kBytes, pairs, wide);
      fill_weights(wide, F, layout.weight_row, weights);
    }
    read_floats<typename V::Float, kType>(up, D, wide);  // row 0 was copied to the output too
    constexpr int R = V::kGradientRows;
    for (int64_t i = 0; i < F;) {
      const typename V::Element* weight = weights + i * layout.weight_row;
      const float* start = i == 0 ? wide : nullptr;
      const int64_t left = F - i, done = left >= R ? R : left >= 3 && R > 3 ? 3 : 1;
      prefetch(next + i * D * kBytes, done * D * kBytes);
      char* to = out + i * D * kBytes;
      if (done == R) {
        gradient_rows<V, kType, R>(weight, layout.weight_row, elements, stride, folds, start, D, stream, to);
      } else if (done == 3) {
        gradient_rows<V, kType, 3>(weight, layout.weight_row, elements, stride, folds, start, D, stream, to);
      } else {
        gradient_rows<V, kType, 1>(weight, layout.weight_row, elements, stride, folds, start, D, stream, to);
      }
      i += done;
    }
  }
  if (stream) V::Float::end_streams();
}

// For vector types whose elements are float32: rows as they are, padded to whole registers.
template <class V>
struct FloatElements {
  using Float = V;
  using Element = float;
  using Elements = Floats;
  static constexpr int kElementType = DLRM_FLOAT32, kStep = kLanes, kFold = 1;

  static DLRM_INLINE Floats load_elements(const float* from) { return read_as<Floats>(from); }
  static DLRM_INLINE Floats load_weights(const float* from) { return broadcast(*from); }
  static DLRM_INLINE Floats multiply_add(Floats a, Floats b, Floats sums) { return a * b + sums; }
  template <int kType>
  static DLRM_INLINE void read_row(const char* from, int64_t width, float* to) {
    read_floats<V, kType>(from, width, to);
  }
  template <int kType>
  static DLRM_INLINE void fold_rows(const char* rows, int64_t num_vectors, int64_t width, int64_t stride, float* to) {
    for (int64_t row = 0; row < num_vectors; ++row) {
      read_floats<V, kType>(rows + row * width * bytes_of(kType), width, to + row * stride);
    }
  }
};

template <class V, int kType>
constexpr dlrm::DotKernels kernels() {
  return {scratch_bytes<V>, forward<V, kType>, gradient<V, kType>};
}

#define DLRM_KERNELS(V) {kernels<V, DLRM_FLOAT32>(), kernels<V, DLRM_FLOAT16>(), kernels<V, DLRM_BFLOAT16>()}

}  // namespace
