// The packed kernels for AVX2, FMA and F16C: eight of a tile's rows at once, bytes through vpmaddubsw.
#if defined(__x86_64__) && defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include <immintrin.h>

#include "packed_rows.hpp"
#include "packed_tiles.hpp"

namespace rackscale {
namespace {

struct Avx2 {
  static constexpr int kLanes = 8;
  static constexpr bool kHasBf16 = false;
  static constexpr int kPrefetchFrom = 1, kPrefetchBytes = 4608;
  typedef __m256 F;
  typedef __m256i W;

  template <Kind kind>
  static constexpr bool takes(int64_t tokens) {
    return tokens <= 4 || (kind >= Kind::kInt8 && tokens == 6);
  }

  static RACKSCALE_INLINE F zero() { return _mm256_setzero_ps(); }
  static RACKSCALE_INLINE F all(float value) { return _mm256_set1_ps(value); }
  static RACKSCALE_INLINE F add(F a, F b) { return _mm256_add_ps(a, b); }
  static RACKSCALE_INLINE F multiply(F a, F b) { return _mm256_mul_ps(a, b); }
  static RACKSCALE_INLINE F fused(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static RACKSCALE_INLINE void store(float* to, F value) { _mm256_storeu_ps(to, value); }
  static RACKSCALE_INLINE W line(const uint8_t* at) { return _mm256_load_si256(reinterpret_cast<const __m256i*>(at)); }

  template <Format format>
  static RACKSCALE_INLINE void nibbles(W line, W& even, W& odd) {
    const __m256i low = _mm256_set1_epi8(15);
    even = _mm256_and_si256(line, low);
    odd = _mm256_and_si256(_mm256_srli_epi16(line, 4), low);
    if constexpr (format != Format::kInt4) {
      const __m256i table = _mm256_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0,  //
                                             12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
      even = _mm256_shuffle_epi8(table, even);
      odd = _mm256_shuffle_epi8(table, odd);
    }
  }

  // A chunk's four products of at most 24 * 127 * 2 each fit into sixteen bits.
  template <int chunks>
  static RACKSCALE_INLINE F dot(int32_t start, const W* w, const uint8_t* values, int64_t stride) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum = _mm256_set1_epi32(start);
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const int32_t* q = reinterpret_cast<const int32_t*>(values + chunk * stride);
      const W* at = w + 4 * chunk;
      const __m256i a = _mm256_add_epi16(_mm256_maddubs_epi16(at[0], _mm256_set1_epi32(q[0])),
                                         _mm256_maddubs_epi16(at[1], _mm256_set1_epi32(q[1])));
      const __m256i b = _mm256_add_epi16(_mm256_maddubs_epi16(at[2], _mm256_set1_epi32(q[2])),
                                         _mm256_maddubs_epi16(at[3], _mm256_set1_epi32(q[3])));
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_add_epi16(a, b), ones));
    }
    return _mm256_cvtepi32_ps(sum);
  }

  template <Format format>
  static RACKSCALE_INLINE F scale(const uint8_t* span, int block, int half) {
    const int at = block * kTileRows + half * kLanes;
    if constexpr (format == Format::kNvfp4) {
      const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(span + at));
      return _mm256_cvtph_ps(_mm_slli_epi16(_mm_cvtepu8_epi16(bytes), 7));
    } else if constexpr (format == Format::kInt4) {
      const __m128i words = _mm_load_si128(reinterpret_cast<const __m128i*>(span + 2 * at));
      return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(words), 16));
    } else if constexpr (format == Format::kMxfp4) {
      const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(span + at));
      const __m256i exponents = _mm256_slli_epi32(_mm256_cvtepu8_epi32(bytes), 23);
      return _mm256_castsi256_ps(_mm256_max_epu32(exponents, _mm256_set1_epi32(1 << 22)));  // of 0: 2^-127
    } else {
      return _mm256_load_ps(reinterpret_cast<const float*>(span) + at);
    }
  }

  template <Format format>
  static RACKSCALE_INLINE F column(W line, int c) {
    const __m256i sign = _mm256_set1_epi32(INT32_MIN);
    if constexpr (format == Format::kBf16) {
      return _mm256_castsi256_ps(c == 0 ? _mm256_slli_epi32(line, 16)
                                        : _mm256_and_si256(line, _mm256_set1_epi32(-65536)));
    } else if constexpr (format == Format::kFp8) {
      const __m256i size = _mm256_and_si256(_mm256_srli_epi32(line, 8 * c), _mm256_set1_epi32(0x7f));
      const __m256i normal = _mm256_add_epi32(_mm256_slli_epi32(size, 20), _mm256_set1_epi32(120 << 23));
      const __m256 subnormal = _mm256_mul_ps(_mm256_cvtepi32_ps(size), _mm256_set1_ps(0x1p-9f));
      const __m256i is_normal = _mm256_cmpgt_epi32(size, _mm256_set1_epi32(7));
      const __m256 value = _mm256_blendv_ps(subnormal, _mm256_castsi256_ps(normal), _mm256_castsi256_ps(is_normal));
      return _mm256_or_ps(value, _mm256_castsi256_ps(_mm256_and_si256(_mm256_slli_epi32(line, 24 - 8 * c), sign)));
    } else if constexpr (format == Format::kInt4) {
      const __m256i nibble = _mm256_and_si256(_mm256_srli_epi32(line, 4 * c), _mm256_set1_epi32(15));
      return _mm256_cvtepi32_ps(_mm256_sub_epi32(nibble, _mm256_set1_epi32(8)));
    } else {
      const __m256 sizes = _mm256_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f);
      const __m256 size = _mm256_permutevar8x32_ps(sizes, _mm256_srli_epi32(line, 4 * c));
      return _mm256_or_ps(size, _mm256_castsi256_ps(_mm256_and_si256(_mm256_slli_epi32(line, 28 - 4 * c), sign)));
    }
  }
};

}  // namespace
}  // namespace rackscale

#include "packed_groups.hpp"

namespace rackscale {
namespace {

bool in_groups(Format format, Kind kind) { return format == Format::kNvfp4 && kind == Kind::kInt8; }

int64_t panel_tokens(Format format, Kind kind, int64_t left) {
  return in_groups(format, kind) ? left : tokens_of<Avx2>(format, kind, left);
}

TileKernel tile(Format format, Kind kind, int64_t tokens) {
  if (!in_groups(format, kind)) return tile_of<Avx2>(format, kind, tokens);
  constexpr TileKernel kFew[] = {few_tokens<1>, few_tokens<2>, few_tokens<3>, few_tokens<4>,
                                  few_tokens<5>, few_tokens<6>, few_tokens<7>, few_tokens<8>};
  return tokens <= kInRegisters ? kFew[tokens - 1] : many_tokens;
}

uint8_t flip(Format format, Kind kind, int64_t tokens) {
  return in_groups(format, kind) && tokens > kInRegisters ? 0x80 : 0;
}

}  // namespace

const Instructions kAvx2 = {"avx2", kind_of<Avx2>, panel_tokens, tile, flip, encode_row<true>, activate_tile};

}  // namespace rackscale
#endif
