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
  float total = 0;
  for (int lane = 0; lane < kLanes; ++lane) total += value[lane];
  return total;
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
