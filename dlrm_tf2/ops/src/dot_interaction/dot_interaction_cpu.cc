// The C interface of the CPU kernels: checks, the choice of instruction set, scratch memory.
#include "dot_interaction_cpu.h"

#include <stdlib.h>
#include <string.h>

#include "dot_interaction.h"

namespace {

const dlrm::DotKernels* kernels_of(int instruction_set, int element_type) {
  if (instruction_set < 0) instruction_set = dlrm_chosen_cpu_instruction_set();
  if (instruction_set > dlrm_cpu_instruction_set()) return nullptr;
  switch (instruction_set) {
    case DLRM_SCALAR: return &dlrm::kDotScalar[element_type];
#ifdef DLRM_X86
    case DLRM_AVX2: return &dlrm::kDotAvx2[element_type];
    case DLRM_AVX512: return &dlrm::kDotAvx512[element_type];
    case DLRM_AVX512_BF16: return &dlrm::kDotAvx512Bf16[element_type];
#endif
  }
  return nullptr;
}

struct Scratch {
  explicit Scratch(int64_t bytes) {
    if (posix_memalign(&memory, 64, static_cast<size_t>(bytes)) != 0) memory = nullptr;
  }
  ~Scratch() { free(memory); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  void* memory = nullptr;
};

// Wide enough for every index below to fit int64, whatever a caller passes.
constexpr int64_t kMostVectors = 1 << 20, kWidest = 1 << 24;

bool shape_of(int64_t first, int64_t last, int64_t num_vectors, int64_t width, int element_type,
              dlrm::DotShape* shape) {
  if (first < 0 || last < first || num_vectors < 1 || num_vectors > kMostVectors || width < 1 || width > kWidest ||
      element_type < DLRM_FLOAT32 || element_type > DLRM_BFLOAT16) {
    return false;
  }
  *shape = {num_vectors, width, dlrm_dot_interaction_output_width(num_vectors, width), element_type};
  return true;
}

// Calls `run(kernels, shape, scratch)` when the arguments are good and there is anything to do.
template <class Run>
int checked(int64_t first, int64_t last, int64_t num_vectors, int64_t width, int element_type, int instruction_set,
            const Run& run) {
  dlrm::DotShape shape;
  if (!shape_of(first, last, num_vectors, width, element_type, &shape)) return DLRM_BAD_ARGUMENT;
  const dlrm::DotKernels* kernels = kernels_of(instruction_set, element_type);
  if (kernels == nullptr) return DLRM_NO_INSTRUCTION_SET;
  if (first == last) return DLRM_OK;
  const Scratch scratch(kernels->scratch_bytes(shape));
  if (scratch.memory == nullptr) return DLRM_NO_MEMORY;
  run(*kernels, shape, scratch.memory);
  return DLRM_OK;
}

// The gradient where F = 1. Arithmetic would flush denormals and change NaNs, so there is none.
void copy_row_0(const dlrm::DotShape& shape, const void* upstream, void* gradient, int64_t first, int64_t last) {
  const int64_t element = shape.element_type == DLRM_FLOAT32 ? 4 : 2;
  const int64_t row = shape.width * element, upstream_row = shape.output_width * element;
  for (int64_t sample = first; sample < last; ++sample) {
    memcpy(static_cast<char*>(gradient) + sample * row, static_cast<const char*>(upstream) + sample * upstream_row,
           static_cast<size_t>(row));
  }
}

}  // namespace

extern "C" {

int64_t dlrm_dot_interaction_output_width(int64_t num_vectors, int64_t width) {
  return (width + num_vectors * (num_vectors - 1) / 2 + 7) / 8 * 8;
}

int dlrm_dot_interaction_cpu(const void* features, void* output, int64_t first, int64_t last, int64_t num_vectors,
                             int64_t width, int element_type, int instruction_set) {
  return checked(first, last, num_vectors, width, element_type, instruction_set,
                 [&](const dlrm::DotKernels& kernels, const dlrm::DotShape& shape, void* scratch) {
                   kernels.forward(shape, features, output, first, last, scratch);
                 });
}

int dlrm_dot_interaction_gradient_cpu(const void* features, const void* upstream, void* gradient, int64_t first,
                                      int64_t last, int64_t num_vectors, int64_t width, int element_type,
                                      int instruction_set) {
  return checked(first, last, num_vectors, width, element_type, instruction_set,
                 [&](const dlrm::DotKernels& kernels, const dlrm::DotShape& shape, void* scratch) {
                   if (num_vectors == 1) return copy_row_0(shape, upstream, gradient, first, last);
                   kernels.gradient(shape, features, upstream, gradient, first, last, scratch);
                 });
}

}  // extern "C"
