// The dot interaction on tensor cores: float16 and bfloat16, up to 32 vectors, a width that is a multiple of 8, all
// tensors aligned to 16 bytes. One warp per sample; the input is read once, every global access is 16 bytes wide.
//
// F (F - 1) / 2 dots of one sample are the strict lower half of X X^T, which fits one warp's registers: 6 tiles of
// 16 x 8. The same registers serve as left and right operand, because row i of X is column i of X^T.
#pragma once

#include "cuda_primitives.cuh"

namespace tensor_cores {

// Warps to a block: what lets most warps share a multiprocessor of 228 KB at 27 vectors of width 128.
constexpr int kMostVectors = 32, kForwardWarps = 4, kGradientWarps = 2;

// Rows of shared memory are an odd number of 16-byte units apart, so that eight rows lie in eight bank groups.
__host__ __device__ inline int row_stride(int width) { return (width + 15) / 16 * 16 + 8; }
__host__ __device__ inline int padded_rows(int num_vectors) { return num_vectors > 16 ? 32 : 16; }

// Elements of shared memory per warp; multiples of 8.
__host__ __device__ inline int forward_elements(int num_vectors, int width, int output_width) {
  return num_vectors * row_stride(width) + (output_width - width);
}
__host__ __device__ inline int gradient_elements(int num_vectors, int width, int output_width) {
  const int padded = padded_rows(num_vectors);
  return padded * row_stride(width) + padded * (padded + 8) + output_width;
}

DLRM_DEVICE int pair_index(int row, int column) { return row * (row - 1) / 2 + column; }

// Starts the copy of one sample's rows into shared memory.
template <class T>
DLRM_DEVICE void start_rows(T* rows, const T* from, int num_vectors, int width, int stride, int lane) {
  const int chunks = width / 8;
  for (int chunk = lane; chunk < num_vectors * chunks; chunk += 32) {
    start_copy(rows + chunk / chunks * stride + chunk % chunks * 8, from + chunk * 8);
  }
}

// kWidth: D where it is known to the compiler, else 0.
template <class T, int kWidth>
__global__ void __launch_bounds__(32 * kForwardWarps)
    forward(const T* features, T* output, int64_t num_samples, int num_vectors, int any_width, int output_width) {
  DLRM_SHARED(memory);
  const int width = kWidth ? kWidth : any_width;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int64_t sample = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + warp;
  if (sample >= num_samples) return;
  const int stride = row_stride(width);
  T* rows = reinterpret_cast<T*>(memory) + warp * forward_elements(num_vectors, width, output_width);
  T* dots = rows + num_vectors * stride;
  const T* from = features + sample * num_vectors * width;
  T* out = output + sample * output_width;

  start_rows(rows, from, num_vectors, width, stride, lane);
  if (width % 16 != 0 && lane < num_vectors) {  // the last step of 16 reaches 8 columns past the end
    *reinterpret_cast<uint4*>(rows + lane * stride + width) = make_uint4(0, 0, 0, 0);
  }
  const int num_pairs = num_vectors * (num_vectors - 1) / 2;
  if (lane < output_width - width - num_pairs) dots[num_pairs + lane].bits = 0;
  wait_for_copies();
  __syncwarp();

  for (int chunk = lane; chunk < width / 8; chunk += 32) {  // row 0 goes out as it came
    reinterpret_cast<uint4*>(out)[chunk] = reinterpret_cast<const uint4*>(rows)[chunk];
  }
  // Rows past the end are the last row again; what they give is not stored.
  const int matrix_row = lane % 16, matrix_column = lane / 16 * 8, last = num_vectors - 1;
  const T* low = rows + min(matrix_row, last) * stride + matrix_column;
  const T* high = rows + min(16 + matrix_row, last) * stride + matrix_column;
  float sums[6][4] = {};  // tiles (0, 0), (0, 1), then (1, 0) to (1, 3), of 16 rows by 8 columns
  for (int k = 0; k < width; k += 16) {
    uint32_t a[4], b[4];
    load_matrices<false>(low + k, a);
    multiply_add<T>(sums[0], a, a[0], a[2]);
    multiply_add<T>(sums[1], a, a[1], a[3]);
    if (num_vectors > 16) {
      load_matrices<false>(high + k, b);
      multiply_add<T>(sums[2], b, a[0], a[2]);
      multiply_add<T>(sums[3], b, a[1], a[3]);
      multiply_add<T>(sums[4], b, b[0], b[2]);
      multiply_add<T>(sums[5], b, b[1], b[3]);
    }
  }
#pragma unroll
  for (int tile = 0; tile < 6; ++tile) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = (tile < 2 ? 0 : 16) + g + i / 2 * 8;
      const int column = (tile < 2 ? tile : tile - 2) * 8 + 2 * t + i % 2;
      if (row < num_vectors && column < row) from_float(sums[tile][i], dots + pair_index(row, column));
    }
  }
  __syncwarp();
  for (int chunk = lane; chunk < (output_width - width) / 8; chunk += 32) {
    reinterpret_cast<uint4*>(out + width)[chunk] = reinterpret_cast<const uint4*>(dots)[chunk];
  }
}

// gradient = S X, S being the symmetric matrix with a zero diagonal that holds the upstream dots; plus, in row 0, the
// upstream of the copied row. The result replaces X in shared memory, 16 columns at a time.
template <class T, int kWidth>
__global__ void __launch_bounds__(32 * kGradientWarps)
    gradient(const T* features, const T* upstream, T* result, int64_t num_samples, int num_vectors, int any_width,
             int output_width) {
  DLRM_SHARED(memory);
  const int width = kWidth ? kWidth : any_width;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int64_t sample = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + warp;
  if (sample >= num_samples) return;
  const int stride = row_stride(width), padded = padded_rows(num_vectors), weight_stride = padded + 8;
  T* rows = reinterpret_cast<T*>(memory) + warp * gradient_elements(num_vectors, width, output_width);
  T* weights = rows + padded * stride;
  T* up = weights + padded * weight_stride;

  start_rows(rows, features + sample * num_vectors * width, num_vectors, width, stride, lane);
  start_rows(up, upstream + sample * output_width, 1, output_width, 0, lane);
  // Zeros meet zero weights, but what was in the memory before could be NaN.
  for (int i = num_vectors * stride / 8 + lane; i < padded * stride / 8; i += 32) {
    reinterpret_cast<uint4*>(rows)[i] = make_uint4(0, 0, 0, 0);
  }
  for (int i = lane; i < padded * weight_stride / 8; i += 32) {
    reinterpret_cast<uint4*>(weights)[i] = make_uint4(0, 0, 0, 0);
  }
  wait_for_copies();
  __syncwarp();
#pragma unroll 4
  for (int i = 1; i < num_vectors; ++i) {
    if (lane < i) {
      const T value = up[width + pair_index(i, lane)];
      weights[i * weight_stride + lane] = value;
      weights[lane * weight_stride + i] = value;
    }
  }
  __syncwarp();

  const int matrix_row = lane % 16, matrix_column = lane / 16 * 8;
  const bool two = num_vectors > 16;
  uint32_t a[2][2][4];
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      if (two || m + k == 0) {
        load_matrices<false>(weights + (m * 16 + matrix_row) * weight_stride + k * 16 + matrix_column, a[m][k]);
      }
    }
  }
  for (int column = 0; column < width; column += 16) {
    float sums[2][2][4] = {};
    if (g == 0) {  // row 0 was copied to the output too
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const int d = column + n * 8 + 2 * t;
        if (d < width) {
          sums[0][n][0] = to_float(up[d]);
          sums[0][n][1] = to_float(up[d + 1]);
        }
      }
    }
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      if (!two && k > 0) break;
      uint32_t b[4];
      load_matrices<true>(rows + (k * 16 + matrix_row) * stride + column + matrix_column, b);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        if (!two && m > 0) break;
        multiply_add<T>(sums[m][0], a[m][k], b[0], b[1]);
        multiply_add<T>(sums[m][1], a[m][k], b[2], b[3]);
      }
    }
    __syncwarp();  // every lane has read these columns
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int n = 0; n < 2; ++n) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int row = m * 16 + g + half * 8;
          if (row < num_vectors) {
            T pair[2];
            from_float(sums[m][n][2 * half], pair);
            from_float(sums[m][n][2 * half + 1], pair + 1);
            *reinterpret_cast<uint32_t*>(rows + row * stride + column + n * 8 + 2 * t) =
                pair[0].bits | static_cast<uint32_t>(pair[1].bits) << 16;
          }
        }
      }
    }
  }
  __syncwarp();
  T* out = result + sample * num_vectors * width;
  const int chunks = width / 8;
  for (int chunk = lane; chunk < num_vectors * chunks; chunk += 32) {
    reinterpret_cast<uint4*>(out)[chunk] =
        *reinterpret_cast<const uint4*>(rows + chunk / chunks * stride + chunk % chunks * 8);
  }
}

}  // namespace tensor_cores
