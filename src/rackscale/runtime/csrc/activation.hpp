// What a feed-forward part does between its projections: gate and up lie one after the other, the result takes the
// gate's place.
#pragma once

#include <algorithm>
#include <cstring>

#include "portable.hpp"

namespace rackscale {

RACKSCALE_INLINE f32x8 sigmoid(f32x8 x) { return 1.0f / (1.0f + exponential(-x)); }

// Eight at a time; what is left over goes through a vector that is filled up with zeros.
template <typename F>
RACKSCALE_INLINE void gated(float* inner, int64_t width, F&& activate) {
  int64_t i = 0;
  for (; i + kHalf <= width; i += kHalf) {
    const f32x8 result = activate(half(inner + i), half(inner + width + i));
    std::memcpy(inner + i, &result, sizeof(result));
  }
  if (i == width) return;
  f32x8 gate = {}, up = {};
  const size_t bytes = static_cast<size_t>(width - i) * sizeof(float);
  std::memcpy(&gate, inner + i, bytes);
  std::memcpy(&up, inner + width + i, bytes);
  const f32x8 result = activate(gate, up);
  std::memcpy(inner + i, &result, bytes);
}

// silu(gate) * up
RACKSCALE_INLINE void swiglu(float* inner, int64_t width) {
  gated(inner, width, [](f32x8 gate, f32x8 up) RACKSCALE_LAMBDA { return gate * sigmoid(gate) * up; });
}

// gpt-oss: gate * sigmoid(alpha * gate) * (up + 1), the gate at most `limit` and up within it.
RACKSCALE_INLINE void swiglu_clamped(float* inner, int64_t width, float alpha, float limit) {
  const f32x8 most = f32x8{} + limit, least = f32x8{} - limit;
  gated(inner, width, [=](f32x8 gate, f32x8 up) RACKSCALE_LAMBDA {
    gate = gate > most ? most : gate;
    up = up > most ? most : up;
    up = up < least ? least : up;
    return gate * sigmoid(alpha * gate) * (up + 1.0f);
  });
}

}  // namespace rackscale
