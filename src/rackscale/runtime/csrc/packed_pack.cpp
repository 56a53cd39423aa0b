// From a checkpoint's matrices to tiles: dwords are transposed, scales put beside them.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "packed_layout.hpp"

namespace rackscale {
namespace {

constexpr int64_t kTilesAtOnce = 8;  // taken by a thread

int64_t row_bytes(Format format, int64_t depth) {
  return depth * 4 / layout_of(format).columns_per_line;  // a line has a dword of a row
}

// The lines of one span: dwords of up to sixteen rows, `size` bytes each; what is missing is zero.
void put_lines(const uint8_t* const* rows, int64_t num_rows, int64_t at, int64_t size, int64_t num_lines, uint8_t* to) {
  const int64_t whole = num_rows == kTileRows ? std::min(num_lines, std::max<int64_t>(size - at, 0) / 4) : 0;
  uint32_t* out = reinterpret_cast<uint32_t*>(to);
  for (int64_t line = 0; line < whole; ++line)
    for (int64_t row = 0; row < kTileRows; ++row)
      std::memcpy(out + line * kTileRows + row, rows[row] + at + 4 * line, 4);
  if (whole == num_lines) return;
  std::memset(to + whole * kLine, 0, static_cast<size_t>((num_lines - whole) * kLine));
  for (int64_t line = whole; line < num_lines; ++line) {
    const int64_t left = std::min<int64_t>(4, size - at - 4 * line);
    for (int64_t row = 0; row < num_rows && left > 0; ++row)
      std::memcpy(out + line * kTileRows + row, rows[row] + at + 4 * line, static_cast<size_t>(left));
  }
}

// A line of scales: those of a span's blocks, sixteen rows of each. T is what one scale is.
template <typename T>
void put_scales(const uint8_t* const* rows, int64_t num_rows, int64_t first, int64_t count, int64_t present, uint8_t* to) {
  T* out = reinterpret_cast<T*>(to);
  if (num_rows < kTileRows || first + count > present) std::memset(to, 0, kLine);
  for (int64_t block = 0; block < std::min(count, present - first); ++block)
    for (int64_t row = 0; row < num_rows; ++row)
      std::memcpy(out + block * kTileRows + row, rows[row] + (first + block) * static_cast<int64_t>(sizeof(T)), sizeof(T));
}

void pack_tile(const PackJob& job, int64_t tile) {
  const Layout layout = layout_of(job.format);
  const int64_t first = tile * kTileRows, num_rows = std::min(kTileRows, job.num_rows - first);
  const uint8_t *codes[kTileRows], *scales[kTileRows];
  for (int64_t row = 0; row < num_rows; ++row) {
    codes[row] = job.codes + (first + row) * job.codes_stride;
    if (layout.block != 0)
      scales[row] = job.scales + (job.format == Format::kFp8 ? (first + row) / 128 : first + row) * job.scales_stride;
  }
  const int64_t index = job.first_tile + tile * job.tile_step;
  job.tile_scales[index] = job.tensor_scale;
  uint8_t* to = job.tiles + index * tile_bytes(job.format, job.depth);
  const int64_t size = row_bytes(job.format, job.depth), span_size = row_bytes(job.format, layout.span);
  const int64_t blocks = layout.block ? layout.span / layout.block : 0;
  const int64_t present = layout.block ? (job.depth + layout.block - 1) / layout.block : 0;
  for (int64_t span = 0; span * layout.span < job.depth; ++span, to += layout.span_bytes()) {
    if (job.format == Format::kInt4)
      put_scales<uint16_t>(scales, num_rows, span * blocks, blocks, present, to);
    else if (job.format == Format::kFp8)
      put_scales<uint32_t>(scales, num_rows, span * blocks, blocks, present, to);
    else if (layout.block)
      put_scales<uint8_t>(scales, num_rows, span * blocks, blocks, present, to);
    put_lines(codes, num_rows, span * span_size, size, layout.lines(), to + layout.scale_lines * kLine);
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
