// How tiles and the rows they are multiplied with lie in memory.
#pragma once

#include <cstdint>

#include "packed.hpp"

namespace rackscale {

constexpr int64_t kTileRows = 16;
constexpr int64_t kLine = 64;    // bytes: a dword of each of a tile's rows
constexpr int64_t kGroup = 128;  // columns that are summed by themselves, and that share a scale of int8
constexpr int64_t kChunk = 16;   // columns of one token that lie together in a panel

// span: columns from one line of scales to the next. block: columns with one scale (0: none).
struct Layout {
  int64_t span, block, columns_per_line, scale_lines;

  constexpr int64_t lines() const { return span / columns_per_line; }
  constexpr int64_t span_bytes() const { return (scale_lines + lines()) * kLine; }
};

// nvfp4: 4 x 16 bytes of E4M3. int4: 2 x 16 words of bf16. mxfp4: 4 x 16 exponents. fp8: 16 floats.
constexpr Layout layout_of(Format format) {
  switch (format) {
    case Format::kNvfp4:
      return {64, 16, 8, 1};
    case Format::kInt4:
      return {64, 32, 8, 1};
    case Format::kMxfp4:
      return {128, 32, 8, 1};
    case Format::kFp8:
      return {128, 128, 4, 1};
    default:
      return {64, 0, 2, 0};
  }
}

constexpr int64_t up_to(int64_t size, int64_t step) { return (size + step - 1) / step * step; }

// What a row of input has become. kRounded: bf16's values as floats, where there is no product of bf16.
enum class Kind : int32_t { kFp32, kRounded, kBf16, kInt8, kNvfp4 };

// Columns that share one sum of int8 values: those with one scale of the weight.
constexpr int64_t start_block(Format format) { return layout_of(format).block == 16 ? 16 : 32; }
constexpr int64_t value_bytes(Kind kind) { return kind <= Kind::kRounded ? 4 : kind == Kind::kBf16 ? 2 : 1; }
constexpr int64_t scale_block(Kind kind) { return kind == Kind::kNvfp4 ? 16 : kGroup; }

// A panel: some tokens' rows, taking turns chunk by chunk, start by start and scale by scale. One row is a panel of one.
// values: kChunk columns each, permuted as the weight's lines need them (kGroup each where flip() says so).
// starts: what the unsigned weights' offset comes to, with its sign turned (its lower sixteen bits where encode() of the
// set does so). scales: int8's by groups, nvfp4's by sixteen, the row's own included.
struct Panel {
  uint8_t* values = nullptr;
  int32_t* starts = nullptr;
  float* scales = nullptr;
  int64_t tokens = 1;
};

// The same, for whatever number of tokens. Depths are filled up to whole groups.
struct PanelShape {
  Format format;
  Kind kind;
  int64_t depth;

  constexpr bool is_int() const { return kind == Kind::kInt8 || kind == Kind::kNvfp4; }
  constexpr int64_t columns() const { return up_to(depth, kGroup); }
  constexpr int64_t value_size() const { return columns() * value_bytes(kind); }
  constexpr int64_t num_starts() const { return is_int() ? columns() / start_block(format) : 0; }
  constexpr int64_t num_scales() const { return is_int() ? columns() / scale_block(kind) : 0; }
  constexpr int64_t bytes() const { return up_to(value_size() + 4 * (num_starts() + num_scales()), kLine); }
  Panel at(uint8_t* memory, int64_t num_tokens) const {
    uint8_t* starts = memory + num_tokens * value_size();
    uint8_t* scales = starts + num_tokens * 4 * num_starts();
    return {memory, reinterpret_cast<int32_t*>(starts), reinterpret_cast<float*>(scales), num_tokens};
  }
};

}  // namespace rackscale
