// A linear layer with a packed weight.
#include <algorithm>

#include "packed_panels.hpp"

namespace rackscale {
namespace {

constexpr int64_t kShare = 1 << 17;   // elements of a weight that are worth waking a thread for
constexpr int64_t kRowsAlone = 2;  // that one thread encodes sooner than several wait for each other

}  // namespace

void linear(const float* in, int64_t in_stride, int64_t num_rows, const Packed& packed, const float* bias, bool add,
            float* out, int64_t out_stride, int num_threads) {
  const Instructions& set = instructions();
  const PanelShape shape{packed.format, set.kind(packed.format, packed.activations), packed.depth};
  const int64_t tiles = up_to(packed.columns, kTileRows) / kTileRows, bytes = tile_bytes(packed.format, packed.depth);
  const int64_t shares =
      std::clamp<int64_t>(packed.depth * packed.columns * std::min<int64_t>(num_rows, 16) / kShare, 1, num_threads);

  thread_local CallMemory scratch;
  const int64_t blocks = (num_rows + Panels::kMost - 1) / Panels::kMost;
  const int64_t block_bytes = Panels(set, shape).bytes(std::min(num_rows, Panels::kMost));
  uint8_t* const encoded = scratch.of(num_rows * shape.bytes() + blocks * block_bytes);
  uint8_t* const gathered = encoded + num_rows * shape.bytes();
  std::vector<const uint8_t*> rows(static_cast<size_t>(num_rows));
  for (int64_t row = 0; row < num_rows; ++row) rows[row] = encoded + row * shape.bytes();
  std::vector<Panels> panels(static_cast<size_t>(blocks), Panels(set, shape));

  const auto encode = [&](int64_t row) {
    set.encode(in + row * in_stride, shape, packed.input_scale, shape.at(encoded + row * shape.bytes(), 1));
  };
  const auto fill = [&](int64_t block) {
    panels[block].fill(rows.data() + block * Panels::kMost, std::min(Panels::kMost, num_rows - block * Panels::kMost),
                       gathered + block * block_bytes);
  };
  const bool alone = num_rows <= kRowsAlone;
  if (alone) {
    for (int64_t row = 0; row < num_rows; ++row) encode(row);
    for (int64_t block = 0; block < blocks; ++block) fill(block);
  }

#pragma omp parallel num_threads(static_cast<int>(shares)) if (shares > 1)
  {
    if (!alone) {
#pragma omp for schedule(static)
      for (int64_t row = 0; row < num_rows; ++row) encode(row);
#pragma omp for schedule(static)
      for (int64_t block = 0; block < blocks; ++block) fill(block);
    }
    for (int64_t block = 0; block < blocks; ++block) {
#pragma omp for schedule(static) nowait
      for (int64_t tile = 0; tile < tiles; ++tile) {
        const int64_t column = tile * kTileRows, count = std::min(kTileRows, packed.columns - column);
        panels[block].times(packed.tiles + tile * bytes, packed.tile_scales[tile],
                            [&](int64_t first, int64_t num, const float* from) {
                              for (int64_t m = 0; m < num; ++m)
                                put(from + m * kTileRows, count, bias ? bias + column : nullptr, add,
                                    out + (block * Panels::kMost + first + m) * out_stride + column);
                            });
      }
    }
  }
}

}  // namespace rackscale
