// Rows between memory and registers.
#pragma once

#include "vector.h"

namespace {

constexpr int64_t kAnyWidth = 0;
constexpr int kMostRegisters = 8;  // sums in registers at a time

// The first kCount values at `from`; the lanes past them are zero. kCount is known, so this is one or two loads.
template <class V, int kType, int kCount>
DLRM_INLINE Floats load_first(const char* from) {
  if constexpr (kCount == kLanes) return load_as_floats<V, kType>(from);
  char whole[4 * kLanes] = {};
  memcpy(whole, from, kCount * (kType == DLRM_FLOAT32 ? 4 : 2));
  return load_as_floats<V, kType>(whole);
}

template <class V, int kType>
DLRM_INLINE Floats load_some(const char* from, int64_t count) {
  if (count >= kLanes) return load_as_floats<V, kType>(from);
  char whole[4 * kLanes] = {};
  memcpy(whole, from, static_cast<size_t>(count * bytes_of(kType)));
  return load_as_floats<V, kType>(whole);
}

template <int64_t kWidth>
struct Columns {  // of a width that is known
  static constexpr int kFull = kWidth / kLanes, kRest = kWidth % kLanes, kRegisters = kFull + (kRest > 0);
};

template <class V, int kType, int64_t kWidth>
DLRM_INLINE void load_row(const char* from, Floats* to) {
  using C = Columns<kWidth>;
  DLRM_UNROLL for (int r = 0; r < C::kFull; ++r) {
    to[r] = load_as_floats<V, kType>(from + r * kLanes * bytes_of(kType));
  }
  if constexpr (C::kRest > 0) to[C::kFull] = load_first<V, kType, C::kRest>(from + C::kFull * kLanes * bytes_of(kType));
}

template <class V, int kType, int64_t kWidth>
DLRM_INLINE void store_row(const Floats* from, char* to, bool stream = false) {
  using C = Columns<kWidth>;
  if (stream) {
    DLRM_UNROLL for (int r = 0; r < C::kFull; ++r) {
      store_part<V, kType>(from[r], kLanes, true, to + r * kLanes * bytes_of(kType));
    }
  } else {
    DLRM_UNROLL for (int r = 0; r < C::kFull; ++r) {
      store_part<V, kType>(from[r], kLanes, false, to + r * kLanes * bytes_of(kType));
    }
  }
  if constexpr (C::kRest > 0) {
    const auto stored = stored_as<V, kType>(from[C::kFull]);
    memcpy(to + C::kFull * kLanes * bytes_of(kType), &stored, C::kRest * (kType == DLRM_FLOAT32 ? 4 : 2));
  }
}

}  // namespace
