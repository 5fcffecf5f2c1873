// The kernels for AVX-512.
#include "vector_avx512.h"
// After the vector type.
#include "embedding_rows_kernels.h"

namespace dlrm {
const RowKernels kRowsAvx512 = DLRM_ROW_KERNELS(Avx512Vector);
}
