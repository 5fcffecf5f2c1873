// The kernels for any processor.
#include "vector_scalar.h"
// After the vector type.
#include "embedding_rows_kernels.h"

namespace dlrm {
const RowKernels kRowsScalar = DLRM_ROW_KERNELS(ScalarVector);
}
