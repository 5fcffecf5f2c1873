// AVX-512 with bfloat16 dot products (vdpbf16ps): 32 products an instruction, summed in float32. The other types as
// AVX-512.
//
// vdpbf16ps takes denormals for zero, in its operands and in its sums, for any MXCSR of the thread. It rounds to
// nearest even after each product, as the other instruction sets do. The conversion of sums to bfloat16 is bfloat16_of,
// as everywhere: vcvtneps2bf16 is not used.
#include "dot_interaction_avx512.h"

namespace {

struct Avx512Bf16 {
  using Float = Avx512;
  using Element = uint16_t;
  typedef uint16_t Elements __attribute__((vector_size(64)));
  static constexpr int kElementType = DLRM_BFLOAT16, kStep = 32, kFold = 2;
  static constexpr int kDotRows = 4, kGradientRows = 6, kGradientColumns = 4;

  static DLRM_INLINE Elements load_elements(const uint16_t* from) { return read_as<Elements>(from); }
  static DLRM_INLINE Elements load_weights(const uint16_t* pair) {
    return reinterpret_cast<Elements>(read_as<int32_t>(pair) | Words{});
  }
  static DLRM_INLINE Floats multiply_add(Elements a, Elements b, Floats sum) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  static DLRM_INLINE Elements load_part(const uint16_t* from, int64_t count) {
    if (count >= 32) return load_elements(from);
    Elements part = {};
    memcpy(&part, from, static_cast<size_t>(2 * count));
    return part;
  }
  template <int>
  static DLRM_INLINE void read_row(const char* from, int64_t width, uint16_t* to) {
    memset(to + width / 32 * 32, 0, width % 32 == 0 ? 0 : 64);
    memcpy(to, from, static_cast<size_t>(2 * width));
  }
  // Rows 2p and 2p + 1 become one: (row 2p, row 2p + 1) side by side for each column. An odd last row pairs with zeros.
  template <int>
  static DLRM_INLINE void fold_rows(const char* rows, int64_t num_vectors, int64_t width, int64_t stride,
                                    uint16_t* to) {
    const Elements first = {0, 32, 1, 33, 2,  34, 3,  35, 4,  36, 5,  37, 6,  38, 7,  39,
                            8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
    const uint16_t* source = reinterpret_cast<const uint16_t*>(rows);
    for (int64_t row = 0; row < num_vectors; row += 2) {
      for (int64_t d = 0; d < width; d += 32) {
        const Elements even = load_part(source + row * width + d, width - d);
        const Elements odd = row + 1 < num_vectors ? load_part(source + (row + 1) * width + d, width - d) : Elements{};
        const Elements pairs[2] = {__builtin_shuffle(even, odd, first), __builtin_shuffle(even, odd, first + 16)};
        memcpy(to + row * stride + d * 2, pairs, sizeof pairs);
      }
    }
  }
};

}  // namespace

namespace dlrm {
const DotKernels kDotAvx512Bf16[] = {kernels<Avx512, DLRM_FLOAT32>(), kernels<Avx512, DLRM_FLOAT16>(),
                                     kernels<Avx512Bf16, DLRM_BFLOAT16>()};
}
