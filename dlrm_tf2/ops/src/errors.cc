// Error codes in words.
#include "kernels.h"

#ifdef DLRM_CUDA
extern "C" const char* dlrm_cuda_error_text(int error);
#endif

extern "C" const char* dlrm_error_text(int code) {
  switch (code) {
    case DLRM_OK: return "no error";
    case DLRM_BAD_ARGUMENT: return "an argument is out of range, or the kernel asked for does not serve this shape";
    case DLRM_NO_MEMORY: return "no memory for scratch";
    case DLRM_NO_INSTRUCTION_SET: return "the processor does not have the instruction set asked for";
    case DLRM_BAD_ID: return "an id is negative or not below the number of rows of its table";
    case DLRM_TOO_LARGE: return "the shape is too large for this GPU's shared memory";
  }
#ifdef DLRM_CUDA
  if (code >= DLRM_CUDA_ERROR) return dlrm_cuda_error_text(code - DLRM_CUDA_ERROR);
#endif
  return "unknown error";
}
