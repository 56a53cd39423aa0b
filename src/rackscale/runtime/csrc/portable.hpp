// What the kernels share: function clones by instruction set, vectors, and bf16.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define RACKSCALE_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#define RACKSCALE_WIDE __attribute__((target("arch=x86-64-v4")))
#define RACKSCALE_NARROW __attribute__((target_clones("arch=x86-64-v3", "default")))
#define RACKSCALE_IS_WIDE __builtin_cpu_supports("x86-64-v4")
#else
#define RACKSCALE_CLONES
#define RACKSCALE_WIDE
#define RACKSCALE_NARROW
#define RACKSCALE_IS_WIDE false
#endif
#define RACKSCALE_INLINE inline __attribute__((always_inline))
#define RACKSCALE_LAMBDA __attribute__((always_inline))

// For what keeps sums in registers: a function `name` out of a template of that name. name<true> may count on 32
// registers of sixteen floats, name<false> on 16 of eight.
#define RACKSCALE_BY_WIDTH(name, parameters, arguments)                                                \
  RACKSCALE_WIDE void name##_wide parameters { name<true> arguments; }                                 \
  RACKSCALE_NARROW void name##_narrow parameters { name<false> arguments; }                            \
  void name parameters {                                                                               \
    static const bool is_wide = RACKSCALE_IS_WIDE;                                                     \
    (is_wide ? name##_wide : name##_narrow) arguments;                                                 \
  }

namespace rackscale {

// Sixteen floats. Where the machine's vectors are shorter the compiler splits them.
typedef float f32x16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef float f32x8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint32_t u32x8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint16_t u16x8 __attribute__((vector_size(16), aligned(2), may_alias));
typedef uint32_t u32x16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t u16x16 __attribute__((vector_size(32), aligned(2), may_alias));

constexpr int64_t kLanes = 16;
constexpr int64_t kHalf = kLanes / 2;

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

// Sixteen floats where registers hold eight: what is longer than a register is kept in memory by the compiler.
struct f32x8x2 {
  f32x8 low, high;
};
RACKSCALE_INLINE f32x8x2 operator*(f32x8x2 a, f32x8x2 b) { return {a.low * b.low, a.high * b.high}; }
RACKSCALE_INLINE f32x8x2 operator*(f32x8x2 a, float b) { return {a.low * b, a.high * b}; }
RACKSCALE_INLINE f32x8x2 operator-(f32x8x2 a, float b) { return {a.low - b, a.high - b}; }
RACKSCALE_INLINE f32x8x2& operator+=(f32x8x2& a, f32x8x2 b) {
  a.low += b.low;
  a.high += b.high;
  return a;
}
RACKSCALE_INLINE void store(float* to, f32x8x2 value) { std::memcpy(to, &value, sizeof(value)); }

RACKSCALE_INLINE f32x8 half(const float* from) {
  f32x8 value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}
RACKSCALE_INLINE f32x8 half(const bf16* from) {
  u16x8 narrow;
  std::memcpy(&narrow, from, sizeof(narrow));
  const u32x8 bits = __builtin_convertvector(narrow, u32x8) << 16;
  f32x8 value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Sixteen floats in registers, of one machine or of the other.
template <bool wide>
struct FloatsOf {
  typedef f32x8x2 Type;
};
template <>
struct FloatsOf<true> {
  typedef f32x16 Type;
};
template <bool wide>
using Floats = typename FloatsOf<wide>::Type;

template <bool wide, typename W>
RACKSCALE_INLINE Floats<wide> floats(const W* from) {
  if constexpr (wide) {
    return load(from);
  } else {
    return {half(from), half(from + 8)};
  }
}

// A row of a weight, as floats.
template <typename W>
RACKSCALE_INLINE void widen(const W* from, int64_t size, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) store(to + i, load(from + i));
  for (; i < size; ++i) to[i] = widen(from[i]);
}

// The two halves added.
RACKSCALE_INLINE f32x8 folded(f32x8x2 value) { return value.low + value.high; }
RACKSCALE_INLINE f32x8 folded(f32x16 value) {
  f32x8 half[2];
  std::memcpy(half, &value, sizeof(half));
  return half[0] + half[1];
}

template <typename F>
RACKSCALE_INLINE float sum(F value) {
  f32x8 half = folded(value);
  half += __builtin_shufflevector(half, half, 4, 5, 6, 7, 0, 1, 2, 3);
  half += __builtin_shufflevector(half, half, 2, 3, 0, 1, 6, 7, 4, 5);
  half += __builtin_shufflevector(half, half, 1, 0, 3, 2, 5, 4, 7, 6);
  return half[0];
}

// The sums of sixteen vectors, the first's first: a tree that adds pairs of vectors lane by lane costs a third of
// sixteen single sums. In halves, whose shuffles AVX2 has too.
RACKSCALE_INLINE f32x16 sums(const f32x16* values) {
  f32x8 four[8], two[4], one[2];
  for (int i = 0; i < 8; ++i) {
    const int at = i / 4 * 8 + i % 4;
    const f32x8 a = folded(values[at]), b = folded(values[at + 4]);
    four[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11) +
              __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
  }
  for (int i = 0; i < 4; ++i) {
    const f32x8 a = four[i / 2 * 4 + i % 2], b = four[i / 2 * 4 + i % 2 + 2];
    two[i] = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13) +
             __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
  }
  for (int i = 0; i < 2; ++i) {
    const f32x8 a = two[2 * i], b = two[2 * i + 1];
    one[i] = __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14) +
             __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
  }
  f32x16 all;
  std::memcpy(&all, one, sizeof(all));
  return all;
}

// e^x to 2 units in the last place, for x from -87 to 88 (beyond: as at the end). Range reduction by ln 2 in two
// parts and a polynomial of degree 5 (Cephes, expf).
template <typename F>
RACKSCALE_INLINE F exponential(F x) {
  typedef int32_t Whole __attribute__((vector_size(sizeof(F)), aligned(4), may_alias));
  const F low = F{} - 87.0f, high = F{} + 88.0f;
  x = x < low ? low : x;
  x = x > high ? high : x;
  const F shifted = x * 1.44269504088896341f + 12582912.0f;  // rounds to a whole number in the low bits
  const F whole = shifted - 12582912.0f;
  x = x - whole * 0.693359375f + whole * 2.12194440e-4f;
  F y = x * 1.9875691500e-4f + 1.3981999507e-3f;
  y = y * x + 8.3334519073e-3f;
  y = y * x + 4.1665795894e-2f;
  y = y * x + 1.6666665459e-1f;
  y = y * x + 5.0000001201e-1f;
  y = y * x * x + x + 1.0f;
  const Whole bits = (__builtin_convertvector(whole, Whole) + 127) << 23;
  F power;
  std::memcpy(&power, &bits, sizeof(power));
  return y * power;
}
RACKSCALE_INLINE f32x8x2 exponential(f32x8x2 x) { return {exponential(x.low), exponential(x.high)}; }

RACKSCALE_INLINE float dot(const float* a, const float* b, int64_t size) {
  f32x8x2 total = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) total += floats<false>(a + i) * floats<false>(b + i);
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
