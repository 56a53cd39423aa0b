// A tile times a panel, written once for all instruction sets. A set V has:
//   kLanes           of a tile's sixteen rows, that are computed at once
//   F, W             that many floats; a line's bytes of that many rows
//   zero, all, add, multiply, fused (a * b + c), store, line
//   nibbles          a line's even and its odd columns, as unsigned bytes: twice E2M1's value + 12, or int4's nibble
//   dot              of `chunks` chunks of bytes with a token's, plus a start, as floats
//   scale            of a span's block; E4M3's are 2^-8 of what they are, which spares them subnormals
//   column           of a line, as floats
//   pair, pair_dot   of a line's columns, as bf16, where kHasBf16
// Included by one source file for each set: everything is in an anonymous namespace, so that no function compiled for one
// machine is linked into another's kernels.
#pragma once

#include "packed_kernels.hpp"
#include "portable.hpp"

#define RACKSCALE_UNROLL _Pragma("GCC unroll 16")

namespace rackscale {
namespace {

constexpr int offset_of(Format format) { return format == Format::kInt4 ? 8 : 12; }

// What the kernel's sums have to be multiplied with.
constexpr float factor_of(Format format, Kind kind) {
  float factor = format == Format::kNvfp4 ? 256.0f : 1.0f;
  if ((kind == Kind::kInt8 || kind == Kind::kNvfp4) && format != Format::kInt4) factor *= 0.5f;
  if (kind == Kind::kNvfp4) factor *= 0.5f;
  return factor;
}

// A span's blocks with rows of small integers, added to sums.
template <typename V, Format format, Kind kind, int M>
RACKSCALE_INLINE void integer_span(const uint8_t* span, int half, const uint8_t* values, const int32_t* starts,
                                   const float* scales, typename V::F (&sums)[M]) {
  constexpr Layout layout = layout_of(format);
  constexpr int kChunks = layout.block / kChunk, kLines = layout.block / layout.columns_per_line;
  const uint8_t* lines = span + kLine + half * V::kLanes * 4;
  RACKSCALE_UNROLL for (int block = 0; block < layout.span / layout.block; ++block) {
    typename V::W w[2 * kLines];
    RACKSCALE_UNROLL for (int i = 0; i < kLines; ++i)
      V::template nibbles<format>(V::line(lines + (block * kLines + i) * kLine), w[2 * i], w[2 * i + 1]);
    const typename V::F scale = V::template scale<format>(span, block, half);
    RACKSCALE_UNROLL for (int m = 0; m < M; ++m) {
      const typename V::F dot = V::template dot<kChunks>(starts[block * M + m], w,
                                                         values + (block * kChunks * M + m) * kChunk, M * kChunk);
      if constexpr (kind == Kind::kNvfp4)
        sums[m] = V::fused(dot, V::multiply(scale, V::all(scales[block * M + m])), sums[m]);
      else
        sums[m] = V::fused(dot, scale, sums[m]);
    }
  }
}

// The same with rows of floats, or of bf16.
template <typename V, Format format, Kind kind, int M>
RACKSCALE_INLINE void float_span(const uint8_t* span, int half, const uint8_t* values, typename V::F (&sums)[M]) {
  constexpr Layout layout = layout_of(format);
  constexpr int kBlock = layout.block ? layout.block : layout.span, kPerLine = layout.columns_per_line;
  constexpr int kBytes = value_bytes(kind), kStep = kind == Kind::kBf16 ? 2 : 1;
  const uint8_t* lines = span + layout.scale_lines * kLine + half * V::kLanes * 4;
  for (int block = 0; block < layout.span / kBlock; ++block) {
    typename V::F dots[M];
    RACKSCALE_UNROLL for (int m = 0; m < M; ++m) dots[m] = V::zero();
#pragma GCC unroll 2
    for (int i = 0; i < kBlock / kPerLine; ++i) {
      const int column = block * kBlock + i * kPerLine;
      const auto line = V::line(lines + column / kPerLine * kLine);
      const uint8_t* at = values + (column / kChunk * M * kChunk + column % kChunk) * kBytes;
      RACKSCALE_UNROLL for (int c = 0; c < kPerLine; c += kStep) {
        if constexpr (kind == Kind::kBf16) {
          const auto w = V::template pair<format>(line, c / 2);
          RACKSCALE_UNROLL for (int m = 0; m < M; ++m)
            dots[m] = V::pair_dot(w, at + (m * kChunk + c) * kBytes, dots[m]);
        } else {
          const typename V::F w = V::template column<format>(line, c);
          RACKSCALE_UNROLL for (int m = 0; m < M; ++m)
            dots[m] = V::fused(w, V::all(reinterpret_cast<const float*>(at)[m * kChunk + c]), dots[m]);
        }
      }
    }
    if constexpr (layout.block != 0) {
      const typename V::F scale = V::template scale<format>(span, block, half);
      RACKSCALE_UNROLL for (int m = 0; m < M; ++m) sums[m] = V::fused(dots[m], scale, sums[m]);
    } else {
      RACKSCALE_UNROLL for (int m = 0; m < M; ++m) sums[m] = V::add(dots[m], sums[m]);
    }
  }
}

// Every token's sum goes the same way whatever M is: block by block through a group, then group by group.
template <typename V, Format format, Kind kind, int M>
void times(const uint8_t* tile, float tile_scale, const Panel& panel, int64_t depth, float* out) {
  constexpr Layout layout = layout_of(format);
  constexpr int kHalves = kTileRows / V::kLanes;
  constexpr int kStartBlock = start_block(format);
  constexpr bool kInteger = kind == Kind::kInt8 || kind == Kind::kNvfp4;
  const int64_t end = up_to(depth, layout.span);
  typename V::F total[kHalves][M];
  for (int half = 0; half < kHalves; ++half)
    RACKSCALE_UNROLL for (int m = 0; m < M; ++m) total[half][m] = V::zero();
  for (int64_t k = 0; k < end; k += kGroup) {
    const int spans = static_cast<int>((end - k < kGroup ? end - k : kGroup) / layout.span);
    for (int half = 0; half < kHalves; ++half) {
      typename V::F sums[M];
      RACKSCALE_UNROLL for (int m = 0; m < M; ++m) sums[m] = V::zero();
      for (int s = 0; s < spans; ++s) {
        const int64_t column = k + s * layout.span;
        const uint8_t* span = tile + s * layout.span_bytes();
        const uint8_t* values = panel.values + column * M * value_bytes(kind);
        if constexpr (M >= V::kPrefetchFrom) {
          if (half == 0)
            for (int i = 0; i < layout.span_bytes() / kLine; ++i)
              __builtin_prefetch(span + V::kPrefetchBytes + i * kLine, 0, 3);
        }
        if constexpr (kInteger)
          integer_span<V, format, kind, M>(span, half, values, panel.starts + column / kStartBlock * M,
                                           panel.scales + column / scale_block(kind) * M, sums);
        else
          float_span<V, format, kind, M>(span, half, values, sums);
      }
      RACKSCALE_UNROLL for (int m = 0; m < M; ++m) {
        if constexpr (kind == Kind::kInt8)
          total[half][m] = V::fused(sums[m], V::all(panel.scales[k / kGroup * M + m]), total[half][m]);
        else
          total[half][m] = V::add(total[half][m], sums[m]);
      }
    }
    tile += spans * layout.span_bytes();
  }
  const typename V::F factor = V::all(tile_scale * factor_of(format, kind));
  for (int half = 0; half < kHalves; ++half)
    RACKSCALE_UNROLL for (int m = 0; m < M; ++m)
      V::store(out + m * kTileRows + half * V::kLanes, V::multiply(total[half][m], factor));
}

template <typename V, Format format, Kind kind, int M>
TileKernel of_tokens(int64_t tokens) {
  if constexpr (M == 0) {
    return nullptr;
  } else {
    if constexpr (V::template takes<kind>(M))
      if (tokens == M) return times<V, format, kind, M>;
    return of_tokens<V, format, kind, M - 1>(tokens);
  }
}

template <typename V, Format format>
TileKernel of_kind(Kind kind, int64_t tokens) {
  switch (kind) {
    case Kind::kInt8:
      if constexpr (layout_of(format).columns_per_line == 8)
        return of_tokens<V, format, Kind::kInt8, kMostTokens>(tokens);
      break;
    case Kind::kNvfp4:
      if constexpr (format == Format::kNvfp4) return of_tokens<V, format, Kind::kNvfp4, kMostTokens>(tokens);
      break;
    case Kind::kBf16:
      if constexpr (V::kHasBf16) return of_tokens<V, format, Kind::kBf16, kMostTokens>(tokens);
      break;
    default:
      return of_tokens<V, format, Kind::kFp32, kMostTokens>(tokens);
  }
  return nullptr;
}

template <typename V>
TileKernel tile_of(Format format, Kind kind, int64_t tokens) {
  switch (format) {
    case Format::kNvfp4:
      return of_kind<V, Format::kNvfp4>(kind, tokens);
    case Format::kInt4:
      return of_kind<V, Format::kInt4>(kind, tokens);
    case Format::kMxfp4:
      return of_kind<V, Format::kMxfp4>(kind, tokens);
    case Format::kFp8:
      return of_kind<V, Format::kFp8>(kind, tokens);
    default:
      return of_kind<V, Format::kBf16>(kind, tokens);
  }
}

template <typename V>
Kind kind_of(Format format, Activations activations) {
  if (activations == Activations::kFp32) return Kind::kFp32;
  if (activations == Activations::kInt8 && layout_of(format).columns_per_line == 8) return Kind::kInt8;
  if (activations == Activations::kNvfp4 && format == Format::kNvfp4) return Kind::kNvfp4;
  return V::kHasBf16 ? Kind::kBf16 : Kind::kRounded;
}

// The fewest that hold what is left, or the most there is.
template <typename V, Kind kind>
int64_t fitting(int64_t left) {
  int64_t best = 0;
  for (int64_t m = kMostTokens; m >= 1; --m)
    if (V::template takes<kind>(m) && (best == 0 || m >= left)) best = m;
  return best;
}

template <typename V>
int64_t tokens_of(Format, Kind kind, int64_t left) {
  if (kind == Kind::kInt8 || kind == Kind::kNvfp4) return fitting<V, Kind::kInt8>(left);
  return kind == Kind::kBf16 ? fitting<V, Kind::kBf16>(left) : fitting<V, Kind::kFp32>(left);
}

inline uint8_t no_flip(Format, Kind, int64_t) { return 0; }

}  // namespace
}  // namespace rackscale
