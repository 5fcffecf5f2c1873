// The kernels for any processor.
#include "vector_scalar.h"
// After the vector type.
#include "dot_interaction_kernels.h"

namespace {

struct Scalar : ScalarVector, FloatElements<Scalar> {
  static constexpr int kDotRows = 2, kGradientRows = 3, kGradientColumns = 2;
};

}  // namespace

namespace dlrm {
const DotKernels kDotScalar[] = DLRM_KERNELS(Scalar);
}
