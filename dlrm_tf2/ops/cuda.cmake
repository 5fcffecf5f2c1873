# Sets `cuda_objects` where the CUDA kernels can be built: an nvcc on the path (or in CUDACXX) whose toolkit has the static
# runtime. Everything of sm_70 to sm_90 that this nvcc knows goes into one fat binary, and the newest one's PTX for later
# GPUs. (CUDA 13 no longer knows sm_70.) nvcc is called directly: CMake's own CUDA support ends the build where it fails.
set(cuda_objects "")
find_program(nvcc NAMES nvcc HINTS ENV CUDACXX)
if(NOT nvcc)
  message(STATUS "CUDA kernels: left out, no nvcc on the path")
  return()
endif()
execute_process(COMMAND ${nvcc} --list-gpu-code OUTPUT_VARIABLE known ERROR_QUIET RESULT_VARIABLE no_list)
# Where its toolkit is, also when nvcc is a link or a script: it says so itself.
execute_process(COMMAND ${nvcc} --dryrun -c nothing.cu ERROR_VARIABLE dry_run OUTPUT_QUIET)
string(REGEX MATCH "#\\$ TOP=([^\n]*)" found "${dry_run}")
string(STRIP "${CMAKE_MATCH_1}" cuda_home)
find_library(cudart_static cudart_static PATHS ${cuda_home}/lib64 ${cuda_home}/lib ${cuda_home}/targets/x86_64-linux/lib)
if(no_list OR NOT cudart_static)
  message(STATUS "CUDA kernels: left out, ${nvcc} has no static CUDA runtime beside it")
  return()
endif()

if(NOT DLRM_CUDA_ARCHITECTURES)
  foreach(architecture 70 75 80 86 89 90)
    if(known MATCHES "sm_${architecture}[^0-9]")
      list(APPEND DLRM_CUDA_ARCHITECTURES ${architecture})
    endif()
  endforeach()
endif()
set(code "")
foreach(architecture ${DLRM_CUDA_ARCHITECTURES})
  list(APPEND code -gencode arch=compute_${architecture},code=sm_${architecture})
endforeach()
list(GET DLRM_CUDA_ARCHITECTURES -1 newest)
list(APPEND code -gencode arch=compute_${newest},code=compute_${newest})
message(STATUS "CUDA kernels: ${nvcc} for sm_${DLRM_CUDA_ARCHITECTURES}, PTX of compute_${newest}")

set(cuda_objects ${CMAKE_CURRENT_BINARY_DIR}/dot_interaction_cuda.o)
file(GLOB cuda_headers ${CMAKE_CURRENT_SOURCE_DIR}/src/*.cuh ${CMAKE_CURRENT_SOURCE_DIR}/src/*/*.cuh
     ${CMAKE_CURRENT_SOURCE_DIR}/src/*/*.h)
add_custom_command(
  OUTPUT ${cuda_objects}
  COMMAND ${nvcc} -O3 -std=c++17 --threads 0 ${code} -Xptxas -v -Xcompiler -fPIC
          -I ${CMAKE_CURRENT_SOURCE_DIR}/src -c ${CMAKE_CURRENT_SOURCE_DIR}/src/dot_interaction/dot_interaction_cuda.cu -o ${cuda_objects}
  DEPENDS src/dot_interaction/dot_interaction_cuda.cu ${cuda_headers}
  VERBATIM)
add_custom_target(compile_cuda DEPENDS ${cuda_objects})
find_package(Threads REQUIRED)
add_library(cuda_kernels INTERFACE)
add_dependencies(cuda_kernels compile_cuda)
# The static runtime finds the driver when it is first asked, so the library loads where there is none.
target_link_libraries(cuda_kernels INTERFACE ${cuda_objects} ${cudart_static} Threads::Threads dl rt)
