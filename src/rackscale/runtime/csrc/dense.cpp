// The dense operations of a small batch: norms, rotary embedding, products, feed-forward.
#include <cmath>
#include <vector>

#include "kernels.hpp"
#include "panel.hpp"
#include "portable.hpp"

namespace rackscale {

RACKSCALE_CLONES void rms_norm(const float* in, int64_t in_stride, const float* weight, int64_t num_rows,
                               int64_t width, float eps, float* out) {
  for (int64_t row = 0; row < num_rows; ++row) {
    const float* from = in + row * in_stride;
    float* to = out + row * width;
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

RACKSCALE_CLONES void linear(const float* in, const float* weight, const float* bias, int64_t num_rows, int64_t depth,
                             int64_t columns, float* out) {
  product<float>(in, num_rows, depth, weight, columns, bias, out);
}

}  // namespace rackscale
