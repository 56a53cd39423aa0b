// The packed kernels for AVX-512 with VBMI, VNNI and BF16: a tile's sixteen rows at once.
#if defined(__x86_64__) && defined(__AVX512VNNI__) && defined(__AVX512BF16__) && defined(__AVX512VBMI__)
#include <immintrin.h>

#include "packed_rows.hpp"
#include "packed_tiles.hpp"

namespace rackscale {
namespace {

// Indices of a byte table use their low six bits, those of words five: four and two copies need no mask.
alignas(64) constexpr uint8_t kE2m1Bytes[64] = {
    12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0, 12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0,
    12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0, 12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0};
alignas(64) constexpr float kE2m1Floats[16] = {0.0f, 0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                               0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
alignas(64) constexpr uint16_t kE2m1Words[32] = {
    0x0000, 0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040, 0x4080, 0x40c0, 0x0000, 0xbf00, 0xbf80,
    0xbfc0, 0xc000, 0xc040, 0xc080, 0xc0c0, 0x0000, 0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040,
    0x4080, 0x40c0, 0x0000, 0xbf00, 0xbf80, 0xbfc0, 0xc000, 0xc040, 0xc080, 0xc0c0};
// Offset binary: -8 .. 7.
alignas(64) constexpr uint16_t kInt4Words[32] = {
    0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040, 0xc000, 0xbf80, 0x0000, 0x3f80, 0x4000,
    0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0, 0xc100, 0xc0e0, 0xc0c0, 0xc0a0, 0xc080, 0xc040,
    0xc000, 0xbf80, 0x0000, 0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0, 0x40e0};

struct Avx512 {
  static constexpr int kLanes = 16;
  static constexpr bool kHasBf16 = true;
  static constexpr int kPrefetchFrom = 4, kPrefetchBytes = 2304;
  typedef __m512 F;
  typedef __m512i W;

  template <Kind kind>
  static constexpr bool takes(int64_t tokens) {
    return tokens <= 4 || tokens == 6 || tokens == 8 || (kind >= Kind::kInt8 && (tokens == 12 || tokens == 16));
  }

  static RACKSCALE_INLINE F zero() { return _mm512_setzero_ps(); }
  static RACKSCALE_INLINE F all(float value) { return _mm512_set1_ps(value); }
  static RACKSCALE_INLINE F add(F a, F b) { return _mm512_add_ps(a, b); }
  static RACKSCALE_INLINE F multiply(F a, F b) { return _mm512_mul_ps(a, b); }
  static RACKSCALE_INLINE F fused(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static RACKSCALE_INLINE void store(float* to, F value) { _mm512_storeu_ps(to, value); }
  static RACKSCALE_INLINE W line(const uint8_t* at) { return _mm512_load_si512(reinterpret_cast<const __m512i*>(at)); }

  template <Format format>
  static RACKSCALE_INLINE void nibbles(W line, W& even, W& odd) {
    const __m512i odd_nibbles = _mm512_srli_epi16(line, 4);
    if constexpr (format == Format::kInt4) {
      const __m512i low = _mm512_set1_epi8(15);
      even = _mm512_and_si512(line, low);
      odd = _mm512_and_si512(odd_nibbles, low);
    } else {
      const __m512i table = _mm512_load_si512(reinterpret_cast<const __m512i*>(kE2m1Bytes));
      even = _mm512_permutexvar_epi8(line, table);
      odd = _mm512_permutexvar_epi8(odd_nibbles, table);
    }
  }

  template <int chunks>
  static RACKSCALE_INLINE F dot(int32_t start, const W* w, const uint8_t* values, int64_t stride) {
    __m512i sum = _mm512_set1_epi32(start);
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const int32_t* q = reinterpret_cast<const int32_t*>(values + chunk * stride);
      for (int i = 0; i < 4; ++i) sum = _mm512_dpbusd_epi32(sum, w[4 * chunk + i], _mm512_set1_epi32(q[i]));
    }
    return _mm512_cvtepi32_ps(sum);
  }

  template <Format format>
  static RACKSCALE_INLINE F scale(const uint8_t* span, int block, int) {
    const int at = block * kTileRows;
    if constexpr (format == Format::kNvfp4) {
      const __m128i bytes = _mm_load_si128(reinterpret_cast<const __m128i*>(span + at));
      return _mm512_cvtph_ps(_mm256_slli_epi16(_mm256_cvtepu8_epi16(bytes), 7));
    } else if constexpr (format == Format::kInt4) {
      const __m256i words = _mm256_load_si256(reinterpret_cast<const __m256i*>(span + 2 * at));
      return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
    } else if constexpr (format == Format::kMxfp4) {
      const __m128i bytes = _mm_load_si128(reinterpret_cast<const __m128i*>(span + at));
      const __m512i exponents = _mm512_slli_epi32(_mm512_cvtepu8_epi32(bytes), 23);
      return _mm512_castsi512_ps(_mm512_max_epu32(exponents, _mm512_set1_epi32(1 << 22)));  // of 0: 2^-127
    } else {
      return _mm512_load_ps(reinterpret_cast<const float*>(span));
    }
  }

  template <Format format>
  static RACKSCALE_INLINE F column(W line, int c) {
    if constexpr (format == Format::kBf16) {
      return _mm512_castsi512_ps(c == 0 ? _mm512_slli_epi32(line, 16)
                                        : _mm512_and_si512(line, _mm512_set1_epi32(-65536)));
    } else if constexpr (format == Format::kFp8) {
      const __m512i byte = _mm512_and_si512(_mm512_srli_epi32(line, 8 * c), _mm512_set1_epi32(0xff));
      const __m512i size = _mm512_and_si512(byte, _mm512_set1_epi32(0x7f));
      const __m512i half = _mm512_or_si512(_mm512_slli_epi32(size, 7),
                                           _mm512_slli_epi32(_mm512_sub_epi32(byte, size), 8));
      return _mm512_mul_ps(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(half)), _mm512_set1_ps(256.0f));
    } else if constexpr (format == Format::kInt4) {
      const __m512i nibble = _mm512_and_si512(_mm512_srli_epi32(line, 4 * c), _mm512_set1_epi32(15));
      return _mm512_cvtepi32_ps(_mm512_sub_epi32(nibble, _mm512_set1_epi32(8)));
    } else {
      return _mm512_permutexvar_ps(_mm512_srli_epi32(line, 4 * c), _mm512_load_ps(kE2m1Floats));
    }
  }

  // e4m3 to bf16, exact: what is subnormal here is not there. Normal numbers by their bits; of subnormal ones the byte's
  // seven values from a table of words.
  static RACKSCALE_INLINE __m512i widened(__m512i words) {
    const __m512i size = _mm512_and_si512(words, _mm512_set1_epi16(0x7f));
    const __m512i sign = _mm512_slli_epi16(_mm512_sub_epi16(words, size), 8);
    const __m512i normal = _mm512_add_epi16(_mm512_slli_epi16(size, 4), _mm512_set1_epi16(120 << 7));
    const __m512i table = _mm512_load_si512(reinterpret_cast<const __m512i*>(kSubnormalWords));
    const __mmask32 is_subnormal = _mm512_cmplt_epu16_mask(size, _mm512_set1_epi16(8));
    return _mm512_or_si512(sign, _mm512_mask_permutexvar_epi16(normal, is_subnormal, size, table));
  }
  alignas(64) static constexpr uint16_t kSubnormalWords[32] = {0x0000, 0x3b00, 0x3b80, 0x3bc0,
                                                               0x3c00, 0x3c20, 0x3c40, 0x3c60};

  template <Format format>
  static RACKSCALE_INLINE W pair(W line, int p) {
    if constexpr (format == Format::kBf16) {
      return line;
    } else if constexpr (format == Format::kFp8) {
      return widened(p == 0 ? _mm512_and_si512(line, _mm512_set1_epi16(0xff)) : _mm512_srli_epi16(line, 8));
    } else {
      const uint16_t* words = format == Format::kInt4 ? kInt4Words : kE2m1Words;
      const __m512i table = _mm512_load_si512(reinterpret_cast<const __m512i*>(words));
      return _mm512_permutexvar_epi16(p == 0 ? line : _mm512_srli_epi16(line, 4 * p), table);
    }
  }

  static RACKSCALE_INLINE F pair_dot(W w, const uint8_t* values, F sum) {
    const __m512i both = _mm512_set1_epi32(*reinterpret_cast<const int32_t*>(values));
    return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)both);
  }
};

}  // namespace

const Instructions kAvx512 = {"avx512",       kind_of<Avx512>, tokens_of<Avx512>, tile_of<Avx512>,
                              no_flip, encode_row<>, activate_tile};

}  // namespace rackscale
#endif
