// What the kernels share: function clones by instruction set, vectors, and bf16.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define RACKSCALE_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define RACKSCALE_CLONES
#endif
#define RACKSCALE_INLINE inline __attribute__((always_inline))

namespace rackscale {

// Sixteen floats. Where the machine's vectors are shorter the compiler splits them.
typedef float f32x16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t u32x16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t u16x16 __attribute__((vector_size(32), aligned(2), may_alias));

constexpr int64_t kLanes = 16;

typedef uint16_t bf16;

RACKSCALE_INLINE float widen(float value) { return value; }
RACKSCALE_INLINE float widen(bf16 value) {
  uint32_t bits = static_cast<uint32_t>(value) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof(wide));
  return wide;
}

RACKSCALE_INLINE f32x16 load(const float* from) {
  f32x16 value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}
RACKSCALE_INLINE f32x16 load(const bf16* from) {
  u16x16 narrow;
  std::memcpy(&narrow, from, sizeof(narrow));
  u32x16 bits = __builtin_convertvector(narrow, u32x16) << 16;
  f32x16 value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
RACKSCALE_INLINE void store(float* to, f32x16 value) { std::memcpy(to, &value, sizeof(value)); }

RACKSCALE_INLINE float sum(f32x16 value) {
  value += __builtin_shufflevector(value, value, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
  value += __builtin_shufflevector(value, value, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
  value += __builtin_shufflevector(value, value, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
  value += __builtin_shufflevector(value, value, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
  return value[0];
}

// e^x to 2 units in the last place, for x from -87 (below: as good as zero) to 88. Range reduction by ln 2 in two
// parts and a polynomial of degree 5 (Cephes, expf).
RACKSCALE_INLINE f32x16 exponential(f32x16 x) {
  typedef int32_t i32x16 __attribute__((vector_size(64), aligned(4), may_alias));
  const f32x16 low = f32x16{} - 87.0f;
  x = x < low ? low : x;
  const f32x16 shifted = x * 1.44269504088896341f + 12582912.0f;  // rounds to a whole number in the low bits
  const f32x16 whole = shifted - 12582912.0f;
  x = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  f32x16 y = x * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * x + 8.3334519073e-3f;
  y = y * x + 4.1665795894e-2f;
  y = y * x + 1.6666665459e-1f;
  y = y * x + 5.0000001201e-1f;
  y = y * x * x + x + 1.0f;
  const i32x16 bits = (__builtin_convertvector(whole, i32x16) + 127) << 23;
  f32x16 power;
  std::memcpy(&power, &bits, sizeof(power));
  return y * power;
}

RACKSCALE_INLINE float dot(const float* a, const float* b, int64_t size) {
  f32x16 total = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) total += load(a + i) * load(b + i);
  float rest = sum(total);
  for (; i < size; ++i) rest += a[i] * b[i];
  return rest;
}

// to += scale * from
RACKSCALE_INLINE void add_scaled(float* to, const float* from, float scale, int64_t size) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) store(to + i, load(to + i) + load(from + i) * scale);
  for (; i < size; ++i) to[i] += from[i] * scale;
}

}  // namespace rackscale
