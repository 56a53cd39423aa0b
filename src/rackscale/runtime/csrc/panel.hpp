// A few rows times an input-major weight: the product that all linear layers of a small batch are made of.
#pragma once

#include <algorithm>
#include <type_traits>

#include "portable.hpp"

namespace rackscale {

// Every element of a product is summed in one order, whatever the number of rows, of threads, or the path taken: from the
// first k to the last, in stretches of kDepth, each summed by itself. So a row's result does not depend on its company.

constexpr int64_t kRows = 4;     // of the input, that share one pass over a weight
constexpr int64_t kVectors = 4;  // of a weight's columns: 4 x 4 sums stay in registers
constexpr int64_t kColumns = kVectors * kLanes;
constexpr int64_t kDepth = 128;  // of a weight, that are summed, and where it pays widened, at once: 32 KiB
constexpr int64_t kAskedTogether = 2;  // log2 of the groups of rows that share the asking for the next kDepth rows

// From so many rows on that pays: bf16 is widened once and not once for every kRows rows; fp32 is only brought
// closer together.
template <typename W>
constexpr int64_t kPackedRows = std::is_same_v<W, bf16> ? 8 : 256;

// R rows of input and output; rows may lie anywhere.
template <int64_t R>
struct Rows {
  const float* in[R];
  float* out[R];
};

// What comes next out of memory, to be asked for while a tile is computed: 128 bytes from `at` on with every k, or
// with every fourth. Null: nothing. Weights are used once a step, so that they come from far away.
struct Ahead {
  const char* at = nullptr;
  int64_t stride = 0, shift = 0;

  template <typename W>
  static Ahead rows_of(const W* at, int64_t columns, int64_t shift = 0) {
    return {reinterpret_cast<const char*>(at), columns * static_cast<int64_t>(sizeof(W)), shift};
  }
  static Ahead bytes_of(const void* at) { return {static_cast<const char*>(at), 128, 0}; }

  RACKSCALE_INLINE void ask(int64_t k) const {
    if (k & ((1 << shift) - 1)) return;
    const char* line = at + (k >> shift) * stride;
    __builtin_prefetch(line, 0, 2);
    __builtin_prefetch(line + 64, 0, 2);
  }
  void pass(int64_t depth) { at += (depth >> shift) * stride; }
};

// out[r][n] = sum_k in[r][k] * weight[k][n] (+ bias[n]) (+ out[r][n] where `add`) for V vectors of columns from n on.
template <bool wide, typename W, int64_t R, int64_t V, bool Asks>
RACKSCALE_INLINE void tile(const Rows<R>& rows, int64_t depth, const W* weight, int64_t columns, const float* bias,
                           bool add, int64_t n, const Ahead& ahead) {
  Floats<wide> total[R][V] = {};
  for (int64_t k = 0; k < depth; ++k) {
    if constexpr (Asks) ahead.ask(k);
    Floats<wide> w[V];
    for (int64_t v = 0; v < V; ++v) w[v] = floats<wide>(weight + k * columns + n + v * kLanes);
    for (int64_t r = 0; r < R; ++r)
      for (int64_t v = 0; v < V; ++v) total[r][v] += w[v] * rows.in[r][k];
  }
  for (int64_t r = 0; r < R; ++r)
    for (int64_t v = 0; v < V; ++v) {
      const int64_t at = n + v * kLanes;
      if (bias) total[r][v] += floats<wide>(bias + at);
      if (add) total[r][v] += floats<wide>(rows.out[r] + at);
      store(rows.out[r] + at, total[r][v]);
    }
}

// Tiles of V vectors of columns, as many as there are, from n on, where they end. `ahead` goes on from tile to tile.
template <bool wide, typename W, int64_t R, int64_t V>
RACKSCALE_INLINE int64_t tiles(const Rows<R>& rows, int64_t depth, const W* weight, int64_t columns, const float* bias,
                               bool add, int64_t n, int64_t to, Ahead& ahead) {
  for (; n + V * kLanes <= to; n += V * kLanes) {
    if (ahead.at) {
      tile<wide, W, R, V, true>(rows, depth, weight, columns, bias, add, n, ahead);
      ahead.pass(depth);
    } else {
      tile<wide, W, R, V, false>(rows, depth, weight, columns, bias, add, n, ahead);
    }
  }
  return n;
}

// The same for the columns from .. to - 1: whole tiles, then vectors, then one by one.
template <bool wide, typename W, int64_t R>
RACKSCALE_INLINE void panel(const Rows<R>& rows, int64_t depth, const W* weight, int64_t columns, const float* bias,
                            bool add, int64_t from, int64_t to, Ahead& ahead) {
  int64_t n = from;
  if constexpr (wide) {
    // Of one row too few sums to hide a multiply-add's latency: twice as many columns.
    if constexpr (R == 1) n = tiles<wide, W, R, 2 * kVectors>(rows, depth, weight, columns, bias, add, n, to, ahead);
    n = tiles<wide, W, R, kVectors>(rows, depth, weight, columns, bias, add, n, to, ahead);
  } else if constexpr (R == 1) {
    n = tiles<wide, W, R, kVectors>(rows, depth, weight, columns, bias, add, n, to, ahead);
  } else {  // a fourth of the columns at once, and of what is asked for
    ahead.shift += 2;
    n = tiles<wide, W, R, 1>(rows, depth, weight, columns, bias, add, n, to, ahead);
    ahead.shift -= 2;
  }
  for (; n + kLanes <= to; n += kLanes) tile<wide, W, R, 1, false>(rows, depth, weight, columns, bias, add, n, ahead);
  for (; n < to; ++n)
    for (int64_t r = 0; r < R; ++r) {
      float total = 0;
      for (int64_t k = 0; k < depth; ++k) total += rows.in[r][k] * widen(weight[k * columns + n]);
      if (bias) total += bias[n];
      rows.out[r][n] = add ? rows.out[r][n] + total : total;
    }
}

template <int64_t R>
RACKSCALE_INLINE Rows<R> rows_at(const float* in, int64_t in_stride, float* out, int64_t out_stride) {
  Rows<R> rows;
  for (int64_t r = 0; r < R; ++r) {
    rows.in[r] = in + r * in_stride;
    rows.out[r] = out + r * out_stride;
  }
  return rows;
}

// The columns from .. to - 1 for any number of rows. The first `asking` groups of rows ask for what is ahead.
template <bool wide, typename W>
RACKSCALE_INLINE void rows_times(const float* in, int64_t in_stride, int64_t num_rows, int64_t depth, const W* weight,
                                 int64_t columns, const float* bias, bool add, float* out, int64_t out_stride,
                                 int64_t from, int64_t to, Ahead ahead, int64_t asking) {
  int64_t row = 0;
  for (; row + kRows <= num_rows; row += kRows) {
    panel<wide, W, kRows>(rows_at<kRows>(in + row * in_stride, in_stride, out + row * out_stride, out_stride), depth, weight,
                    columns, bias, add, from, to, ahead);
    if (--asking <= 0) ahead.at = nullptr;
  }
  in += row * in_stride;
  out += row * out_stride;
  switch (num_rows - row) {
    case 3:
      panel<wide, W, 3>(rows_at<3>(in, in_stride, out, out_stride), depth, weight, columns, bias, add, from, to, ahead);
      break;
    case 2:
      panel<wide, W, 2>(rows_at<2>(in, in_stride, out, out_stride), depth, weight, columns, bias, add, from, to, ahead);
      break;
    case 1:
      panel<wide, W, 1>(rows_at<1>(in, in_stride, out, out_stride), depth, weight, columns, bias, add, from, to, ahead);
      break;
  }
}

// The same, a tile's columns after the other. For more than a few rows a tile's part of the weight is first widened
// into a place of its own, kDepth rows at a time, where it stays in the first cache while all rows pass over it.
template <bool wide, typename W>
RACKSCALE_INLINE void product(const float* in, int64_t in_stride, int64_t num_rows, int64_t depth, const W* weight,
                              int64_t columns, const float* bias, bool add, float* out, int64_t out_stride,
                              int64_t from, int64_t to) {
  if (num_rows < kPackedRows<W>) {
    const int64_t step = num_rows == 1 ? 2 * kColumns : kColumns;
    for (int64_t n = from; n < to; n += step)
      for (int64_t k = 0; k < depth; k += kDepth)
        rows_times<wide>(in + k, in_stride, num_rows, std::min(kDepth, depth - k), weight + k * columns, columns,
                   k == 0 ? bias : nullptr, add || k > 0, out, out_stride, n, std::min(n + step, to),
                   Ahead::rows_of(weight + k * columns + n + step, columns), 1);
    return;
  }
  alignas(64) float packed[kDepth * kColumns];
  for (int64_t n = from; n < to; n += kColumns) {
    const int64_t width = std::min(kColumns, to - n);
    for (int64_t k = 0; k < depth; k += kDepth) {
      const int64_t rows = std::min(kDepth, depth - k);
      for (int64_t i = 0; i < rows; ++i) widen(weight + (k + i) * columns + n, width, packed + i * kColumns);
      const W* next = k + kDepth < depth ? weight + (k + kDepth) * columns + n : weight + n + kColumns;
      rows_times<wide>(in + k, in_stride, num_rows, rows, packed, kColumns, bias && k == 0 ? bias + n : nullptr,
                 add || k > 0, out + n, out_stride, 0, width, Ahead::rows_of(next, columns, kAskedTogether),
                 1 << kAskedTogether);
    }
  }
}

}  // namespace rackscale
