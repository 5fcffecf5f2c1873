// The search for AVX-512: the hashes of eight keys at once, and one comparison for the four keys of a group.
#include <immintrin.h>

#include "key_search_kernels.h"

namespace dlrm {
namespace {

struct MatchIn {
  int operator()(const KeyGroup& group, int64_t key) const {
    const __m256i keys = _mm256_load_si256(reinterpret_cast<const __m256i*>(group.keys));
    const __m128i rows = _mm_load_si128(reinterpret_cast<const __m128i*>(group.rows));
    const unsigned found = _mm256_cmpeq_epi64_mask(keys, _mm256_set1_epi64x(key)) & _mm_test_epi32_mask(rows, rows);
    return found == 0 ? -1 : __builtin_ctz(found);
  }
};

}  // namespace

const KeySearch kSearchAvx512 = {locate, match<MatchIn>};

}  // namespace dlrm
