// AVX-512 for float32, and for the 2-byte types by way of float32.
#include "dot_interaction_avx512.h"

namespace dlrm {
const DotKernels kDotAvx512[] = DLRM_KERNELS(Avx512);
}
