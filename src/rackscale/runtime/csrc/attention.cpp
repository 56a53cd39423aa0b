// Attention of single queries over a paged cache, in one pass over it: weights are exponentials relative to the
// largest score so far, and what was added up before is scaled down where a larger one appears (arXiv 2205.14135).
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels.hpp"
#include "portable.hpp"

namespace rackscale {
namespace {

constexpr int64_t kSpan = 64;  // positions whose scores are held at once
constexpr float kNone = -std::numeric_limits<float>::infinity();

// What one call works on: `stride` floats from slot to slot, of which keys and values are the first.
struct Context {
  const float* keys;
  const float* values;
  int64_t stride, key_width, value_width;
  const Paged* paged;
  int64_t decode, first;  // the first position that is seen
  float scale;
};

// Where the positions start .. start + count - 1 begin in the cache, in floats; filled up to a whole number of
// vectors with the last one's.
RACKSCALE_INLINE void offsets(const Context& c, int64_t start, int64_t count, int64_t* to) {
  const int64_t size = c.paged->block_size;
  const int32_t* blocks = c.paged->table + c.paged->rows[c.decode] * c.paged->table_width;
  for (int64_t i = 0; i < count;) {
    const int64_t block = (start + i) / size, inside = (start + i) % size;
    const int64_t end = std::min(count, i + size - inside);
    int64_t at = (blocks[block] * size + inside) * c.stride;
    for (; i < end; ++i, at += c.stride) to[i] = at;
  }
  for (int64_t i = count; i % kLanes; ++i) to[i] = to[count - 1];
}

// Ask for the keys and values of a position; blocks lie anywhere, so that the machine does not foresee them.
RACKSCALE_INLINE void prefetch(const Context& c, int64_t at) {
  for (int64_t w = 0; w < c.key_width; w += kLanes) __builtin_prefetch(c.keys + at + w);
  if (c.values != c.keys)
    for (int64_t w = 0; w < c.value_width; w += kLanes) __builtin_prefetch(c.values + at + w);
}

// scores[h][i] of H heads and `count` positions; sixteen sums at a time, so sixteen / H positions.
template <int64_t H>
RACKSCALE_INLINE void score(const Context& c, const float* query, const int64_t* at, int64_t count,
                            const int64_t* next, int64_t num_next, float (*scores)[kSpan]) {
  constexpr int64_t N = kLanes / H;
  const int64_t whole = c.key_width / kLanes * kLanes;
  for (int64_t i = 0; i < count; i += N) {
    for (int64_t n = i; n < std::min(i + N, num_next); ++n) prefetch(c, next[n]);
    f32x16 total[kLanes] = {};
    for (int64_t w = 0; w < whole; w += kLanes) {
      f32x16 part[H];
      for (int64_t h = 0; h < H; ++h) part[h] = load(query + h * c.key_width + w);
      for (int64_t n = 0; n < N; ++n) {
        const f32x16 key = load(c.keys + at[i + n] + w);
        for (int64_t h = 0; h < H; ++h) total[h * N + n] += key * part[h];
      }
    }
    f32x16 result = sums(total);
    for (int64_t w = whole; w < c.key_width; ++w)
      for (int64_t h = 0; h < H; ++h)
        for (int64_t n = 0; n < N; ++n) result[h * N + n] += c.keys[at[i + n] + w] * query[h * c.key_width + w];
    result *= c.scale;
    for (int64_t h = 0; h < H; ++h)
      std::memcpy(scores[h] + i, reinterpret_cast<const char*>(&result) + h * N * sizeof(float), N * sizeof(float));
  }
}

// Scores become weights relative to `largest`, which may rise; `total` is their sum so far. Returns what was added
// up before has to be multiplied with.
RACKSCALE_INLINE float weigh(float* scores, int64_t count, float& largest, float& total) {
  float top = largest;
  for (int64_t i = 0; i < count; ++i) top = std::max(top, scores[i]);
  const float factor = std::exp(largest - top);
  for (int64_t i = count; i % kLanes; ++i) scores[i] = kNone;
  f32x16 sum_of = {};
  for (int64_t i = 0; i < count; i += kLanes) {
    const f32x16 weight = exponential(load(scores + i) - top);
    store(scores + i, weight);
    sum_of += weight;
  }
  // The filling is not nothing, but e^-87 of the largest.
  largest = top;
  total = total * factor + sum(sum_of);
  return factor;
}

template <int64_t H, int64_t V>
RACKSCALE_INLINE void accumulate(const Context& c, const int64_t* at, int64_t count, const float (*weights)[kSpan],
                                 const float* factor, int64_t from, float* out) {
  f32x16 total[H][V];
  for (int64_t h = 0; h < H; ++h)
    for (int64_t v = 0; v < V; ++v) total[h][v] = load(out + h * c.value_width + from + v * kLanes) * factor[h];
  for (int64_t i = 0; i < count; ++i) {
    f32x16 value[V];
    for (int64_t v = 0; v < V; ++v) value[v] = load(c.values + at[i] + from + v * kLanes);
    for (int64_t h = 0; h < H; ++h)
      for (int64_t v = 0; v < V; ++v) total[h][v] += value[v] * weights[h][i];
  }
  for (int64_t h = 0; h < H; ++h)
    for (int64_t v = 0; v < V; ++v) store(out + h * c.value_width + from + v * kLanes, total[h][v]);
}

// out[h] = out[h] * factor[h] + sum_i weights[h][i] * value_i
template <int64_t H>
RACKSCALE_INLINE void accumulate(const Context& c, const int64_t* at, int64_t count, const float (*weights)[kSpan],
                                 const float* factor, float* out) {
  int64_t from = 0;
  for (; from + 4 * kLanes <= c.value_width; from += 4 * kLanes)
    accumulate<H, 4>(c, at, count, weights, factor, from, out);
  for (; from + kLanes <= c.value_width; from += kLanes) accumulate<H, 1>(c, at, count, weights, factor, from, out);
  for (; from < c.value_width; ++from)
    for (int64_t h = 0; h < H; ++h) {
      float total = out[h * c.value_width + from] * factor[h];
      for (int64_t i = 0; i < count; ++i) total += weights[h][i] * c.values[at[i] + from];
      out[h * c.value_width + from] = total;
    }
}

// H heads that share their keys and values; queries and outputs lie one after the other. sinks [H] or null.
template <int64_t H>
RACKSCALE_INLINE void attend(const Context& c, const float* query, const float* sinks, float* out) {
  float largest[H], total[H], factor[H], scores[H][kSpan];
  int64_t spans[2][kSpan];
  for (int64_t h = 0; h < H; ++h) {
    largest[h] = sinks ? sinks[h] : kNone;
    total[h] = sinks ? 1.0f : 0.0f;
  }
  std::fill(out, out + H * c.value_width, 0.0f);
  const int64_t length = c.paged->lengths[c.decode];
  int64_t* at = spans[0];
  int64_t* next = spans[1];
  int64_t count = std::min(kSpan, length - c.first);
  offsets(c, c.first, count, at);
  for (int64_t start = c.first; start < length; start += kSpan) {
    const int64_t num_next = std::clamp<int64_t>(length - start - kSpan, 0, kSpan);
    offsets(c, start + kSpan, num_next, next);
    score<H>(c, query, at, count, next, num_next, scores);
    for (int64_t h = 0; h < H; ++h) factor[h] = weigh(scores[h], count, largest[h], total[h]);
    accumulate<H>(c, at, count, scores, factor, out);
    std::swap(at, next);
    count = num_next;
  }
  for (int64_t h = 0; h < H; ++h)
    for (int64_t i = 0; i < c.value_width; ++i) out[h * c.value_width + i] /= total[h];
}

RACKSCALE_CLONES void attend_four(const Context& c, const float* query, const float* sinks, float* out) {
  attend<4>(c, query, sinks, out);
}
RACKSCALE_CLONES void attend_two(const Context& c, const float* query, const float* sinks, float* out) {
  attend<2>(c, query, sinks, out);
}
RACKSCALE_CLONES void attend_one(const Context& c, const float* query, const float* sinks, float* out) {
  attend<1>(c, query, sinks, out);
}

// How many of `shared` heads with the same keys go together.
int64_t heads_at_once(int64_t shared) { return shared % 4 == 0 ? 4 : shared % 2 == 0 ? 2 : 1; }

void attend(const Context& c, int64_t heads, const float* query, const float* sinks, float* out) {
  (heads == 4 ? attend_four : heads == 2 ? attend_two : attend_one)(c, query, sinks, out);
}

}  // namespace

void mla_decode(const float* query, const float* cache, const Paged& paged, int64_t num_heads, int64_t width,
                int64_t rank, float scale, float* out, int num_threads) {
  const int64_t step = heads_at_once(num_heads);
#pragma omp parallel for collapse(2) num_threads(num_threads) if (num_threads > 1)
  for (int64_t decode = 0; decode < paged.num_decodes; ++decode)
    for (int64_t head = 0; head < num_heads; head += step) {
      const int64_t at = decode * num_heads + head;
      const Context context{cache, cache, width, width, rank, &paged, decode, 0, scale};
      attend(context, step, query + at * width, nullptr, out + at * rank);
    }
}

void gqa_decode(const float* query, const float* keys, const float* values, const Paged& paged,
                int64_t num_heads, int64_t num_key_heads, int64_t head_dim, float scale, int64_t window,
                const float* sinks, float* out, int num_threads) {
  const int64_t stride = num_key_heads * head_dim, step = heads_at_once(num_heads / num_key_heads);
#pragma omp parallel for collapse(2) num_threads(num_threads) if (num_threads > 1)
  for (int64_t decode = 0; decode < paged.num_decodes; ++decode)
    for (int64_t head = 0; head < num_heads; head += step) {
      const int64_t at = (decode * num_heads + head) * head_dim;
      const int64_t from = head / (num_heads / num_key_heads) * head_dim;
      const int64_t first = window ? std::max<int64_t>(0, paged.lengths[decode] - window) : 0;
      const Context context{keys + from, values + from, stride, head_dim, head_dim, &paged, decode, first, scale};
      attend(context, step, query + at, sinks ? sinks + head : nullptr, out + at);
    }
}

}  // namespace rackscale
