// The tiles of AVX-512, 16 sums to a register. Included by the two translation units that use it.
#pragma once

#include "vector_avx512.h"
// After the vector type.
#include "dot_interaction_kernels.h"

namespace {

struct Avx512 : Avx512Vector, FloatElements<Avx512> {
  static constexpr int kDotRows = 4, kGradientRows = 6, kGradientColumns = 4;
};

}  // namespace
