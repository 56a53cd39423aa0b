// The packed kernels in plain C++: for machines that have nothing better, and to compare the others with.
#include "packed_rows.hpp"
#include "packed_tiles.hpp"

namespace rackscale {
namespace {

struct Portable {
  static constexpr int kLanes = 16;
  static constexpr bool kHasBf16 = false;
  static constexpr int kPrefetchFrom = kMostTokens + 1, kPrefetchBytes = 0;
  typedef f32x16 F;
  typedef int32_t i32x16 __attribute__((vector_size(64), aligned(4), may_alias));
  struct W {
    uint8_t bytes[64];
  };

  template <Kind kind>
  static constexpr bool takes(int64_t tokens) {
    return tokens == 1 || tokens == 4;
  }

  static RACKSCALE_INLINE F zero() { return F{}; }
  static RACKSCALE_INLINE F all(float value) { return F{} + value; }
  static RACKSCALE_INLINE F add(F a, F b) { return a + b; }
  static RACKSCALE_INLINE F multiply(F a, F b) { return a * b; }
  static RACKSCALE_INLINE F fused(F a, F b, F c) { return a * b + c; }
  static RACKSCALE_INLINE void store(float* to, F value) { rackscale::store(to, value); }
  static RACKSCALE_INLINE W line(const uint8_t* at) {
    W line;
    std::memcpy(&line, at, sizeof(line));
    return line;
  }

  static constexpr uint8_t kE2m1[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};

  template <Format format>
  static RACKSCALE_INLINE void nibbles(const W& line, W& even, W& odd) {
    for (int i = 0; i < 64; ++i) {
      const uint8_t low = line.bytes[i] & 15, high = line.bytes[i] >> 4;
      even.bytes[i] = format == Format::kInt4 ? low : kE2m1[low];
      odd.bytes[i] = format == Format::kInt4 ? high : kE2m1[high];
    }
  }

  template <int chunks>
  static RACKSCALE_INLINE F dot(int32_t start, const W* w, const uint8_t* values, int64_t stride) {
    i32x16 sum = i32x16{} + start;
    for (int chunk = 0; chunk < chunks; ++chunk)
      for (int i = 0; i < 16; ++i) {
        const int32_t q = reinterpret_cast<const int8_t*>(values)[chunk * stride + i];
        const uint8_t* bytes = w[4 * chunk + i / 4].bytes + i % 4;
        for (int row = 0; row < 16; ++row) sum[row] += q * bytes[4 * row];
      }
    return __builtin_convertvector(sum, F);
  }

  static RACKSCALE_INLINE float e4m3(uint32_t byte) {
    const uint32_t size = byte & 0x7f;
    const float value = size < 8 ? static_cast<float>(size) * 0x1p-9f : float_of((size << 20) + (120u << 23));
    return byte & 0x80 ? -value : value;
  }

  template <Format format>
  static RACKSCALE_INLINE F scale(const uint8_t* span, int block, int) {
    F scale;
    for (int row = 0; row < kTileRows; ++row) {
      const int at = block * kTileRows + row;
      if constexpr (format == Format::kNvfp4) {
        scale[row] = e4m3(span[at]) * 0x1p-8f;
      } else if constexpr (format == Format::kInt4) {
        scale[row] = widen(reinterpret_cast<const bf16*>(span)[at]);
      } else if constexpr (format == Format::kMxfp4) {
        scale[row] = float_of(span[at] ? static_cast<uint32_t>(span[at]) << 23 : 1u << 22);
      } else {
        scale[row] = reinterpret_cast<const float*>(span)[row];
      }
    }
    return scale;
  }

  template <Format format>
  static RACKSCALE_INLINE F column(const W& line, int c) {
    F column;
    for (int row = 0; row < kTileRows; ++row) {
      const uint8_t* bytes = line.bytes + 4 * row;
      if constexpr (format == Format::kBf16) {
        bf16 word;
        std::memcpy(&word, bytes + 2 * c, sizeof(word));
        column[row] = widen(word);
      } else if constexpr (format == Format::kFp8) {
        column[row] = e4m3(bytes[c]);
      } else {
        const int nibble = (bytes[c / 2] >> (c % 2 * 4)) & 15;
        column[row] = format == Format::kInt4 ? static_cast<float>(nibble - 8)
                                              : static_cast<float>(kE2m1[nibble] - 12) * 0.5f;
      }
    }
    return column;
  }
};

}  // namespace

const Instructions kPortable = {"portable",     kind_of<Portable>, tokens_of<Portable>, tile_of<Portable>,
                                no_flip, encode_row<>, activate_tile};

}  // namespace rackscale
