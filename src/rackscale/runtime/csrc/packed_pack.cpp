// From a checkpoint's matrices to tiles: dwords are transposed, scales put beside them.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "packed_layout.hpp"
#include "portable.hpp"

namespace rackscale {
namespace {

constexpr int64_t kTilesAtOnce = 8;  // taken by a thread

int64_t row_bytes(Format format, int64_t depth) {
  return depth * 4 / layout_of(format).columns_per_line;  // a line has a dword of a row
}

typedef uint8_t u8x16 __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint32_t u32x4 __attribute__((vector_size(16), aligned(1), may_alias));

RACKSCALE_INLINE u32x4 four(const void* from) {
  u32x4 value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

RACKSCALE_INLINE void transpose(u32x4 (&x)[4]) {
  const u32x4 a = __builtin_shufflevector(x[0], x[1], 0, 4, 1, 5), b = __builtin_shufflevector(x[0], x[1], 2, 6, 3, 7);
  const u32x4 c = __builtin_shufflevector(x[2], x[3], 0, 4, 1, 5), d = __builtin_shufflevector(x[2], x[3], 2, 6, 3, 7);
  x[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5);
  x[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
  x[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5);
  x[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
}

// The lines of one span: dwords of up to sixteen rows, `size` bytes each; what is missing is zero.
RACKSCALE_INLINE void put_lines(const uint8_t* const* rows, int64_t num_rows, int64_t at, int64_t size,
                                int64_t num_lines, uint8_t* to) {
  int64_t line = 0;
  if (num_rows == kTileRows)
    for (; line + 4 <= num_lines && at + 4 * (line + 4) <= size; line += 4)
      for (int64_t row = 0; row < kTileRows; row += 4) {
        u32x4 dwords[4];
        for (int i = 0; i < 4; ++i) dwords[i] = four(rows[row + i] + at + 4 * line);
        transpose(dwords);
        for (int i = 0; i < 4; ++i) std::memcpy(to + (line + i) * kLine + 4 * row, &dwords[i], sizeof(u32x4));
      }
  if (line == num_lines) return;
  std::memset(to + line * kLine, 0, static_cast<size_t>((num_lines - line) * kLine));
  for (; line < num_lines; ++line) {
    const int64_t left = std::min<int64_t>(4, size - at - 4 * line);
    for (int64_t row = 0; row < num_rows && left > 0; ++row)
      std::memcpy(to + line * kLine + 4 * row, rows[row] + at + 4 * line, static_cast<size_t>(left));
  }
}

// A line of scales: a dword of each row, that holds all of the span's; block by block then. `left`: bytes of a row's
// scales from here on; what is missing is zero.
template <Format format>
RACKSCALE_INLINE void put_scales(const uint8_t* const* rows, int64_t num_rows, int64_t at, int64_t left, uint8_t* to) {
  alignas(16) uint32_t dwords[kTileRows] = {};
  if (left >= 4) {
    for (int64_t row = 0; row < num_rows; ++row) std::memcpy(dwords + row, rows[row] + at, 4);
  } else {
    for (int64_t row = 0; row < num_rows; ++row) std::memcpy(dwords + row, rows[row] + at, static_cast<size_t>(left));
  }
  if constexpr (format == Format::kFp8) {
    std::memcpy(to, dwords, sizeof(dwords));
  } else {
    u32x4 x[4];
    for (int i = 0; i < 4; ++i) {
      const u8x16 bytes = (u8x16)four(dwords + 4 * i);
      x[i] = format == Format::kInt4
                 ? (u32x4)__builtin_shufflevector(bytes, bytes, 0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15)
                 : (u32x4)__builtin_shufflevector(bytes, bytes, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    }
    if constexpr (format == Format::kInt4) {
      for (int i = 0; i < 4; i += 2) {
        const u32x4 first = __builtin_shufflevector(x[i], x[i + 1], 0, 1, 4, 5);
        const u32x4 second = __builtin_shufflevector(x[i], x[i + 1], 2, 3, 6, 7);
        std::memcpy(to + 8 * i, &first, sizeof(first));
        std::memcpy(to + kLine / 2 + 8 * i, &second, sizeof(second));
      }
    } else {
      transpose(x);
      std::memcpy(to, x, sizeof(x));
    }
  }
}

template <Format format>
RACKSCALE_INLINE void pack_spans(const PackJob& job, const uint8_t* const* codes, const uint8_t* const* scales,
                                 int64_t num_rows, uint8_t* to) {
  constexpr Layout layout = layout_of(format);
  constexpr int64_t kWidth = format == Format::kInt4 ? 2 : format == Format::kFp8 ? 4 : 1;  // bytes of a scale
  const int64_t size = row_bytes(format, job.depth), span_size = row_bytes(format, layout.span);
  for (int64_t span = 0; span * layout.span < job.depth; ++span, to += layout.span_bytes()) {
    if constexpr (layout.block != 0) {
      const int64_t present = (job.depth + layout.block - 1) / layout.block * kWidth;
      const int64_t at = span * (layout.span / layout.block) * kWidth;
      put_scales<format>(scales, num_rows, at, present - at, to);
    }
    put_lines(codes, num_rows, span * span_size, size, layout.lines(), to + layout.scale_lines * kLine);
  }
}

RACKSCALE_CLONES void pack_tile(const PackJob& job, int64_t tile) {
  const int64_t first = tile * kTileRows, num_rows = std::min(kTileRows, job.num_rows - first);
  const uint8_t *codes[kTileRows], *scales[kTileRows];
  for (int64_t row = 0; row < num_rows; ++row) {
    codes[row] = job.codes + (first + row) * job.codes_stride;
    scales[row] = job.scales + (job.format == Format::kFp8 ? (first + row) / 128 : first + row) * job.scales_stride;
  }
  const int64_t index = job.first_tile + tile * job.tile_step;
  job.tile_scales[index] = job.tensor_scale;
  uint8_t* to = job.tiles + index * tile_bytes(job.format, job.depth);
  switch (job.format) {
    case Format::kNvfp4:
      return pack_spans<Format::kNvfp4>(job, codes, scales, num_rows, to);
    case Format::kInt4:
      return pack_spans<Format::kInt4>(job, codes, scales, num_rows, to);
    case Format::kMxfp4:
      return pack_spans<Format::kMxfp4>(job, codes, scales, num_rows, to);
    case Format::kFp8:
      return pack_spans<Format::kFp8>(job, codes, scales, num_rows, to);
    case Format::kBf16:
      return pack_spans<Format::kBf16>(job, codes, scales, num_rows, to);
  }
}

}  // namespace

int64_t tile_bytes(Format format, int64_t depth) {
  const Layout layout = layout_of(format);
  return up_to(depth, layout.span) / layout.span * layout.span_bytes();
}

void pack(const PackJob* jobs, int64_t num_jobs, int num_threads) {
  // Where each job's takes of some tiles begin, in a row of all of them.
  std::vector<int64_t> starts(static_cast<size_t>(num_jobs) + 1, 0);
  for (int64_t i = 0; i < num_jobs; ++i)
    starts[i + 1] = starts[i] + up_to(jobs[i].num_rows, kTileRows * kTilesAtOnce) / (kTileRows * kTilesAtOnce);
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t take; (take = next.fetch_add(1)) < starts.back();) {
      const int64_t i = std::upper_bound(starts.begin(), starts.end(), take) - starts.begin() - 1;
      const int64_t tiles = up_to(jobs[i].num_rows, kTileRows) / kTileRows, first = (take - starts[i]) * kTilesAtOnce;
      for (int64_t tile = first; tile < std::min(first + kTilesAtOnce, tiles); ++tile) pack_tile(jobs[i], tile);
    }
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < num_threads; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
}

}  // namespace rackscale
