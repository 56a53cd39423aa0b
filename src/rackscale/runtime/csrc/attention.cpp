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

constexpr int64_t kSpan = 64;   // positions whose scores are held at once
constexpr int64_t kAhead = 16;  // positions that are asked for before they are used
constexpr float kNone = -std::numeric_limits<float>::infinity();

// What one call works on: `stride` floats from slot to slot, of which keys and values are the first.
struct Context {
  const float* keys;
  const float* values;
  int64_t stride, key_width, value_width;
  const Paged* paged;
  int64_t window;  // 0: none
  float scale;

  // The first position that a decode sees.
  int64_t first(int64_t decode) const {
    return window ? std::max<int64_t>(0, paged->lengths[decode] - window) : 0;
  }
};

// Where the positions start .. start + count - 1 begin in the cache, in floats.
RACKSCALE_INLINE void offsets(const Context& c, int64_t decode, int64_t start, int64_t count, int64_t* to) {
  const int64_t size = c.paged->block_size;
  const int32_t* blocks = c.paged->table + c.paged->rows[decode] * c.paged->table_width;
  for (int64_t i = 0; i < count;) {
    const int64_t block = (start + i) / size, inside = (start + i) % size;
    const int64_t end = std::min(count, i + size - inside);
    int64_t at = (blocks[block] * size + inside) * c.stride;
    for (; i < end; ++i, at += c.stride) to[i] = at;
  }
}

// Ask for the keys and values of a position; blocks lie anywhere, so that the machine does not foresee them.
RACKSCALE_INLINE void prefetch(const Context& c, int64_t at) {
  for (int64_t w = 0; w < c.key_width; w += kLanes) __builtin_prefetch(c.keys + at + w, 0, 0);
  if (c.values != c.keys)
    for (int64_t w = 0; w < c.value_width; w += kLanes) __builtin_prefetch(c.values + at + w, 0, 0);
}

// scores[h][i] of H heads and `count` positions; sixteen sums at a time, so sixteen / H positions, of which those from
// count on mean nothing. known: how many entries of `at` lie ahead in all.
template <int64_t H>
RACKSCALE_INLINE void score(const Context& c, const float* query, const int64_t* at, int64_t count, int64_t known,
                            float (*scores)[kSpan]) {
  constexpr int64_t N = kLanes / H;
  const int64_t whole = c.key_width / kLanes * kLanes;
  for (int64_t i = 0; i < count; i += N) {
    for (int64_t n = i + kAhead; n < std::min(i + kAhead + N, known); ++n) prefetch(c, at[n]);
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

// H heads of one decode that share their keys and values; queries and outputs lie one after the other. sinks [H] or
// null.
template <int64_t H>
RACKSCALE_INLINE void attend(const Context& c, int64_t decode, const float* query, const float* sinks, float* out) {
  float largest[H], total[H], factor[H], scores[H][kSpan];
  int64_t at[2 * kSpan + kLanes];
  for (int64_t h = 0; h < H; ++h) {
    largest[h] = sinks ? sinks[h] : kNone;
    total[h] = sinks ? 1.0f : 0.0f;
  }
  std::fill(out, out + H * c.value_width, 0.0f);
  const int64_t length = c.paged->lengths[decode], first = c.first(decode);
  int64_t count = std::min(kSpan, length - first);
  offsets(c, decode, first, count, at);
  for (int64_t start = first; start < length; start += kSpan) {
    int64_t num_next = std::clamp<int64_t>(length - start - kSpan, 0, kSpan);
    if (num_next > 0) {
      offsets(c, decode, start + kSpan, num_next, at + count);
    } else if (decode + 1 < c.paged->num_decodes) {  // where the next row begins, so that it is there in time
      num_next = std::min(kSpan, c.paged->lengths[decode + 1] - c.first(decode + 1));
      offsets(c, decode + 1, c.first(decode + 1), num_next, at + count);
    }
    std::fill_n(at + count + num_next, kLanes, at[0]);
    score<H>(c, query, at, count, count + num_next, scores);
    for (int64_t h = 0; h < H; ++h) factor[h] = weigh(scores[h], count, largest[h], total[h]);
    accumulate<H>(c, at, count, scores, factor, out);
    std::copy_n(at + count, num_next, at);
    count = num_next;
  }
  for (int64_t h = 0; h < H; ++h)
    for (int64_t i = 0; i < c.value_width; ++i) out[h * c.value_width + i] /= total[h];
}

RACKSCALE_CLONES void attend_four(const Context& c, int64_t decode, const float* query, const float* sinks, float* out) {
  attend<4>(c, decode, query, sinks, out);
}
RACKSCALE_CLONES void attend_two(const Context& c, int64_t decode, const float* query, const float* sinks, float* out) {
  attend<2>(c, decode, query, sinks, out);
}
RACKSCALE_CLONES void attend_one(const Context& c, int64_t decode, const float* query, const float* sinks, float* out) {
  attend<1>(c, decode, query, sinks, out);
}

// How many of `shared` heads with the same keys go together.
int64_t heads_at_once(int64_t shared) { return shared % 4 == 0 ? 4 : shared % 2 == 0 ? 2 : 1; }

void attend(const Context& c, int64_t decode, int64_t heads, const float* query, const float* sinks, float* out) {
  (heads == 4 ? attend_four : heads == 2 ? attend_two : attend_one)(c, decode, query, sinks, out);
}

}  // namespace

void mla_decode(const float* query, const float* cache, const Paged& paged, int64_t num_heads, int64_t width,
                int64_t rank, float scale, float* out, int num_threads) {
  const int64_t step = heads_at_once(num_heads);
  const Context context{cache, cache, width, width, rank, &paged, 0, scale};
#pragma omp parallel for collapse(2) num_threads(num_threads) if (num_threads > 1)
  for (int64_t decode = 0; decode < paged.num_decodes; ++decode)
    for (int64_t head = 0; head < num_heads; head += step) {
      const int64_t at = decode * num_heads + head;
      attend(context, decode, step, query + at * width, nullptr, out + at * rank);
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
      const Context context{keys + from, values + from, stride, head_dim, head_dim, &paged, window, scale};
      attend(context, decode, step, query + at, sinks ? sinks + head : nullptr, out + at);
    }
}

}  // namespace rackscale
