// The kernels for AVX2.
#include "vector_avx2.h"
// After the vector type.
#include "embedding_rows_kernels.h"

namespace dlrm {
const RowKernels kRowsAvx2 = DLRM_ROW_KERNELS(Avx2Vector);
}
