// The dense operations of a small batch: norms, rotary embedding, products, activation.
#include <cmath>
#include <cstring>

#include "activation.hpp"
#include "kernels.hpp"
#include "panel.hpp"
#include "portable.hpp"

namespace rackscale {

RACKSCALE_CLONES void rms_norm(const float* in, int64_t in_stride, const float* weight, int64_t num_rows,
                               int64_t width, float eps, float* out, int64_t out_stride) {
  for (int64_t row = 0; row < num_rows; ++row) {
    const float* from = in + row * in_stride;
    float* to = out + row * out_stride;
    const float scale = 1.0f / std::sqrt(dot(from, from, width) / static_cast<float>(width) + eps);
    for (int64_t i = 0; i < width; ++i) to[i] = from[i] * scale * weight[i];
  }
}

RACKSCALE_CLONES void rotate(float* x, int64_t token_stride, int64_t head_stride, const float* cos, const float* sin,
                             const int64_t* positions, int64_t num_tokens, int64_t num_heads, int64_t half) {
  for (int64_t token = 0; token < num_tokens; ++token)
    for (int64_t head = 0; head < num_heads; ++head) {
      float* first = x + token * token_stride + head * head_stride;
      const float* c = cos + positions[token] * half;
      const float* s = sin + positions[token] * half;
      for (int64_t i = 0; i < half; ++i) {
        const float a = first[i], b = first[half + i];
        first[i] = a * c[i] - b * s[i];
        first[half + i] = b * c[i] + a * s[i];
      }
    }
}

RACKSCALE_CLONES void swiglu_rows(float* inner, int64_t num_rows, int64_t width) {
  for (int64_t row = 0; row < num_rows; ++row) swiglu(inner + row * 2 * width, width);
}

namespace {

template <bool wide>
RACKSCALE_INLINE void product_fp32(const float* in, int64_t in_stride, int64_t num_rows, const Matrix& m, bool add,
                                   float* out, int64_t out_stride, int64_t from, int64_t to) {
  product<wide>(in, in_stride, num_rows, m.depth, static_cast<const float*>(m.weight), m.columns, m.bias, add, out,
                out_stride, from, to);
}
template <bool wide>
RACKSCALE_INLINE void product_bf16(const float* in, int64_t in_stride, int64_t num_rows, const Matrix& m, bool add,
                                   float* out, int64_t out_stride, int64_t from, int64_t to) {
  product<wide>(in, in_stride, num_rows, m.depth, static_cast<const bf16*>(m.weight), m.columns, m.bias, add, out,
                out_stride, from, to);
}
#define RACKSCALE_PRODUCT(name)                                                                                       \
  RACKSCALE_BY_WIDTH(name,                                                                                            \
                     (const float* in, int64_t in_stride, int64_t num_rows, const Matrix& m, bool add, float* out,    \
                      int64_t out_stride, int64_t from, int64_t to),                                                  \
                     (in, in_stride, num_rows, m, add, out, out_stride, from, to))
RACKSCALE_PRODUCT(product_fp32)
RACKSCALE_PRODUCT(product_bf16)

constexpr int64_t kShare = 1 << 16;  // elements of a weight that are worth waking a thread for

}  // namespace

void linear(const float* in, int64_t in_stride, int64_t num_rows, const Matrix& m, bool add, float* out,
            int64_t out_stride, int num_threads) {
  if (m.packed) {
    linear(in, in_stride, num_rows, *m.packed, m.bias, add, out, out_stride, num_threads);
    return;
  }
  const auto run = [&](int64_t from, int64_t to) {
    if (m.is_bf16) {
      product_bf16(in, in_stride, num_rows, m, add, out, out_stride, from, to);
    } else {
      product_fp32(in, in_stride, num_rows, m, add, out, out_stride, from, to);
    }
  };
  const int64_t shares = std::min<int64_t>(num_threads, m.depth * m.columns / kShare);
  if (shares <= 1) {
    run(0, m.columns);
    return;
  }
  const int64_t tiles = (m.columns + kColumns - 1) / kColumns, each = (tiles + shares - 1) / shares * kColumns;
#pragma omp parallel for num_threads(num_threads)
  for (int64_t share = 0; share < shares; ++share)
    run(std::min(share * each, m.columns), std::min((share + 1) * each, m.columns));
}

void copy_rows(const void* from, const int32_t* from_slots, int64_t count, int64_t row_bytes, void* to,
               const int32_t* to_slots) {
  for (int64_t i = 0, run; i < count; i += run) {
    for (run = 1; i + run < count && from_slots[i + run] == from_slots[i] + run && to_slots[i + run] == to_slots[i] + run;)
      ++run;
    std::memcpy(static_cast<char*>(to) + to_slots[i] * row_bytes, static_cast<const char*>(from) + from_slots[i] * row_bytes,
                static_cast<size_t>(run * row_bytes));
  }
}

}  // namespace rackscale
