// AVX2: 8 sums to a register.
#include "vector_avx2.h"
// After the vector type.
#include "dot_interaction_kernels.h"

namespace {

struct Avx2 : Avx2Vector, FloatElements<Avx2> {
  static constexpr int kDotRows = 3, kGradientRows = 3, kGradientColumns = 4;
};

}  // namespace

namespace dlrm {
const DotKernels kDotAvx2[] = DLRM_KERNELS(Avx2);
}
