# Sets `cuda_objects` when the CUDA kernels can be built: nvcc on the path (or CUDACXX), and sources to build.
set(cuda_objects "")
