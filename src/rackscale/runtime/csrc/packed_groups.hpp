// NVFP4 times rows of int8 with AVX2: a group's sums stay whole numbers, its scales included. The scales of a row's
// group are multiples of the last place of the least of them. Where all are at most 15 * 2^9 of it, the sums fit into
// 32 bits, and vpmaddwd multiplies with the scale while it adds pairs. Groups with scales further apart are summed as
// floats, block by block. Either way few tokens (weights decoded in registers) and many (decoded once for all, into the
// first cache) come to the same bits: all that they do differently is exact.
#pragma once

#include <cstring>

#include "packed_tiles.hpp"

namespace rackscale {
namespace {

constexpr Layout kNvfp4 = layout_of(Format::kNvfp4);
constexpr int kSpanBlocks = kNvfp4.span / kNvfp4.block, kGroupBlocks = kGroup / kNvfp4.block;
constexpr int kWidest = 9;         // powers of two between the scales of a group
constexpr int64_t kInRegisters = 8;  // tokens up to which a weight is decoded in registers

RACKSCALE_INLINE __m256i at(const void* from) { return _mm256_load_si256(static_cast<const __m256i*>(from)); }
RACKSCALE_INLINE __m256i dword(const uint8_t* from, int i) {
  return _mm256_set1_epi32(reinterpret_cast<const int32_t*>(from)[i]);
}

// The sums of four lines' products, in pairs of words.
RACKSCALE_INLINE __m256i four(__m256i a, __m256i b, __m256i c, __m256i d) {
  return _mm256_add_epi16(_mm256_add_epi16(a, b), _mm256_add_epi16(c, d));
}

// A group's scales. whole: each twice, for both words of a pair; times `unit` they are what Avx2::scale() gives.
struct Scales {
  alignas(32) int16_t whole[kGroupBlocks][2][16];
  alignas(32) float unit[2][8];

  // False where they are too far apart.
  RACKSCALE_INLINE bool read(const uint8_t* spans, int num_spans) {
    const __m256i one = _mm256_set1_epi8(1);
    __m256i most = _mm256_setzero_si256(), least = _mm256_set1_epi8(-1);
    for (int s = 0; s < num_spans; ++s)
      for (int i = 0; i < 2; ++i) {
        const __m256i bytes = at(spans + s * kNvfp4.span_bytes() + 32 * i);
        most = _mm256_max_epu8(most, bytes);
        least = _mm256_min_epu8(least, _mm256_sub_epi8(bytes, one));  // zeros do not count
      }
    const __m128i high = exponents(_mm_max_epu8(_mm256_castsi256_si128(most), _mm256_extracti128_si256(most, 1)));
    const __m128i less = _mm_min_epu8(_mm256_castsi256_si128(least), _mm256_extracti128_si256(least, 1));
    const __m128i low = exponents(_mm_add_epi8(less, _mm_set1_epi8(1)));
    if (_mm_movemask_epi8(_mm_cmpgt_epi8(_mm_sub_epi8(high, low), _mm_set1_epi8(kWidest)))) return false;
    for (int half = 0; half < 2; ++half) {
      const __m256i exponent = _mm256_cvtepu8_epi32(half == 0 ? low : _mm_unpackhi_epi64(low, low));
      const __m256i power = _mm256_slli_epi32(_mm256_sub_epi32(exponent, _mm256_set1_epi32(18)), 23);
      const __m256i bias = _mm256_set1_epi32(127 << 23);
      _mm256_store_ps(unit[half], _mm256_castsi256_ps(_mm256_add_epi32(bias, power)));
      const __m256 inverse = _mm256_castsi256_ps(_mm256_sub_epi32(bias, power));
      for (int block = 0; block < num_spans * kSpanBlocks; ++block) {
        const uint8_t* span = spans + block / kSpanBlocks * kNvfp4.span_bytes();
        const __m256 scale = Avx2::scale<Format::kNvfp4>(span, block % kSpanBlocks, half);
        const __m256i number = _mm256_cvtps_epi32(_mm256_mul_ps(scale, inverse));
        const __m256i twice = _mm256_setr_epi8(0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13,  //
                                               0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13);
        _mm256_store_si256(reinterpret_cast<__m256i*>(whole[block][half]), _mm256_shuffle_epi8(number, twice));
      }
    }
    return true;
  }

 private:
  // Of E4M3's bytes; that of subnormal numbers is 1.
  static RACKSCALE_INLINE __m128i exponents(__m128i bytes) {
    return _mm_max_epu8(_mm_and_si128(_mm_srli_epi16(bytes, 3), _mm_set1_epi8(15)), _mm_set1_epi8(1));
  }
};

// A block's four lines of bytes, even and odd columns by turns: twice E2M1's value, + 12 where not kSigned.
template <bool kSigned>
RACKSCALE_INLINE void decode(const uint8_t* span, int block, int half, __m256i (&w)[4]) {
  const uint8_t* line = span + kLine + 2 * block * kLine + half * 32;
  if constexpr (kSigned) {
    const __m256i low = _mm256_set1_epi8(15);
    const __m256i table = _mm256_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12,  //
                                           0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
    RACKSCALE_UNROLL for (int i = 0; i < 2; ++i) {
      const __m256i codes = at(line + i * kLine);
      w[2 * i] = _mm256_shuffle_epi8(table, _mm256_and_si256(codes, low));
      w[2 * i + 1] = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(codes, 4), low));
    }
  } else {
    Avx2::nibbles<Format::kNvfp4>(at(line), w[0], w[1]);
    Avx2::nibbles<Format::kNvfp4>(at(line + kLine), w[2], w[3]);
  }
}

// A line of nine, one after the other: many at once would wait for each other.
RACKSCALE_INLINE void fetch(const uint8_t* span, int i) {
  __builtin_prefetch(span + Avx2::kPrefetchBytes + i * kLine, 0, 3);
  if (i == 7) __builtin_prefetch(span + Avx2::kPrefetchBytes + 8 * kLine, 0, 3);
}

// Unsigned weights times signed values. The start makes up for the weights' offset; it is the pair's lower word.
template <int M>
void few_tokens(const uint8_t* tile, float tile_scale, const Panel& panel, int64_t depth, float* out) {
  const int64_t end = up_to(depth, kNvfp4.span);
  __m256 total[2][M];
  for (int half = 0; half < 2; ++half)
    RACKSCALE_UNROLL for (int m = 0; m < M; ++m) total[half][m] = _mm256_setzero_ps();
  for (int64_t k = 0; k < end; k += kGroup) {
    const int spans = end - k < kGroup ? 1 : 2;
    const uint8_t* const values = panel.values + k * M;
    const int32_t* const starts = panel.starts + k / kNvfp4.block * M;
    Scales scales;
    const bool is_whole = scales.read(tile, spans);
    for (int half = 0; half < 2; ++half) {
      __m256i sums[M];
      __m256 floats[M];
      RACKSCALE_UNROLL for (int m = 0; m < M; ++m) sums[m] = _mm256_setzero_si256();
      RACKSCALE_UNROLL for (int m = 0; m < M; ++m) floats[m] = _mm256_setzero_ps();
      const auto pairs = [&](int block, int m, const __m256i(&w)[4]) RACKSCALE_LAMBDA {
        const uint8_t* q = values + (block * M + m) * kChunk;
        const __m256i start = _mm256_set1_epi32(starts[block * M + m]);
        const __m256i sum = four(_mm256_maddubs_epi16(w[0], dword(q, 0)), _mm256_maddubs_epi16(w[1], dword(q, 1)),
                                 _mm256_maddubs_epi16(w[2], dword(q, 2)), _mm256_maddubs_epi16(w[3], dword(q, 3)));
        return _mm256_add_epi16(sum, start);
      };
      if (is_whole) {
        for (int s = 0; s < spans; ++s)
          RACKSCALE_UNROLL for (int i = 0; i < kSpanBlocks; ++i) {
            fetch(tile + kNvfp4.span_bytes() * s, half * kSpanBlocks + i);
            const int block = s * kSpanBlocks + i;
            __m256i w[4];
            decode<false>(tile + s * kNvfp4.span_bytes(), i, half, w);
            const __m256i scale = at(scales.whole[block][half]);
            RACKSCALE_UNROLL for (int m = 0; m < M; ++m)
              sums[m] = _mm256_add_epi32(sums[m], _mm256_madd_epi16(pairs(block, m, w), scale));
          }
        RACKSCALE_UNROLL for (int m = 0; m < M; ++m)
          floats[m] = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[m]), _mm256_load_ps(scales.unit[half]));
      } else {
        for (int block = 0; block < spans * kSpanBlocks; ++block) {
          const uint8_t* span = tile + block / kSpanBlocks * kNvfp4.span_bytes();
          __m256i w[4];
          decode<false>(span, block % kSpanBlocks, half, w);
          const __m256 scale = Avx2::scale<Format::kNvfp4>(span, block % kSpanBlocks, half);
          RACKSCALE_UNROLL for (int m = 0; m < M; ++m) {
            const __m256i dot = _mm256_madd_epi16(pairs(block, m, w), _mm256_set1_epi16(1));
            floats[m] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, floats[m]);
          }
        }
      }
      RACKSCALE_UNROLL for (int m = 0; m < M; ++m)
        total[half][m] = _mm256_fmadd_ps(floats[m], _mm256_set1_ps(panel.scales[k / kGroup * M + m]), total[half][m]);
    }
    tile += spans * kNvfp4.span_bytes();
  }
  const __m256 factor = _mm256_set1_ps(tile_scale * factor_of(Format::kNvfp4, Kind::kInt8));
  for (int half = 0; half < 2; ++half)
    RACKSCALE_UNROLL for (int m = 0; m < M; ++m)
      _mm256_storeu_ps(out + m * kTileRows + half * 8, _mm256_mul_ps(total[half][m], factor));
}

// A group decoded: signed bytes, to be multiplied with values + 128. What the 128 comes to: block_starts, and starts of
// all blocks times their scales, with its sign turned.
struct Decoded {
  alignas(64) int8_t w[kGroupBlocks][4][2][32];
  alignas(64) int16_t block_starts[kGroupBlocks][2][16];
  alignas(64) int32_t starts[2][8];
  alignas(64) float floats[kGroupBlocks][2][8];
  Scales scales;
  bool is_whole;

  template <int kSpans>
  RACKSCALE_INLINE void read(const uint8_t* tile) {
    is_whole = scales.read(tile, kSpans);
    const __m256i turned = _mm256_set1_epi8(-128);
    for (int half = 0; half < 2; ++half) {
      __m256i sum = _mm256_setzero_si256();
      for (int block = 0; block < kSpans * kSpanBlocks; ++block) {
        const uint8_t* span = tile + block / kSpanBlocks * kNvfp4.span_bytes();
        __m256i lines[4];
        decode<true>(span, block % kSpanBlocks, half, lines);
        RACKSCALE_UNROLL for (int i = 0; i < 4; ++i)
          _mm256_store_si256(reinterpret_cast<__m256i*>(w[block][i][half]), lines[i]);
        const __m256i all = _mm256_add_epi8(_mm256_add_epi8(lines[0], lines[1]), _mm256_add_epi8(lines[2], lines[3]));
        const __m256i start = _mm256_maddubs_epi16(turned, all);
        if (is_whole) {
          sum = _mm256_sub_epi32(sum, _mm256_madd_epi16(start, at(scales.whole[block][half])));
        } else {
          _mm256_store_si256(reinterpret_cast<__m256i*>(block_starts[block][half]), start);
          _mm256_store_ps(floats[block][half], Avx2::scale<Format::kNvfp4>(span, block % kSpanBlocks, half));
        }
      }
      _mm256_store_si256(reinterpret_cast<__m256i*>(starts[half]), sum);
    }
  }
};

// Signed weights times unsigned values, in pairs of words.
RACKSCALE_INLINE __m256i pairs(const Decoded& group, const uint8_t* q, int block, int half) {
  __m256i products[4];
  RACKSCALE_UNROLL for (int i = 0; i < 4; ++i)
    products[i] = _mm256_maddubs_epi16(dword(q + block * kChunk, i), at(group.w[block][i][half]));
  return four(products[0], products[1], products[2], products[3]);
}

// A group's sums for one token, both halves.
template <int kBlocks>
RACKSCALE_INLINE void whole_sums(const Decoded& group, const uint8_t* q, __m256 (&sums)[2]) {
  __asm__ volatile("" : : "r"(&group) : "memory");  // or the weights are copied, to be "in registers" for all tokens
  __m256i whole[2] = {at(group.starts[0]), at(group.starts[1])};
  RACKSCALE_UNROLL for (int block = 0; block < kBlocks; ++block)
    RACKSCALE_UNROLL for (int half = 0; half < 2; ++half) {
      const __m256i scale = at(group.scales.whole[block][half]);
      whole[half] = _mm256_add_epi32(whole[half], _mm256_madd_epi16(pairs(group, q, block, half), scale));
    }
  RACKSCALE_UNROLL for (int half = 0; half < 2; ++half)
    sums[half] = _mm256_mul_ps(_mm256_cvtepi32_ps(whole[half]), _mm256_load_ps(group.scales.unit[half]));
}
template <int kBlocks>
RACKSCALE_INLINE void float_sums(const Decoded& group, const uint8_t* q, __m256 (&sums)[2]) {
  sums[0] = sums[1] = _mm256_setzero_ps();
  for (int block = 0; block < kBlocks; ++block)
    for (int half = 0; half < 2; ++half) {
      const __m256i words = _mm256_sub_epi16(pairs(group, q, block, half), at(group.block_starts[block][half]));
      const __m256 dot = _mm256_cvtepi32_ps(_mm256_madd_epi16(words, _mm256_set1_epi16(1)));
      sums[half] = _mm256_fmadd_ps(dot, _mm256_load_ps(group.floats[block][half]), sums[half]);
    }
}

template <int kSpans>
void group_times(const uint8_t* tile, const uint8_t* values, const float* scales, int64_t tokens, float* out) {
  constexpr int kBlocks = kSpans * kSpanBlocks;
  const auto add = [&](int64_t m, const __m256(&sums)[2]) RACKSCALE_LAMBDA {
    float* to = out + m * kTileRows;
    const __m256 scale = _mm256_set1_ps(scales[m]);
    RACKSCALE_UNROLL for (int half = 0; half < 2; ++half)
      _mm256_storeu_ps(to + half * 8, _mm256_fmadd_ps(sums[half], scale, _mm256_loadu_ps(to + half * 8)));
  };
  for (int i = 0; i < kSpans * kNvfp4.span_bytes() / kLine; ++i)
    __builtin_prefetch(tile + Avx2::kPrefetchBytes + i * kLine, 0, 3);
  Decoded group;
  group.read<kSpans>(tile);
  __m256 sums[2];
  if (group.is_whole) {
    for (int64_t m = 0; m < tokens; ++m) {
      whole_sums<kBlocks>(group, values + m * kGroup, sums);
      add(m, sums);
    }
  } else {
    for (int64_t m = 0; m < tokens; ++m) {
      float_sums<kBlocks>(group, values + m * kGroup, sums);
      add(m, sums);
    }
  }
}

// All tokens pass a group of the weight before the next is decoded.
void many_tokens(const uint8_t* tile, float tile_scale, const Panel& panel, int64_t depth, float* out) {
  const int64_t end = up_to(depth, kNvfp4.span), tokens = panel.tokens;
  std::memset(out, 0, static_cast<size_t>(tokens * kTileRows) * sizeof(float));
  for (int64_t k = 0; k < end; k += kGroup, tile += 2 * kNvfp4.span_bytes())
    (end - k < kGroup ? group_times<1> : group_times<2>)(tile, panel.values + k * tokens,
                                                        panel.scales + k / kGroup * tokens, tokens, out);
  const __m256 factor = _mm256_set1_ps(tile_scale * factor_of(Format::kNvfp4, Kind::kInt8));
  for (int64_t i = 0; i < tokens * kTileRows; i += 8)
    _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_loadu_ps(out + i), factor));
}

}  // namespace
}  // namespace rackscale
