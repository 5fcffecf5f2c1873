# Sets `cuda_objects` where the CUDA kernels can be built: an nvcc on the path (or in CUDACXX) whose toolkit has the static
# runtime. Everything of sm_70 to sm_120 that this nvcc knows goes into one fat binary, and the newest one's PTX for later
# GPUs. (CUDA 13 no longer knows sm_70; CUDA 12.8 is the first that knows sm_100 and sm_120.) nvcc is called directly: CMake's own CUDA support ends the build where it fails.
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
  foreach(architecture 70 75 80 86 89 90 100 120)
    if(known MATCHES "sm_${architecture}[^0-9]")
      list(APPEND DLRM_CUDA_ARCHITECTURES ${architecture})
    endif()
  endforeach()
endif()
list(GET DLRM_CUDA_ARCHITECTURES -1 newest)
message(STATUS "CUDA kernels: ${nvcc} for sm_${DLRM_CUDA_ARCHITECTURES}, PTX of compute_${newest}")

# Kernels that wait for memory gain nothing from the variants of sm_80: its code runs on sm_86 and sm_89 as it is.
set(few_architectures ${DLRM_CUDA_ARCHITECTURES})
if(80 IN_LIST few_architectures)
  list(REMOVE_ITEM few_architectures 86 89)
endif()

file(GLOB cuda_headers ${CMAKE_CURRENT_SOURCE_DIR}/src/*.cuh ${CMAKE_CURRENT_SOURCE_DIR}/src/*.h
     ${CMAKE_CURRENT_SOURCE_DIR}/src/*/*.cuh
     ${CMAKE_CURRENT_SOURCE_DIR}/src/*/*.h)

# compile_cuda(source architectures [option ..]): appends the object to cuda_objects. Code is compressed to a quarter.
macro(compile_cuda source architectures)
  get_filename_component(name ${source} NAME_WE)
  set(object ${CMAKE_CURRENT_BINARY_DIR}/${name}.o)
  set(code "")
  foreach(architecture ${architectures})
    list(APPEND code -gencode arch=compute_${architecture},code=sm_${architecture})
  endforeach()
  list(APPEND code -gencode arch=compute_${newest},code=compute_${newest})
  add_custom_command(
    OUTPUT ${object}
    COMMAND ${nvcc} -O3 -std=c++17 --threads 0 ${code} ${ARGN} -Xptxas -v -Xfatbin=-compress-all -Xcompiler -fPIC
            -I ${CMAKE_CURRENT_SOURCE_DIR}/src -c ${CMAKE_CURRENT_SOURCE_DIR}/src/${source} -o ${object}
    DEPENDS src/${source} ${cuda_headers}
    VERBATIM)
  list(APPEND cuda_objects ${object})
endmacro()

compile_cuda(dot_interaction/dot_interaction_cuda.cu "${DLRM_CUDA_ARCHITECTURES}")
# Embedding rows have the bits of the CPU, so products and sums are rounded one by one, and roots and quotients once.
compile_cuda(embedding_rows/embedding_rows_cuda.cu "${few_architectures}" -fmad=false --prec-sqrt=true --prec-div=true)
compile_cuda(embedding_rows/status_cuda.cu "${few_architectures}")
compile_cuda(embedding_rows/sort_cuda.cu "${few_architectures}")
# The first values of keys have the bits of the CPU too.
compile_cuda(hash_table/initial_rows_cuda.cu "${few_architectures}" -fmad=false)
compile_cuda(hash_table/key_index_cuda.cu "${few_architectures}")

add_custom_target(compile_cuda DEPENDS ${cuda_objects})
find_package(Threads REQUIRED)
add_library(cuda_kernels INTERFACE)
add_dependencies(cuda_kernels compile_cuda)
# The static runtime finds the driver when it is first asked, so the library loads where there is none.
target_link_libraries(cuda_kernels INTERFACE ${cuda_objects} ${cudart_static} Threads::Threads dl rt)
