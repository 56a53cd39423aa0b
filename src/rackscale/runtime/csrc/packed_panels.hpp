// Tokens' rows, and panels made of them.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "packed_kernels.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace rackscale {

// Memory that a calling thread keeps from call to call: it only grows.
class CallMemory {
 public:
  CallMemory() = default;
  CallMemory(const CallMemory&) = delete;
  CallMemory& operator=(const CallMemory&) = delete;
  ~CallMemory() { std::free(memory_); }

  uint8_t* of(int64_t bytes) {
    if (bytes > size_) {
      std::free(memory_);
      size_ = up_to(bytes + bytes / 4, bytes < kHuge ? kLine : kHuge);
      memory_ = static_cast<uint8_t*>(std::aligned_alloc(bytes < kHuge ? kLine : kHuge, static_cast<size_t>(size_)));
      if (!memory_) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
      if (size_ >= kHuge) madvise(memory_, static_cast<size_t>(size_), MADV_HUGEPAGE);
#endif
    }
    return memory_;
  }

 private:
  static constexpr int64_t kHuge = 2 << 20;
  uint8_t* memory_ = nullptr;
  int64_t size_ = 0;
};

// The rows of `count` tokens, in a panel for `tokens` (more of them than there are: rows of zeros).
inline void gather(const PanelShape& shape, const uint8_t* const* rows, int64_t count, int64_t tokens, uint8_t flip,
                   uint8_t* to) {
  const Panel out = shape.at(to, tokens);
  const int64_t chunk = kChunk * value_bytes(shape.kind), chunks = shape.columns() / kChunk;
  for (int64_t m = 0; m < tokens; ++m) {
    if (m >= count) {
      for (int64_t i = 0; i < chunks; ++i) std::memset(out.values + (i * tokens + m) * chunk, 0, chunk);
      for (int64_t i = 0; i < shape.num_starts(); ++i) out.starts[i * tokens + m] = 0;
      for (int64_t i = 0; i < shape.num_scales(); ++i) out.scales[i * tokens + m] = 0;
      continue;
    }
    const Panel row = shape.at(const_cast<uint8_t*>(rows[m]), 1);
    const auto copy = [&](auto size) {
      for (int64_t i = 0; i < chunks; ++i)
        std::memcpy(out.values + (i * tokens + m) * size, row.values + i * size, size);
    };
    if (flip) {
      for (int64_t k = 0; k < shape.columns(); k += kGroup)
        for (int64_t i = 0; i < kGroup; ++i) out.values[k * tokens + m * kGroup + i] = row.values[k + i] ^ flip;
    } else if (chunk == 16)
      copy(std::integral_constant<int64_t, 16>());
    else if (chunk == 32)
      copy(std::integral_constant<int64_t, 32>());
    else
      copy(std::integral_constant<int64_t, 64>());
    for (int64_t i = 0; i < shape.num_starts(); ++i) out.starts[i * tokens + m] = row.starts[i];
    for (int64_t i = 0; i < shape.num_scales(); ++i) out.scales[i * tokens + m] = row.scales[i];
  }
}

// Some tokens in panels, to be multiplied with tiles one after the other.
class Panels {
 public:
  static constexpr int64_t kMost = 128;  // tokens at once: their panels stay in the second cache while tiles pass

  Panels(const Instructions& set, const PanelShape& shape) : set_(set), shape_(shape) {}

  // The bytes that fill() needs.
  int64_t bytes(int64_t count) const { return up_to(count, kMostTokens) * shape_.bytes(); }

  // rows: of `count` tokens, at most kMost. A token by itself is used where it is.
  void fill(const uint8_t* const* rows, int64_t count, uint8_t* memory) {
    size_ = 0;
    for (int64_t first = 0; first < count;) {
      const int64_t tokens = set_.panel_tokens(shape_.format, shape_.kind, count - first);
      const int64_t here = std::min(tokens, count - first);
      uint8_t* at = memory;
      if (tokens == 1)
        at = const_cast<uint8_t*>(rows[first]);
      else
        gather(shape_, rows + first, here, tokens, set_.flip(shape_.format, shape_.kind, tokens), at);
      parts_[size_++] = {shape_.at(at, tokens), first, here, set_.tile(shape_.format, shape_.kind, tokens)};
      memory += tokens * shape_.bytes();
      first += here;
    }
  }

  // done(first, count, out [count, 16]) for each panel.
  template <typename Done>
  void times(const uint8_t* tile, float tile_scale, Done&& done) const {
    alignas(64) float out[kMost * kTileRows];
    for (int64_t i = 0; i < size_; ++i) {
      const Part& part = parts_[i];
      part.kernel(tile, tile_scale, part.panel, shape_.depth, out);
      done(part.first, part.count, out);
    }
  }

  // The same for two tiles: done(first, count, a [count, 16], b [count, 16]).
  template <typename Done>
  void times(const uint8_t* a, float a_scale, const uint8_t* b, float b_scale, Done&& done) const {
    alignas(64) float a_out[kMost * kTileRows], b_out[kMost * kTileRows];
    for (int64_t i = 0; i < size_; ++i) {
      const Part& part = parts_[i];
      part.kernel(a, a_scale, part.panel, shape_.depth, a_out);
      part.kernel(b, b_scale, part.panel, shape_.depth, b_out);
      done(part.first, part.count, a_out, b_out);
    }
  }

 private:
  struct Part {
    Panel panel;
    int64_t first, count;
    TileKernel kernel;
  };
  const Instructions& set_;
  PanelShape shape_;
  Part parts_[kMost];
  int64_t size_ = 0;
};

// A tile's outputs for one token, of which the last may be missing.
inline void put(const float* from, int64_t count, const float* bias, bool add, float* to) {
  for (int64_t i = 0; i < count; ++i) {
    float value = from[i];
    if (bias) value += bias[i];
    to[i] = add ? to[i] + value : value;
  }
}

}  // namespace rackscale
