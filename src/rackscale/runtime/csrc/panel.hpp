// A few rows times an input-major weight: the product that all linear layers of a small batch are made of.
#pragma once

#include "portable.hpp"

namespace rackscale {

constexpr int64_t kRows = 4;      // tokens that share one pass over a weight
constexpr int64_t kColumns = 64;  // of a weight, kept in registers: 4 x 4 vectors of 16

// out[r][n] = sum_k in[r][k] * weight[k][n] (+ bias[n]) for up to kRows rows; weight is [depth, columns].
template <typename W, int64_t R>
RACKSCALE_INLINE void panel(const float* const* in, int64_t depth, const W* weight, int64_t columns,
                            const float* bias, float* const* out) {
  int64_t n = 0;
  for (; n + kColumns <= columns; n += kColumns) {
    f32x16 total[R][4] = {};
    for (int64_t k = 0; k < depth; ++k) {
      const W* row = weight + k * columns + n;
      f32x16 w[4] = {load(row), load(row + 16), load(row + 32), load(row + 48)};
      for (int64_t r = 0; r < R; ++r)
        for (int64_t v = 0; v < 4; ++v) total[r][v] += w[v] * in[r][k];
    }
    for (int64_t r = 0; r < R; ++r)
      for (int64_t v = 0; v < 4; ++v)
        store(out[r] + n + 16 * v, bias ? total[r][v] + load(bias + n + 16 * v) : total[r][v]);
  }
  for (; n + kLanes <= columns; n += kLanes) {
    f32x16 total[R] = {};
    for (int64_t k = 0; k < depth; ++k) {
      f32x16 w = load(weight + k * columns + n);
      for (int64_t r = 0; r < R; ++r) total[r] += w * in[r][k];
    }
    for (int64_t r = 0; r < R; ++r) store(out[r] + n, bias ? total[r] + load(bias + n) : total[r]);
  }
  for (; n < columns; ++n)
    for (int64_t r = 0; r < R; ++r) {
      float total = bias ? bias[n] : 0;
      for (int64_t k = 0; k < depth; ++k) total += in[r][k] * widen(weight[k * columns + n]);
      out[r][n] = total;
    }
}

// The same for any number of rows.
template <typename W>
RACKSCALE_INLINE void product(const float* in, int64_t num_rows, int64_t depth, const W* weight, int64_t columns,
                              const float* bias, float* out) {
  const float* from[kRows];
  float* to[kRows];
  for (; num_rows > 0;) {
    const int64_t rows = num_rows >= kRows ? kRows : 1;
    for (int64_t r = 0; r < rows; ++r) {
      from[r] = in + r * depth;
      to[r] = out + r * columns;
    }
    if (rows == kRows) {
      panel<W, kRows>(from, depth, weight, columns, bias, to);
    } else {
      panel<W, 1>(from, depth, weight, columns, bias, to);
    }
    in += rows * depth;
    out += rows * columns;
    num_rows -= rows;
  }
}

}  // namespace rackscale
