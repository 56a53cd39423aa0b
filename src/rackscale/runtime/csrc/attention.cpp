// Attention of single queries over a paged cache.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels.hpp"
#include "portable.hpp"

namespace rackscale {
namespace {

// Scores to weights that sum to one, with one more logit that takes weight and has no value. A sink of
// -infinity takes none.
void softmax(float* scores, int64_t size, float sink) {
  float largest = sink;
  for (int64_t i = 0; i < size; ++i) largest = std::max(largest, scores[i]);
  float total = std::exp(sink - largest);
  for (int64_t i = 0; i < size; ++i) {
    scores[i] = std::exp(scores[i] - largest);
    total += scores[i];
  }
  const float share = 1.0f / total;
  for (int64_t i = 0; i < size; ++i) scores[i] *= share;
}

RACKSCALE_INLINE int64_t slot(const Paged& paged, int64_t decode, int64_t position) {
  const int32_t* blocks = paged.table + paged.rows[decode] * paged.table_width;
  return blocks[position / paged.block_size] * paged.block_size + position % paged.block_size;
}

// keys and values are [slots, stride], of which a head takes what begins at its pointer.
RACKSCALE_CLONES void attend(const float* query, const float* keys, const float* values, int64_t stride,
                             int64_t key_width, int64_t value_width, const Paged& paged, int64_t decode,
                             int64_t first, float scale, float sink, float* scores, float* out) {
  const int64_t length = paged.lengths[decode];
  for (int64_t position = first; position < length; ++position)
    scores[position - first] = scale * dot(query, keys + slot(paged, decode, position) * stride, key_width);
  softmax(scores, length - first, sink);
  std::fill(out, out + value_width, 0.0f);
  for (int64_t position = first; position < length; ++position)
    add_scaled(out, values + slot(paged, decode, position) * stride, scores[position - first], value_width);
}

constexpr float kNoSink = -std::numeric_limits<float>::infinity();

int64_t longest(const Paged& paged) {
  return *std::max_element(paged.lengths, paged.lengths + paged.num_decodes);
}

}  // namespace

void mla_decode(const float* query, const float* cache, const Paged& paged, int64_t num_heads, int64_t width,
                int64_t rank, float scale, float* out, int num_threads) {
  const int64_t size = longest(paged);
#pragma omp parallel num_threads(num_threads) if (num_threads > 1)
  {
    std::vector<float> scores(size);
#pragma omp for collapse(2)
    for (int64_t decode = 0; decode < paged.num_decodes; ++decode)
      for (int64_t head = 0; head < num_heads; ++head) {
        const int64_t at = decode * num_heads + head;
        attend(query + at * width, cache, cache, width, width, rank, paged, decode, 0, scale, kNoSink,
               scores.data(), out + at * rank);
      }
  }
}

void gqa_decode(const float* query, const float* keys, const float* values, const Paged& paged,
                int64_t num_heads, int64_t num_key_heads, int64_t head_dim, float scale, int64_t window,
                const float* sinks, float* out, int num_threads) {
  const int64_t size = longest(paged), stride = num_key_heads * head_dim;
#pragma omp parallel num_threads(num_threads) if (num_threads > 1)
  {
    std::vector<float> scores(size);
#pragma omp for collapse(2)
    for (int64_t decode = 0; decode < paged.num_decodes; ++decode)
      for (int64_t head = 0; head < num_heads; ++head) {
        const int64_t at = (decode * num_heads + head) * head_dim;
        const int64_t from = head * num_key_heads / num_heads * head_dim;
        const int64_t first = window ? std::max<int64_t>(0, paged.lengths[decode] - window) : 0;
        attend(query + at, keys + from, values + from, stride, head_dim, head_dim, paged, decode, first, scale,
               sinks ? sinks[head] : kNoSink, scores.data(), out + at);
      }
  }
}

}  // namespace rackscale
