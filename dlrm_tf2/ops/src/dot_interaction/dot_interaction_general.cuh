// The dot interaction for every shape, element type and alignment: one block per sample, float32 in shared memory and
// in every product. Also what float32 uses: its tensor-core form would round the inputs to 10 bits.
#pragma once

#include "cuda_primitives.cuh"

namespace general {

constexpr int kMostThreads = 256, kColumns = 128, kTileRows = 8;

DLRM_DEVICE int64_t pair_index(int i, int j) {
  return static_cast<int64_t>(max(i, j)) * (max(i, j) - 1) / 2 + min(i, j);
}

// A chunk of columns of all rows, as float32, `stride` apart.
template <class T>
DLRM_DEVICE void stage_rows(float* rows, const T* from, int num_vectors, int width, int first, int columns,
                            int stride) {
  for (int i = threadIdx.x; i < num_vectors * columns; i += blockDim.x) {
    const int row = i / columns, column = i % columns;
    rows[row * stride + column] = to_float(from[static_cast<int64_t>(row) * width + first + column]);
  }
}

// Each thread takes tiles of 4 x 4 dots. With G = ceil(F / 4) groups, group a is the rows a, a + G, a + 2G, a + 3G: two
// groups meet in 16 pairs that are all different, and neighbouring threads read neighbouring rows.
//
// Shared memory: rows [F][stride] float32, stride odd; then, where `staged`, the dots on their way out.
template <class T>
__global__ void __launch_bounds__(kMostThreads)
    forward(const T* features, T* output, int num_vectors, int width, int64_t output_width, int chunk, int staged) {
  DLRM_SHARED(memory);
  float* rows = reinterpret_cast<float*>(memory);
  const int stride = chunk | 1, groups = (num_vectors + 3) / 4, last = num_vectors - 1;
  T* dots = reinterpret_cast<T*>(rows + num_vectors * stride);
  const T* from = features + static_cast<int64_t>(blockIdx.x) * num_vectors * width;
  T* out = output + static_cast<int64_t>(blockIdx.x) * output_width;
  const int64_t num_tiles = static_cast<int64_t>(groups) * (groups + 1) / 2;
  const int64_t num_pairs = static_cast<int64_t>(num_vectors) * last / 2;
  for (int d = threadIdx.x; d < width; d += blockDim.x) out[d] = from[d];
  for (int64_t p = width + num_pairs + threadIdx.x; p < output_width; p += blockDim.x) from_float(0.0f, out + p);

  for (int64_t round = 0; round < num_tiles; round += blockDim.x) {
    const int64_t tile = round + threadIdx.x;
    const bool busy = tile < num_tiles;
    // Tiles (a, b), a >= b, in the order of pairs: a is the largest with a (a + 1) / 2 <= tile.
    int a = static_cast<int>((sqrtf(8.0f * static_cast<float>(tile) + 1.0f) - 1.0f) * 0.5f);
    while (static_cast<int64_t>(a) * (a + 1) / 2 > tile) --a;
    while (static_cast<int64_t>(a + 1) * (a + 2) / 2 <= tile) ++a;
    const int b = static_cast<int>(tile - static_cast<int64_t>(a) * (a + 1) / 2);
    float sums[4][4] = {};
    for (int first = 0; first < width; first += chunk) {
      const int columns = min(chunk, width - first);
      if (round == 0 || chunk < width) {
        __syncthreads();  // nobody reads the chunk before any more
        stage_rows(rows, from, num_vectors, width, first, columns, stride);
        __syncthreads();
      }
      if (busy) {
        const float *left[4], *right[4];
#pragma unroll
        for (int r = 0; r < 4; ++r) {
          left[r] = rows + min(a + groups * r, last) * stride;
          right[r] = rows + min(b + groups * r, last) * stride;
        }
        for (int k = 0; k < columns; ++k) {
          float x[4], y[4];
#pragma unroll
          for (int r = 0; r < 4; ++r) {
            x[r] = left[r][k];
            y[r] = right[r][k];
          }
#pragma unroll
          for (int r = 0; r < 4; ++r) {
#pragma unroll
            for (int c = 0; c < 4; ++c) sums[r][c] = fmaf(x[r], y[c], sums[r][c]);
          }
        }
      }
    }
    if (busy) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          const int i = a + groups * r, j = b + groups * c;
          if (i <= last && j <= last && (a != b || r > c)) {
            from_float(sums[r][c], (staged ? dots : out + width) + pair_index(i, j));
          }
        }
      }
    }
  }
  if (staged) {
    __syncthreads();
    for (int64_t p = threadIdx.x; p < num_pairs; p += blockDim.x) out[width + p] = dots[p];
  }
}

// Each thread takes one column of `chunk`, and 8 rows of the result at a time.
//
// Shared memory: rows [F][chunk] float32; weights [F][8] float32, the upstream dots of those 8 rows with every row.
template <class T>
__global__ void __launch_bounds__(kColumns)
    gradient(const T* features, const T* upstream, T* result, int num_vectors, int width, int64_t output_width,
             int chunk) {
  DLRM_SHARED(memory);
  float* weights = reinterpret_cast<float*>(memory);
  float* rows = weights + num_vectors * kTileRows;
  const T* from = features + static_cast<int64_t>(blockIdx.x) * num_vectors * width;
  const T* up = upstream + static_cast<int64_t>(blockIdx.x) * output_width;
  T* out = result + static_cast<int64_t>(blockIdx.x) * num_vectors * width;
  for (int first = 0; first < width; first += chunk) {
    const int columns = min(chunk, width - first);
    __syncthreads();
    stage_rows(rows, from, num_vectors, width, first, columns, chunk);
    for (int row = 0; row < num_vectors; row += kTileRows) {
      __syncthreads();  // rows are there, and nobody reads the weights before any more
      for (int i = threadIdx.x; i < num_vectors * kTileRows; i += blockDim.x) {
        const int j = i / kTileRows, mine = row + i % kTileRows;
        weights[i] = mine < num_vectors && mine != j ? to_float(up[width + pair_index(mine, j)]) : 0.0f;
      }
      __syncthreads();
      for (int d = threadIdx.x; d < columns; d += blockDim.x) {
        float sums[kTileRows] = {};
        if (row == 0) sums[0] = to_float(up[first + d]);  // row 0 was copied to the output too
        for (int j = 0; j < num_vectors; ++j) {
          const float x = rows[j * chunk + d];
#pragma unroll
          for (int r = 0; r < kTileRows; ++r) sums[r] = fmaf(weights[j * kTileRows + r], x, sums[r]);
        }
#pragma unroll
        for (int r = 0; r < kTileRows; ++r) {
          if (row + r < num_vectors) from_float(sums[r], out + static_cast<int64_t>(row + r) * width + first + d);
        }
      }
    }
  }
}

}  // namespace general
