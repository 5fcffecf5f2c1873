// Between the dispatch (dot_interaction_cpu.cc) and the kernels, one translation unit per instruction set.
#pragma once

#include <stdint.h>

namespace dlrm {

struct DotShape {
  int64_t num_vectors;   // F
  int64_t width;         // D
  int64_t output_width;  // P
  int element_type;
};

// Bytes of scratch that a call needs, and the call itself. `scratch` is aligned to 64 bytes.
struct DotKernels {
  int64_t (*scratch_bytes)(const DotShape& shape);
  void (*forward)(const DotShape& shape, const void* features, void* output, int64_t first, int64_t last,
                  void* scratch);
  void (*gradient)(const DotShape& shape, const void* features, const void* upstream, void* gradient, int64_t first,
                   int64_t last, void* scratch);
};

// By element type.
extern const DotKernels kDotScalar[3];
#ifdef DLRM_X86
extern const DotKernels kDotAvx2[3];
extern const DotKernels kDotAvx512[3];
extern const DotKernels kDotAvx512Bf16[3];
#endif

}  // namespace dlrm
