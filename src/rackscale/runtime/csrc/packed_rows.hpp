// A row of input, rounded to what its weight's kernel takes and permuted as the weight's lines need it. Plain loops, that
// the compiler makes vectors of for whatever set it is compiled for. See packed_tiles.hpp on the anonymous namespace.
#pragma once

#include <cstdint>
#include <cstring>

#include "activation.hpp"
#include "packed_kernels.hpp"
#include "portable.hpp"

namespace rackscale {
namespace {

typedef uint16_t u16x8 __attribute__((vector_size(16), aligned(2), may_alias));
typedef int8_t i8x16 __attribute__((vector_size(16), aligned(1), may_alias));

constexpr float kTiny = 0x1p-100f;  // groups with no larger value count as zero, so that no scale is subnormal

RACKSCALE_INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}
RACKSCALE_INLINE float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// Of sizes as bits, which are in the order of their floats, and of which a maximum is easily made a vector's. NaN is largest.
RACKSCALE_INLINE float largest(const float* x, int64_t size) {
  int32_t most = 0;
  for (int64_t i = 0; i < size; ++i) {
    const int32_t bits = static_cast<int32_t>(bits_of(x[i]) & 0x7fffffffu);
    most = bits > most ? bits : most;
  }
  return float_of(static_cast<uint32_t>(most));
}

// To the nearest, ties to even.
RACKSCALE_INLINE bf16 narrow(float value) {
  const uint32_t bits = bits_of(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
  return static_cast<bf16>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}

// Of a weight's lines of eight, four or two columns, in pairs.
RACKSCALE_INLINE void encode_bf16(const float* x, Format format, uint8_t* to, int64_t count) {
  bf16 narrowed[kGroup];
  for (int64_t i = 0; i < kGroup; ++i) narrowed[i] = narrow(x[i]);
  const int64_t per_line = layout_of(format).columns_per_line;
  for (int64_t i = 0; i < count; i += 8) {
    u16x8 eight;
    std::memcpy(&eight, narrowed + i, sizeof(eight));
    if (per_line == 8) eight = __builtin_shufflevector(eight, eight, 0, 4, 1, 5, 2, 6, 3, 7);
    if (per_line == 4) eight = __builtin_shufflevector(eight, eight, 0, 2, 1, 3, 4, 6, 5, 7);
    std::memcpy(to + 2 * i, &eight, sizeof(eight));
  }
}

// The bytes of a group: even columns of eight, then odd ones; and the starts.
RACKSCALE_INLINE void put_bytes(const int8_t* q, Format format, int8_t* to, int32_t* starts) {
  const int64_t block = start_block(format);
  const int32_t offset = format == Format::kInt4 ? 8 : 12;
  for (int64_t i = 0; i < kGroup; i += block) {
    int32_t sum = 0;
    for (int64_t j = 0; j < block; ++j) sum += q[i + j];
    starts[i / block] = -offset * sum;
  }
  for (int64_t i = 0; i < kGroup; i += 16) {
    i8x16 chunk;
    std::memcpy(&chunk, q + i, sizeof(chunk));
    chunk = __builtin_shufflevector(chunk, chunk, 0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
    std::memcpy(to + i, &chunk, sizeof(chunk));
  }
}

// Symmetric: the group's largest is 127. Adding 1.5 * 2^23 rounds to the nearest whole number.
RACKSCALE_INLINE float quantise(const float* x, int8_t* q) {
  const float most = largest(x, kGroup);
  if (most < kTiny) {
    std::memset(q, 0, kGroup);
    return 0.0f;
  }
  const float inverse = 127.0f / most;
  for (int64_t i = 0; i < kGroup; ++i)
    q[i] = static_cast<int8_t>(static_cast<int32_t>(bits_of(x[i] * inverse + 12582912.0f)) - 0x4b400000);
  return most / 127.0f;
}

// A positive number to the nearest E4M3, ties to even; at most 448, and what rounds to zero as 2^-9.
RACKSCALE_INLINE float to_e4m3(float p) {
  p = p < 0x1p-9f ? 0x1p-9f : p;
  p = p > 448.0f ? 448.0f : p;
  if (p < 0x1p-6f) return (p + 24576.0f) - 24576.0f;
  const uint32_t bits = bits_of(p);
  return float_of((bits + 0x7ffffu + ((bits >> 20) & 1)) & ~0xfffffu);
}

// Blackwell's W4A4: blocks of sixteen with a scale of E4M3, E2M1 with ties to the even code, here twice its value.
// Source: ModelOpt's NVFP4QTensor (the product of both scales first, then one division).
RACKSCALE_INLINE void quantise_nvfp4(const float* x, float row_scale, int8_t* q, float* scales) {
  for (int64_t block = 0; block < kGroup; block += 16) {
    const float* from = x + block;
    const float ratio = largest(from, 16) / (6.0f * row_scale);
    const float scale = to_e4m3(ratio == 0.0f ? 1.0f : ratio) * row_scale;
    scales[block / 16] = scale;
    for (int64_t i = 0; i < 16; ++i) {
      const float value = from[i] / scale, size = value < 0 ? -value : value;
      const int code = (size > 0.25f) + (size >= 0.75f) + (size > 1.25f) + (size >= 1.75f) + 2 * (size > 2.5f) +
                       2 * (size >= 3.5f) + 4 * (size > 5.0f);
      q[block + i] = static_cast<int8_t>(value < 0 ? -code : code);
    }
  }
}

// kShort: nvfp4's starts for int8 are sixteen bits.
template <bool kShort = false>
void encode_row(const float* in, const PanelShape& shape, float input_scale, const Panel& out) {
  float row_scale = input_scale;
  if (shape.kind == Kind::kNvfp4 && row_scale == 0.0f) row_scale = largest(in, shape.depth) / 2688.0f;
  for (int64_t k = 0; k < shape.columns(); k += kGroup) {
    alignas(64) float x[kGroup];
    const int64_t here = shape.depth - k < kGroup ? shape.depth - k : kGroup;
    std::memcpy(x, in + k, static_cast<size_t>(here) * sizeof(float));
    for (int64_t i = here; i < kGroup; ++i) x[i] = 0.0f;
    uint8_t* to = out.values + k * value_bytes(shape.kind);
    alignas(64) int8_t q[kGroup];
    switch (shape.kind) {
      case Kind::kFp32:
        std::memcpy(to, x, sizeof(x));
        break;
      case Kind::kRounded:
        for (int64_t i = 0; i < kGroup; ++i) x[i] = float_of(static_cast<uint32_t>(narrow(x[i])) << 16);
        std::memcpy(to, x, sizeof(x));
        break;
      case Kind::kBf16:
        encode_bf16(x, shape.format, to, kGroup);
        break;
      case Kind::kInt8:
        out.scales[k / kGroup] = quantise(x, q);
        put_bytes(q, shape.format, reinterpret_cast<int8_t*>(to), out.starts + k / start_block(shape.format));
        if (kShort && shape.format == Format::kNvfp4)
          for (int64_t i = k / 16; i < (k + kGroup) / 16; ++i) out.starts[i] &= 0xffff;
        break;
      case Kind::kNvfp4:
        if (row_scale < kTiny) {
          std::memset(q, 0, sizeof(q));
          for (int64_t i = 0; i < kGroup / 16; ++i) out.scales[k / 16 + i] = 0.0f;
        } else {
          quantise_nvfp4(x, row_scale, q, out.scales + k / 16);
        }
        put_bytes(q, shape.format, reinterpret_cast<int8_t*>(to), out.starts + k / start_block(shape.format));
        break;
    }
  }
}

void activate_tile(const float* gate, const float* up, bool clamped, float alpha, float limit, float* out) {
  float both[2 * kTileRows];
  std::memcpy(both, gate, kTileRows * sizeof(float));
  std::memcpy(both + kTileRows, up, kTileRows * sizeof(float));
  if (clamped) {
    swiglu_clamped(both, kTileRows, alpha, limit);
  } else {
    swiglu(both, kTileRows);
  }
  std::memcpy(out, both, kTileRows * sizeof(float));
}

}  // namespace
}  // namespace rackscale
