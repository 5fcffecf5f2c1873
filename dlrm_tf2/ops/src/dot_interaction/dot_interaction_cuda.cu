// The C interface of the CUDA kernels: checks, the choice of kernel, launches.
#include "dot_interaction.h"
#include "dot_interaction_general.cuh"
#include "dot_interaction_tensor.cuh"

namespace {

struct Gpu {
  int error = 0;  // a cudaError_t
  int capability = 0;  // 75 for sm_75
  int64_t shared_bytes = 0;  // that a block may have when it asks
};

Gpu current_gpu() {
  Gpu gpu;
  int device = 0, major = 0, minor = 0, shared = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  gpu.error = static_cast<int>(error);
  gpu.capability = 10 * major + minor;
  gpu.shared_bytes = shared;
  return gpu;
}

bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

int code_of(int cuda_error) { return cuda_error == 0 ? DLRM_OK : DLRM_CUDA_ERROR + cuda_error; }

// Warps to a block of the tensor-core kernels; 0 where one warp's sample is more than a block's shared memory.
int warps_that_fit(const Gpu& gpu, int most, int64_t elements_per_warp) {
  return static_cast<int>(least(most, gpu.shared_bytes / (2 * elements_per_warp)));
}

// A warp for each sample, as many to a block as fit.
template <class Kernel, class... Arguments>
int launch_warps(const Gpu& gpu, Kernel kernel, int most, int64_t elements_per_warp, int64_t num_samples, void* stream,
                 Arguments... arguments) {
  const int warps = warps_that_fit(gpu, most, elements_per_warp);
  return code_of(launch(kernel, (num_samples + warps - 1) / warps, 32 * warps, 2 * elements_per_warp * warps, stream,
                        arguments...));
}

bool tensor_cores_serve(const Gpu& gpu, int64_t num_vectors, int64_t width, int element_type) {
  const int needed = element_type == DLRM_FLOAT16 ? 75 : element_type == DLRM_BFLOAT16 ? 80 : 1 << 30;
  return gpu.capability >= needed && num_vectors <= tensor_cores::kMostVectors && width % 8 == 0 && width <= 4096;
}

template <class T>
int forward(const Gpu& gpu, const void* features, void* output, int64_t num_samples, int64_t num_vectors, int64_t width,
            bool tensor, void* stream) {
  const int64_t output_width = dlrm_dot_interaction_output_width(num_vectors, width);
  const T* from = static_cast<const T*>(features);
  T* to = static_cast<T*>(output);
  if constexpr (sizeof(T) == 2) {
    if (tensor) {
      const int64_t elements = tensor_cores::forward_elements(num_vectors, width, output_width);
      const auto kernel = width == 128 ? tensor_cores::forward<T, 128> : tensor_cores::forward<T, 0>;
      return launch_warps(gpu, kernel, tensor_cores::kForwardWarps, elements, num_samples, stream, from, to, num_samples,
                          num_vectors, width, output_width);
    }
  }
  // As many columns at a time as fit next to the dots; without room for both, the dots go straight out.
  const int64_t num_pairs = num_vectors * (num_vectors - 1) / 2, floats = gpu.shared_bytes / 4;
  const int64_t dots = (num_pairs * int64_t(sizeof(T)) + 3) / 4;
  int staged = 1;
  int64_t chunk = least(width, (floats - dots) / num_vectors - 1);
  if (chunk < least(width, 32)) {
    staged = 0;
    chunk = least(width, floats / num_vectors - 1);
  }
  if (chunk < 1) return DLRM_TOO_LARGE;
  const int64_t groups = (num_vectors + 3) / 4, tiles = groups * (groups + 1) / 2;
  const int threads = static_cast<int>(least(general::kMostThreads, (tiles + 31) / 32 * 32));
  const int64_t bytes = num_vectors * (chunk | 1) * 4 + (staged ? dots * 4 : 0);
  return code_of(launch(general::forward<T>, num_samples, threads, bytes, stream, from, to, num_vectors, width,
                        output_width, chunk, staged));
}

template <class T>
int gradient(const Gpu& gpu, const void* features, const void* upstream, void* result, int64_t num_samples,
             int64_t num_vectors, int64_t width, bool tensor, void* stream) {
  const int64_t output_width = dlrm_dot_interaction_output_width(num_vectors, width);
  const T* from = static_cast<const T*>(features);
  const T* up = static_cast<const T*>(upstream);
  T* to = static_cast<T*>(result);
  if (num_vectors == 1) {  // a copy of row 0, which keeps its bits: arithmetic would change NaNs and -0
    constexpr int64_t kBytes = sizeof(T);
    return code_of(copy_rows(to, width * kBytes, up, output_width * kBytes, width * kBytes, num_samples, stream));
  }
  if constexpr (sizeof(T) == 2) {
    if (tensor) {
      const int64_t elements = tensor_cores::gradient_elements(num_vectors, width, output_width);
      const auto kernel = width == 128 ? tensor_cores::gradient<T, 128> : tensor_cores::gradient<T, 0>;
      return launch_warps(gpu, kernel, tensor_cores::kGradientWarps, elements, num_samples, stream, from, up, to,
                          num_samples, num_vectors, width, output_width);
    }
  }
  const int64_t chunk = least(least(width, general::kColumns), gpu.shared_bytes / 4 / num_vectors - general::kTileRows);
  if (chunk < 1) return DLRM_TOO_LARGE;
  const int threads = static_cast<int>((chunk + 31) / 32 * 32);
  const int64_t bytes = num_vectors * (chunk + general::kTileRows) * 4;
  return code_of(launch(general::gradient<T>, num_samples, threads, bytes, stream, from, up, to, num_vectors, width,
                        output_width, chunk));
}

// What forward and gradient have in common. Sets `tensor`; returns an error code, or -1 to continue.
int prepare(const Gpu& gpu, int64_t num_samples, int64_t num_vectors, int64_t width, int element_type, int kernel,
            bool all_aligned, int64_t elements_per_warp, bool* tensor) {
  if (gpu.error != 0) return code_of(gpu.error);
  const bool served = tensor_cores_serve(gpu, num_vectors, width, element_type) && all_aligned &&
                      warps_that_fit(gpu, 1, elements_per_warp) == 1;
  if (kernel == 1 && !served) return DLRM_BAD_ARGUMENT;
  *tensor = served && kernel != 0;
  return num_samples == 0 ? DLRM_OK : -1;
}

// Blocks are counted in 31 bits and rows and columns in 32.
bool good(int64_t num_samples, int64_t num_vectors, int64_t width, int element_type, int kernel) {
  return num_samples >= 0 && num_samples < (int64_t(1) << 31) && num_vectors >= 1 && num_vectors <= 1 << 15 &&
         width >= 1 && width <= 1 << 15 && element_type >= DLRM_FLOAT32 && element_type <= DLRM_BFLOAT16 &&
         kernel >= -1 && kernel <= 1;
}

}  // namespace

extern "C" {

int dlrm_cuda_status(void) {
  const Gpu gpu = current_gpu();
  if (gpu.error != 0) return code_of(gpu.error);
  cudaFuncAttributes attributes;
  return code_of(static_cast<int>(cudaFuncGetAttributes(&attributes, general::forward<float>)));
}

const char* dlrm_cuda_error_text(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

int dlrm_dot_interaction_cuda(const void* features, void* output, int64_t num_samples, int64_t num_vectors,
                              int64_t width, int element_type, int kernel, void* stream) {
  if (!good(num_samples, num_vectors, width, element_type, kernel)) return DLRM_BAD_ARGUMENT;
  const Gpu gpu = current_gpu();
  const int64_t output_width = dlrm_dot_interaction_output_width(num_vectors, width);
  const int64_t elements = num_vectors <= tensor_cores::kMostVectors
                               ? tensor_cores::forward_elements(num_vectors, width, output_width)
                               : int64_t(1) << 40;
  bool tensor = false;
  const int code = prepare(gpu, num_samples, num_vectors, width, element_type, kernel,
                           aligned(features) && aligned(output), elements, &tensor);
  if (code >= 0) return code;
  const auto run = element_type == DLRM_FLOAT32   ? forward<float>
                   : element_type == DLRM_FLOAT16 ? forward<Half>
                                                  : forward<Bfloat>;
  return run(gpu, features, output, num_samples, num_vectors, width, tensor, stream);
}

int dlrm_dot_interaction_gradient_cuda(const void* features, const void* upstream, void* gradient_out,
                                       int64_t num_samples, int64_t num_vectors, int64_t width, int element_type,
                                       int kernel, void* stream) {
  if (!good(num_samples, num_vectors, width, element_type, kernel)) return DLRM_BAD_ARGUMENT;
  const Gpu gpu = current_gpu();
  const int64_t output_width = dlrm_dot_interaction_output_width(num_vectors, width);
  const int64_t elements = num_vectors <= tensor_cores::kMostVectors
                               ? tensor_cores::gradient_elements(num_vectors, width, output_width)
                               : int64_t(1) << 40;
  bool tensor = false;
  const int code = prepare(gpu, num_samples, num_vectors, width, element_type, kernel,
                           aligned(features) && aligned(upstream) && aligned(gradient_out), elements, &tensor);
  if (code >= 0) return code;
  const auto run = element_type == DLRM_FLOAT32   ? gradient<float>
                   : element_type == DLRM_FLOAT16 ? gradient<Half>
                                                  : gradient<Bfloat>;
  return run(gpu, features, upstream, gradient_out, num_samples, num_vectors, width, tensor, stream);
}

}  // extern "C"
