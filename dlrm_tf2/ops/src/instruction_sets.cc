// The instruction sets of this processor, and the choice between them.
#include <atomic>

#include "kernels.h"

namespace {

constexpr int kBest = -1;
std::atomic<int> chosen_instruction_set{kBest};

}  // namespace

extern "C" {

int dlrm_cpu_instruction_set(void) {
#ifdef DLRM_X86
  // These ask the operating system too, whether it keeps the wide registers.
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  if (avx512 && __builtin_cpu_supports("avx512bf16")) return DLRM_AVX512_BF16;
  if (avx512) return DLRM_AVX512;
  if (avx2) return DLRM_AVX2;
#endif
  return DLRM_SCALAR;
}

int dlrm_choose_cpu_instruction_set(int instruction_set) {
  if (instruction_set < kBest || instruction_set > dlrm_cpu_instruction_set()) return DLRM_NO_INSTRUCTION_SET;
  chosen_instruction_set = instruction_set;
  return DLRM_OK;
}

int dlrm_chosen_cpu_instruction_set(void) {
  const int chosen = chosen_instruction_set;
  return chosen == kBest ? dlrm_cpu_instruction_set() : chosen;
}

}  // extern "C"
