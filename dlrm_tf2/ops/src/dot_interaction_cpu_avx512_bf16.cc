// AVX-512 with bfloat16 dot products (vdpbf16ps): 32 products an instruction, summed in float32. The other types as
// AVX-512.
//
// vdpbf16ps takes denormals for zero and rounds each pair of products once; both are far below a bfloat16 step.
#include "dot_interaction_avx512.h"

namespace {

struct Avx512Bf16 {
  using Float = Avx512;
  using Element = uint16_t;
  using Register = __m512;
  using Elements = __m512i;
  static constexpr int kSums = 16, kStep = 32, kFold = 2, kDotRows = 4, kGradientRows = 6, kGradientColumns = 4;

  static bool is_native(int element_type) { return element_type == DLRM_BFLOAT16; }
  static DLRM_INLINE __m512 zero() { return _mm512_setzero_ps(); }
  static DLRM_INLINE __m512i load_elements(const uint16_t* from) { return _mm512_loadu_si512(from); }
  static DLRM_INLINE __m512i broadcast(const uint16_t* pair) {
    int both;
    memcpy(&both, pair, sizeof both);
    return _mm512_set1_epi32(both);
  }
  static DLRM_INLINE __m512 multiply_add(__m512i a, __m512i b, __m512 sum) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  static DLRM_INLINE void store_totals(float* to, int count, __m512 a, __m512 b, __m512 c, __m512 d) {
    Avx512::store_totals(to, count, a, b, c, d);
  }
  static DLRM_INLINE __m512i load_part(const uint16_t* from, int64_t count) {
    return count >= 32 ? _mm512_loadu_si512(from)
                       : _mm512_maskz_loadu_epi16(static_cast<__mmask32>((uint64_t(1) << count) - 1), from);
  }
  static DLRM_INLINE void read_row(const void* from, int, int64_t width, uint16_t* to) {
    const uint16_t* row = static_cast<const uint16_t*>(from);
    for (int64_t d = 0; d < width; d += 32) _mm512_storeu_si512(to + d, load_part(row + d, width - d));
  }
  // Rows 2p and 2p + 1 become one: (row 2p, row 2p + 1) side by side for each column. An odd last row pairs with zeros.
  static DLRM_INLINE void fold_rows(const char* rows, int, int64_t num_vectors, int64_t width, int64_t stride,
                                    uint16_t* to) {
    alignas(64) static const uint16_t kFirst[32] = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                                                    8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
    const __m512i first = _mm512_load_si512(kFirst);
    const __m512i second = _mm512_add_epi16(first, _mm512_set1_epi16(16));
    const uint16_t* source = reinterpret_cast<const uint16_t*>(rows);
    for (int64_t row = 0; row < num_vectors; row += 2) {
      for (int64_t d = 0; d < width; d += 32) {
        const __m512i even = load_part(source + row * width + d, width - d);
        const __m512i odd = row + 1 < num_vectors ? load_part(source + (row + 1) * width + d, width - d)
                                                  : _mm512_setzero_si512();
        uint16_t* pairs = to + (row * stride) + d * 2;
        _mm512_storeu_si512(pairs, _mm512_permutex2var_epi16(even, first, odd));
        _mm512_storeu_si512(pairs + 32, _mm512_permutex2var_epi16(even, second, odd));
      }
    }
  }
};

int64_t scratch_bytes_by_type(const DotShape& shape) {
  return shape.element_type == DLRM_BFLOAT16 ? scratch_bytes<Avx512Bf16>(shape) : scratch_bytes<Avx512>(shape);
}

void forward_by_type(const DotShape& shape, const void* features, void* output, int64_t first, int64_t last,
                     void* scratch) {
  const auto run = shape.element_type == DLRM_BFLOAT16 ? forward<Avx512Bf16> : forward<Avx512>;
  run(shape, features, output, first, last, scratch);
}

void gradient_by_type(const DotShape& shape, const void* features, const void* upstream, void* out, int64_t first,
                      int64_t last, void* scratch) {
  const auto run = shape.element_type == DLRM_BFLOAT16 ? gradient<Avx512Bf16> : gradient<Avx512>;
  run(shape, features, upstream, out, first, last, scratch);
}

}  // namespace

namespace dlrm {
const DotKernels kDotAvx512Bf16 = {scratch_bytes_by_type, forward_by_type, gradient_by_type};
}
