#include "nvfp4.hpp"

#include <vector>

namespace rackscale {
namespace {

// Eight lanes: comparisons of longer vectors are taken apart where the machine has none.
typedef int32_t i32x8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint32_t u32x8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint16_t u16x8 __attribute__((vector_size(16), aligned(2), may_alias));
constexpr int64_t kHalf = 8;
constexpr u32x8 kNibbles = {0, 4, 8, 12, 16, 20, 24, 28};  // where eight codes lie in four bytes

template <typename To, typename From>
RACKSCALE_INLINE To as(From from) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

RACKSCALE_INLINE f32x8 load8(const float* from) {
  f32x8 value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}
RACKSCALE_INLINE f32x8 load8(const bf16* from) {
  u16x8 narrow;
  std::memcpy(&narrow, from, sizeof(narrow));
  return as<f32x8>(__builtin_convertvector(narrow, u32x8) << 16);
}

RACKSCALE_INLINE f32x8 magnitude(f32x8 value) { return as<f32x8>(as<i32x8>(value) & 0x7fffffff); }

RACKSCALE_INLINE float largest_lane(f32x8 value) {
  f32x8 other = __builtin_shufflevector(value, value, 4, 5, 6, 7, 0, 1, 2, 3);
  value = value > other ? value : other;
  other = __builtin_shufflevector(value, value, 2, 3, 0, 1, 6, 7, 4, 5);
  value = value > other ? value : other;
  other = __builtin_shufflevector(value, value, 1, 0, 3, 2, 5, 4, 7, 6);
  value = value > other ? value : other;
  return value[0];
}

RACKSCALE_INLINE float sum8(f32x8 value) {
  float total = 0.0f;
  for (int lane = 0; lane < kHalf; ++lane) total += value[lane];
  return total;
}

// Bits of magnitudes are in the order of the numbers, with the infinities and then NaN above all others.
template <typename Bits, typename W>
RACKSCALE_INLINE float largest_of(const Rows<W>& rows) {
  constexpr Bits kMagnitude = static_cast<Bits>(~Bits{0}) >> 1;
  Bits most = 0;
  for (int64_t row = 0; row < rows.num_rows; ++row) {
    const W* from = rows.first + row * rows.stride;
    for (int64_t i = 0; i < rows.depth; ++i) {
      Bits bits;
      std::memcpy(&bits, from + i, sizeof(bits));
      bits &= kMagnitude;
      most = bits > most ? bits : most;
    }
  }
  return widen(as<W>(most));
}

// The nearest E4M3 to a number from 2^-9 to 448, ties to even, and what it stands for.
RACKSCALE_INLINE uint32_t e4m3(float value) {
  const uint32_t bits = as<uint32_t>(value);
  const uint32_t normal = ((bits + 0x7ffff + ((bits >> 20) & 1)) >> 20) - (120 << 3);
  // Below 2^-6 steps are 2^-9, the last bit of a number from 2^14 to 2^15.
  const uint32_t subnormal = as<uint32_t>(value + 16384.0f) & 0xff;
  return value < 0.015625f ? subnormal : normal;
}
RACKSCALE_INLINE float e4m3_value(uint32_t code) {
  const float subnormal = static_cast<float>(static_cast<int32_t>(code)) * 0.001953125f;
  return code < 8 ? subnormal : as<float>((code + (120 << 3)) << 20);
}

// Block scales of a row, and what each block is divided by. most: the blocks' largest magnitudes, and then that.
RACKSCALE_INLINE void scale_blocks(float* most, int64_t num_blocks, float tensor_scale, uint8_t* scales) {
  const float six = 6.0f * tensor_scale;
  for (int64_t block = 0; block < num_blocks; ++block) {
    float scale = most[block] / six;
    scale = scale == 0.0f ? 1.0f : scale;
    scale = scale < 0.001953125f ? 0.001953125f : scale;
    scale = scale > 448.0f ? 448.0f : scale;
    const uint32_t code = e4m3(scale);
    scales[block] = static_cast<uint8_t>(code);
    most[block] = e4m3_value(code) * tensor_scale;
  }
}

// Eight numbers to four bytes, ties to the even code.
RACKSCALE_INLINE void encode_half(f32x8 weight, float divisor, uint8_t* codes) {
  const f32x8 quotient = weight / divisor, scaled = magnitude(quotient);
  const i32x8 code = -((scaled > 0.25f) + (scaled >= 0.75f) + (scaled > 1.25f) + (scaled >= 1.75f) +
                       (scaled > 2.5f) + (scaled >= 3.5f) + (scaled > 5.0f));
  const u32x8 signed_code = as<u32x8>(code | ((quotient < 0.0f) & 8));
  u32x8 nibbles = signed_code << kNibbles;
  nibbles |= __builtin_shufflevector(nibbles, nibbles, 4, 5, 6, 7, 0, 1, 2, 3);
  nibbles |= __builtin_shufflevector(nibbles, nibbles, 2, 3, 0, 1, 6, 7, 4, 5);
  nibbles |= __builtin_shufflevector(nibbles, nibbles, 1, 0, 3, 2, 5, 4, 7, 6);
  const uint32_t packed = nibbles[0];
  std::memcpy(codes, &packed, sizeof(packed));
}

RACKSCALE_INLINE f32x8 decode_half(const uint8_t* codes) {
  uint32_t packed;
  std::memcpy(&packed, codes, sizeof(packed));
  const u32x8 nibbles = (u32x8{} + packed) >> kNibbles;
  const i32x8 code = as<i32x8>(nibbles & 7);
  const f32x8 small = __builtin_convertvector(code, f32x8) * 0.5f;
  const f32x8 value = code < 2 ? small : as<f32x8>((code + (126 << 1)) << 22);
  return as<f32x8>(as<u32x8>(value) | (nibbles & 8) << 28);
}

template <typename W>
RACKSCALE_INLINE void encode(const Rows<W>& rows, float tensor_scale, uint8_t* codes, uint8_t* scales) {
  const int64_t num_blocks = rows.depth / kBlock;
  std::vector<float> most(num_blocks);
  for (int64_t row = 0; row < rows.num_rows; ++row) {
    const W* from = rows.first + row * rows.stride;
    for (int64_t block = 0; block < num_blocks; ++block) {
      const f32x8 a = magnitude(load8(from + block * kBlock)), b = magnitude(load8(from + block * kBlock + kHalf));
      most[block] = largest_lane(a > b ? a : b);
    }
    scale_blocks(most.data(), num_blocks, tensor_scale, scales + row * num_blocks);
    uint8_t* to = codes + row * rows.depth / 2;
    for (int64_t half = 0; half < 2 * num_blocks; ++half) {
      encode_half(load8(from + half * kHalf), most[half / 2], to + half * kHalf / 2);
    }
  }
}

template <typename W>
RACKSCALE_INLINE Squares compare(const Rows<W>& rows, float tensor_scale, const uint8_t* codes,
                                 const uint8_t* scales) {
  const int64_t num_blocks = rows.depth / kBlock;
  Squares squares{0.0, 0.0};
  for (int64_t row = 0; row < rows.num_rows; ++row) {
    const W* from = rows.first + row * rows.stride;
    const uint8_t* packed = codes + row * rows.depth / 2;
    f32x8 weight_squares = {}, error_squares = {};
    for (int64_t half = 0; half < 2 * num_blocks; ++half) {
      const float scale = e4m3_value(scales[row * num_blocks + half / 2]) * tensor_scale;
      const f32x8 weight = load8(from + half * kHalf);
      const f32x8 error = decode_half(packed + half * kHalf / 2) * scale - weight;
      weight_squares += weight * weight;
      error_squares += error * error;
    }
    squares.weight += sum8(weight_squares);
    squares.error += sum8(error_squares);
  }
  return squares;
}

}  // namespace

RACKSCALE_CLONES float largest(const Rows<float>& rows) { return largest_of<uint32_t>(rows); }
RACKSCALE_CLONES float largest(const Rows<bf16>& rows) { return largest_of<uint16_t>(rows); }

RACKSCALE_CLONES void encode_nvfp4(const Rows<float>& rows, float tensor_scale, uint8_t* codes, uint8_t* scales) {
  encode(rows, tensor_scale, codes, scales);
}
RACKSCALE_CLONES void encode_nvfp4(const Rows<bf16>& rows, float tensor_scale, uint8_t* codes, uint8_t* scales) {
  encode(rows, tensor_scale, codes, scales);
}

RACKSCALE_CLONES Squares compare_nvfp4(const Rows<float>& rows, float tensor_scale, const uint8_t* codes,
                                       const uint8_t* scales) {
  return compare(rows, tensor_scale, codes, scales);
}
RACKSCALE_CLONES Squares compare_nvfp4(const Rows<bf16>& rows, float tensor_scale, const uint8_t* codes,
                                       const uint8_t* scales) {
  return compare(rows, tensor_scale, codes, scales);
}

}  // namespace rackscale
