// What the instruction sets have in common, in the compiler's own vector types. Whoever includes this has defined
// DLRM_LANES: float32 values to a register.
//
// Everything that a kernel is made of is in an anonymous namespace, and nothing inline from the standard library is
// used: a function compiled for AVX-512 must never be the one that the linker keeps for everybody.
#pragma once

#include <stdint.h>
#include <string.h>

#include <utility>

#include "kernels.h"

#define DLRM_INLINE inline __attribute__((always_inline))
#define DLRM_UNROLL _Pragma("GCC unroll 16")

namespace {

typedef float Floats __attribute__((vector_size(4 * DLRM_LANES)));
typedef int32_t Words __attribute__((vector_size(4 * DLRM_LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * DLRM_LANES)));
typedef float Four __attribute__((vector_size(16)));

constexpr int kLanes = DLRM_LANES;

template <class T>
DLRM_INLINE T read_as(const void* from) {
  T value;
  memcpy(&value, from, sizeof value);
  return value;
}

DLRM_INLINE Floats broadcast(float x) { return x - Floats{}; }  // x - 0 is x, and -0 is -0

// ---- bfloat16 ------------------------------------------------------------------------------------------------------

DLRM_INLINE Floats from_bfloat16(Halves halves) {
  return reinterpret_cast<Floats>(__builtin_convertvector(halves, Words) << 16);
}

// To nearest even; NaN stays NaN.
DLRM_INLINE Halves bfloat16_of(Floats x) {
  const Words bits = reinterpret_cast<Words>(x);
  const Words rounded = bits + 0x7fff + (bits >> 16 & 1);
  return __builtin_convertvector((x != x ? bits | 0x400000 : rounded) >> 16 & 0xffff, Halves);
}

// ---- sums across a register ----------------------------------------------------------------------------------------

template <int... I>
constexpr Words places_of_twos(std::integer_sequence<int, I...>) {
  return Words{(I / 4 * 4 + I % 4 / 2 + I % 2 * kLanes)...};
}
template <int... I>
constexpr Words places_of_fours(std::integer_sequence<int, I...>) {
  return Words{(I / 4 * 4 + I % 2 + I % 4 / 2 * kLanes)...};
}
constexpr Words kTwos = places_of_twos(std::make_integer_sequence<int, kLanes>());
constexpr Words kFours = places_of_fours(std::make_integer_sequence<int, kLanes>());

// In each four values: (a, b, a, b), what is left to add up of a's and b's four.
DLRM_INLINE Floats add_twos(Floats a, Floats b) {
  return __builtin_shuffle(a, b, kTwos) + __builtin_shuffle(a, b, kTwos + 2);
}

// In each four values: the sums of a's, b's, c's and d's four.
DLRM_INLINE Floats add_fours(Floats a, Floats b, Floats c, Floats d) {
  const Floats ab = add_twos(a, b), cd = add_twos(c, d);
  return __builtin_shuffle(ab, cd, kFours) + __builtin_shuffle(ab, cd, kFours + 2);
}

// The first `count` of the totals of four registers.
template <class V>
DLRM_INLINE void store_totals(float* to, int count, Floats a, Floats b, Floats c, Floats d) {
  const Four totals = V::add_lanes(add_fours(a, b, c, d));
  if (count == 4) {
    memcpy(to, &totals, sizeof totals);
    return;
  }
  to[0] = totals[0];
  if (count > 1) to[1] = totals[1];
  if (count > 2) to[2] = totals[2];
}

// ---- rows between memory and registers ---------------------------------------------------------------------------

constexpr int64_t round_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; }
constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t bytes_of(int element_type) { return element_type == DLRM_FLOAT32 ? 4 : 2; }

// A register of V from memory of type kType.
template <class V, int kType>
DLRM_INLINE Floats load_as_floats(const char* from) {
  if constexpr (kType == DLRM_FLOAT32) {
    return read_as<Floats>(from);
  } else if constexpr (kType == DLRM_FLOAT16) {
    return V::from_float16(read_as<Halves>(from));
  } else {
    return from_bfloat16(read_as<Halves>(from));
  }
}

// The way back: what memory of type kType holds for `values`.
template <class V, int kType>
DLRM_INLINE auto stored_as(Floats values) {
  if constexpr (kType == DLRM_FLOAT32) {
    return values;
  } else if constexpr (kType == DLRM_FLOAT16) {
    return V::float16_of(values);
  } else {
    return bfloat16_of(values);
  }
}

// Writes the first `count` values, or the whole register where it has fewer. `stream`: past the caches, to an address
// that is a multiple of what is written.
template <class V, int kType>
DLRM_INLINE void store_part(Floats values, int64_t count, bool stream, char* to) {
  const auto stored = stored_as<V, kType>(values);
  if (stream) {
    V::stream(to, stored);
  } else if (count >= kLanes) {
    memcpy(to, &stored, sizeof stored);
  } else {
    memcpy(to, &stored, static_cast<size_t>(count * bytes_of(kType)));
  }
}

// `count` values as float32, in full registers; what is past the end becomes zero.
template <class V, int kType>
DLRM_INLINE void read_floats(const char* from, int64_t count, float* to) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const char* values = from + i * bytes_of(kType);
    alignas(64) char tail[4 * kLanes];
    if (count - i < kLanes) {
      memset(tail, 0, sizeof tail);
      memcpy(tail, values, static_cast<size_t>((count - i) * bytes_of(kType)));
      values = tail;
    }
    const Floats floats = load_as_floats<V, kType>(values);
    memcpy(to + i, &floats, sizeof floats);
  }
}

// The way back. Writes exactly `count` values.
template <class V, int kType>
DLRM_INLINE void write_floats(const float* from, int64_t count, char* to) {
  for (int64_t i = 0; i < count; i += kLanes) {
    store_part<V, kType>(read_as<Floats>(from + i), count - i, false, to + i * bytes_of(kType));
  }
}

// Asks for memory that is needed soon.
DLRM_INLINE void prefetch(const char* from, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(from + i);
}

}  // namespace
