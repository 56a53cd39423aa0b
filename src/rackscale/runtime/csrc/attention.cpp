// Attention of single queries over a paged cache.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels.hpp"
#include "portable.hpp"

namespace rackscale {
namespace {

constexpr int64_t kHeads = 4;  // that share one pass over keys or values

// Scores to weights that sum to one, with one more logit that takes weight and has no value. A sink of
// -infinity takes none. `scores` has room up to a whole number of vectors.
RACKSCALE_INLINE void softmax(float* scores, int64_t size, float sink) {
  float largest = sink;
  for (int64_t i = 0; i < size; ++i) largest = std::max(largest, scores[i]);
  const int64_t padded = (size + kLanes - 1) / kLanes * kLanes;
  std::fill(scores + size, scores + padded, -std::numeric_limits<float>::infinity());
  f32x16 total = {};
  for (int64_t i = 0; i < padded; i += kLanes) {
    const f32x16 weight = exponential(load(scores + i) - largest);
    store(scores + i, weight);
    total += weight;
  }
  const float share = 1.0f / (sum(total) + std::exp(sink - largest));  // the padding comes to nothing
  for (int64_t i = 0; i < padded; i += kLanes) store(scores + i, load(scores + i) * share);
}

// H heads over the same keys and values, [slots, stride] each; queries and outputs lie one after the other.
// scores: H rows of `row` floats.
template <int64_t H>
RACKSCALE_INLINE void attend(const float* query, const float* keys, const float* values, int64_t stride,
                             int64_t key_width, int64_t value_width, const Paged& paged, int64_t decode,
                             int64_t first, float scale, const float* sinks, float* scores, int64_t row, float* out) {
  const int64_t length = paged.lengths[decode], size = paged.block_size;
  const int32_t* blocks = paged.table + paged.rows[decode] * paged.table_width;
  const int64_t whole = key_width / kLanes * kLanes;
  for (int64_t position = first; position < length; ++position) {
    const float* key = keys + (blocks[position / size] * size + position % size) * stride;
    f32x16 total[H] = {};
    for (int64_t i = 0; i < whole; i += kLanes) {
      const f32x16 part = load(key + i);
      for (int64_t h = 0; h < H; ++h) total[h] += part * load(query + h * key_width + i);
    }
    for (int64_t h = 0; h < H; ++h) {
      float score = sum(total[h]);
      for (int64_t i = whole; i < key_width; ++i) score += key[i] * query[h * key_width + i];
      scores[h * row + position - first] = score * scale;
    }
  }
  for (int64_t h = 0; h < H; ++h)
    softmax(scores + h * row, length - first, sinks ? sinks[h] : -std::numeric_limits<float>::infinity());
  std::fill(out, out + H * value_width, 0.0f);
  int64_t i = 0;
  for (; i + kLanes <= value_width; i += kLanes) {
    f32x16 total[H] = {};
    for (int64_t position = first; position < length; ++position) {
      const f32x16 part = load(values + (blocks[position / size] * size + position % size) * stride + i);
      for (int64_t h = 0; h < H; ++h) total[h] += part * scores[h * row + position - first];
    }
    for (int64_t h = 0; h < H; ++h) store(out + h * value_width + i, total[h]);
  }
  for (; i < value_width; ++i)
    for (int64_t h = 0; h < H; ++h)
      for (int64_t position = first; position < length; ++position)
        out[h * value_width + i] += scores[h * row + position - first] *
                                    values[(blocks[position / size] * size + position % size) * stride + i];
}

RACKSCALE_CLONES void attend_four(const float* query, const float* keys, const float* values, int64_t stride,
                                  int64_t key_width, int64_t value_width, const Paged& paged, int64_t decode,
                                  int64_t first, float scale, const float* sinks, float* scores, int64_t row,
                                  float* out) {
  attend<kHeads>(query, keys, values, stride, key_width, value_width, paged, decode, first, scale, sinks, scores, row,
                 out);
}
RACKSCALE_CLONES void attend_one(const float* query, const float* keys, const float* values, int64_t stride,
                                 int64_t key_width, int64_t value_width, const Paged& paged, int64_t decode,
                                 int64_t first, float scale, const float* sinks, float* scores, int64_t row,
                                 float* out) {
  attend<1>(query, keys, values, stride, key_width, value_width, paged, decode, first, scale, sinks, scores, row, out);
}

// Floats that a row of scores takes: the longest context, up to a whole number of vectors.
int64_t row_of_scores(const Paged& paged) {
  const int64_t longest = *std::max_element(paged.lengths, paged.lengths + paged.num_decodes);
  return (longest + kLanes - 1) / kLanes * kLanes;
}

}  // namespace

void mla_decode(const float* query, const float* cache, const Paged& paged, int64_t num_heads, int64_t width,
                int64_t rank, float scale, float* out, int num_threads) {
  const int64_t row = row_of_scores(paged), step = num_heads % kHeads ? 1 : kHeads;
#pragma omp parallel num_threads(num_threads) if (num_threads > 1)
  {
    std::vector<float> scores(step * row);
#pragma omp for collapse(2)
    for (int64_t decode = 0; decode < paged.num_decodes; ++decode)
      for (int64_t head = 0; head < num_heads; head += step) {
        const int64_t at = decode * num_heads + head;
        (step == 1 ? attend_one : attend_four)(query + at * width, cache, cache, width, width, rank, paged, decode, 0,
                                               scale, nullptr, scores.data(), row, out + at * rank);
      }
  }
}

void gqa_decode(const float* query, const float* keys, const float* values, const Paged& paged,
                int64_t num_heads, int64_t num_key_heads, int64_t head_dim, float scale, int64_t window,
                const float* sinks, float* out, int num_threads) {
  const int64_t row = row_of_scores(paged), stride = num_key_heads * head_dim;
  const int64_t step = num_heads / num_key_heads % kHeads ? 1 : kHeads;
#pragma omp parallel num_threads(num_threads) if (num_threads > 1)
  {
    std::vector<float> scores(step * row);
#pragma omp for collapse(2)
    for (int64_t decode = 0; decode < paged.num_decodes; ++decode)
      for (int64_t head = 0; head < num_heads; head += step) {
        const int64_t at = (decode * num_heads + head) * head_dim;
        const int64_t from = head * num_key_heads / num_heads * head_dim;
        const int64_t first = window ? std::max<int64_t>(0, paged.lengths[decode] - window) : 0;
        (step == 1 ? attend_one : attend_four)(query + at, keys + from, values + from, stride, head_dim, head_dim,
                                               paged, decode, first, scale, sinks ? sinks + head : nullptr,
                                               scores.data(), row, out + at);
      }
  }
}

}  // namespace rackscale
