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
constexpr int64_t kNarrowSums = 4;
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

// Queries that pass over keys and values together: heads that share them, or successive tokens of one row, each of
// which sees as much of the row as its length says.
template <int64_t H>
struct Lanes {
  const float* query[H];
  float* out[H];
  int64_t length[H];  // ascending
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

// scores[h][i] of H lanes and `count` positions; sixteen sums at a time, so sixteen / H positions, of which those from
// count on mean nothing. A narrow machine has registers for four sums at once. known: how many entries of `at` lie ahead
// in all.
template <bool wide, int64_t H>
RACKSCALE_INLINE void score(const Context& c, const Lanes<H>& lanes, const int64_t* at, int64_t count, int64_t known,
                            float (*scores)[kSpan]) {
  constexpr int64_t N = kLanes / H, kAtOnce = wide ? N : kNarrowSums / H;
  const int64_t whole = c.key_width / kLanes * kLanes;
  for (int64_t i = 0; i < count; i += N) {
    for (int64_t n = i + kAhead; n < std::min(i + kAhead + N, known); ++n) prefetch(c, at[n]);
    f32x16 all[kLanes];
    for (int64_t some = 0; some < N; some += kAtOnce) {
      Floats<wide> total[H][kAtOnce] = {};
      for (int64_t w = 0; w < whole; w += kLanes) {
        Floats<wide> part[H];
        for (int64_t h = 0; h < H; ++h) part[h] = floats<wide>(lanes.query[h] + w);
        for (int64_t n = 0; n < kAtOnce; ++n) {
          const Floats<wide> key = floats<wide>(c.keys + at[i + some + n] + w);
          for (int64_t h = 0; h < H; ++h) total[h][n] += key * part[h];
        }
      }
      for (int64_t h = 0; h < H; ++h)
        for (int64_t n = 0; n < kAtOnce; ++n) store(reinterpret_cast<float*>(all + h * N + some + n), total[h][n]);
    }
    f32x16 result = sums(all);
    for (int64_t w = whole; w < c.key_width; ++w)
      for (int64_t h = 0; h < H; ++h)
        for (int64_t n = 0; n < N; ++n) result[h * N + n] += c.keys[at[i + n] + w] * lanes.query[h][w];
    result *= c.scale;
    for (int64_t h = 0; h < H; ++h)
      std::memcpy(scores[h] + i, reinterpret_cast<const char*>(&result) + h * N * sizeof(float), N * sizeof(float));
  }
}

// The first `count` scores become weights relative to `largest`, which may rise; `total` is their sum so far; those up to
// `end` become zeros. Returns what was added up before has to be multiplied with.
template <bool wide>
RACKSCALE_INLINE float weigh(float* scores, int64_t count, int64_t end, float& largest, float& total) {
  float top = largest;
  for (int64_t i = 0; i < count; ++i) top = std::max(top, scores[i]);
  const float factor = std::exp(largest - top);
  for (int64_t i = count; i % kLanes; ++i) scores[i] = kNone;
  Floats<wide> sum_of = {};
  for (int64_t i = 0; i < count; i += kLanes) {
    const Floats<wide> weight = exponential(floats<wide>(scores + i) - top);
    store(scores + i, weight);
    sum_of += weight;
  }
  // The filling is not nothing, but e^-87 of the largest.
  for (int64_t i = count; i < end; ++i) scores[i] = 0.0f;
  largest = top;
  total = total * factor + sum(sum_of);
  return factor;
}

template <bool wide, int64_t H, int64_t V>
RACKSCALE_INLINE void accumulate(const Context& c, const int64_t* at, int64_t count, const float (*weights)[kSpan],
                                 const float* factor, int64_t from, const Lanes<H>& lanes) {
  Floats<wide> total[H][V];
  for (int64_t h = 0; h < H; ++h)
    for (int64_t v = 0; v < V; ++v) total[h][v] = floats<wide>(lanes.out[h] + from + v * kLanes) * factor[h];
  for (int64_t i = 0; i < count; ++i) {
    Floats<wide> value[V];
    for (int64_t v = 0; v < V; ++v) value[v] = floats<wide>(c.values + at[i] + from + v * kLanes);
    for (int64_t h = 0; h < H; ++h)
      for (int64_t v = 0; v < V; ++v) total[h][v] += value[v] * weights[h][i];
  }
  for (int64_t h = 0; h < H; ++h)
    for (int64_t v = 0; v < V; ++v) store(lanes.out[h] + from + v * kLanes, total[h][v]);
}

// out[h] = out[h] * factor[h] + sum_i weights[h][i] * value_i
template <bool wide, int64_t H>
RACKSCALE_INLINE void accumulate(const Context& c, const int64_t* at, int64_t count, const float (*weights)[kSpan],
                                 const float* factor, const Lanes<H>& lanes) {
  constexpr int64_t V = wide ? 4 : kNarrowSums / H;
  int64_t from = 0;
  for (; from + V * kLanes <= c.value_width; from += V * kLanes)
    accumulate<wide, H, V>(c, at, count, weights, factor, from, lanes);
  for (; from + kLanes <= c.value_width; from += kLanes) accumulate<wide, H, 1>(c, at, count, weights, factor, from, lanes);
  for (; from < c.value_width; ++from)
    for (int64_t h = 0; h < H; ++h) {
      float total = lanes.out[h][from] * factor[h];
      for (int64_t i = 0; i < count; ++i) total += weights[h][i] * c.values[at[i] + from];
      lanes.out[h][from] = total;
    }
}

// next: the decode that comes after these, or beyond the last. sinks [H] or null.
template <bool wide, int64_t H>
RACKSCALE_INLINE void attend(const Context& c, int64_t decode, int64_t next, const Lanes<H>& lanes, const float* sinks) {
  float largest[H], total[H], factor[H], scores[H][kSpan];
  int64_t at[2 * kSpan + kLanes];
  for (int64_t h = 0; h < H; ++h) {
    largest[h] = sinks ? sinks[h] : kNone;
    total[h] = sinks ? 1.0f : 0.0f;
    std::fill_n(lanes.out[h], c.value_width, 0.0f);
  }
  const int64_t length = lanes.length[H - 1], first = c.first(decode);
  int64_t count = std::min(kSpan, length - first);
  offsets(c, decode, first, count, at);
  for (int64_t start = first; start < length; start += kSpan) {
    int64_t num_next = std::clamp<int64_t>(length - start - kSpan, 0, kSpan);
    if (num_next > 0) {
      offsets(c, decode, start + kSpan, num_next, at + count);
    } else if (next < c.paged->num_decodes) {  // where the next row begins, so that it is there in time
      num_next = std::min(kSpan, c.paged->lengths[next] - c.first(next));
      offsets(c, next, c.first(next), num_next, at + count);
    }
    std::fill_n(at + count + num_next, kLanes, at[0]);
    score<wide, H>(c, lanes, at, count, count + num_next, scores);
    for (int64_t h = 0; h < H; ++h)
      factor[h] = weigh<wide>(scores[h], std::clamp<int64_t>(lanes.length[h] - start, 0, count), count, largest[h], total[h]);
    accumulate<wide, H>(c, at, count, scores, factor, lanes);
    std::copy_n(at + count, num_next, at);
    count = num_next;
  }
  for (int64_t h = 0; h < H; ++h)
    for (int64_t i = 0; i < c.value_width; ++i) lanes.out[h][i] /= total[h];
}

template <bool wide>
RACKSCALE_INLINE void attend_four(const Context& c, int64_t decode, int64_t next, const Lanes<4>& lanes, const float* sinks) {
  attend<wide, 4>(c, decode, next, lanes, sinks);
}
template <bool wide>
RACKSCALE_INLINE void attend_two(const Context& c, int64_t decode, int64_t next, const Lanes<2>& lanes, const float* sinks) {
  attend<wide, 2>(c, decode, next, lanes, sinks);
}
template <bool wide>
RACKSCALE_INLINE void attend_one(const Context& c, int64_t decode, int64_t next, const Lanes<1>& lanes, const float* sinks) {
  attend<wide, 1>(c, decode, next, lanes, sinks);
}
#define RACKSCALE_ATTEND(name, H)                                                                               \
  RACKSCALE_BY_WIDTH(name,                                                                                      \
                     (const Context& c, int64_t decode, int64_t next, const Lanes<H>& lanes, const float* sinks), \
                     (c, decode, next, lanes, sinks))
RACKSCALE_ATTEND(attend_four, 4)
RACKSCALE_ATTEND(attend_two, 2)
RACKSCALE_ATTEND(attend_one, 1)

// `heads` heads that share keys, of `tokens` successive tokens of a row. Queries and outputs of heads lie key_width and
// value_width apart, those of tokens query_row and out_row.
template <int64_t H>
Lanes<H> lanes_of(const Context& c, int64_t decode, int64_t heads, const float* query, int64_t query_row, float* out,
                  int64_t out_row) {
  Lanes<H> lanes;
  for (int64_t h = 0; h < H; ++h) {
    const int64_t token = h / heads, head = h % heads;
    lanes.query[h] = query + token * query_row + head * c.key_width;
    lanes.out[h] = out + token * out_row + head * c.value_width;
    lanes.length[h] = c.paged->lengths[decode + token];
  }
  return lanes;
}

constexpr int64_t kTogether = 4;  // lanes at most

// How many of `shared` heads with the same keys go together.
int64_t heads_at_once(int64_t shared) { return shared % 4 == 0 ? 4 : shared % 2 == 0 ? 2 : 1; }

// Successive tokens of a row that pass over it together: those of a chunk, of which each sees one more than the one
// before it. sinks and windows: one by one.
struct Run {
  int64_t decode, tokens;
};

std::vector<Run> runs_of(const Paged& paged, int64_t most) {
  std::vector<Run> runs;
  for (int64_t i = 0; i < paged.num_decodes; ++i) {
    const bool follows = i > 0 && runs.back().tokens < most && paged.rows[i] == paged.rows[i - 1] &&
                         paged.lengths[i] == paged.lengths[i - 1] + 1;
    if (follows) {
      ++runs.back().tokens;
    } else {
      runs.push_back({i, 1});
    }
  }
  return runs;
}

// One run of tokens: together if they fill the lanes, or one by one.
void attend(const Context& c, const Run& run, int64_t heads, const float* query, int64_t query_row, const float* sinks,
            float* out, int64_t out_row) {
  const int64_t next = run.decode + run.tokens;
  if (run.tokens > 1 && heads * run.tokens == kTogether) {
    attend_four(c, run.decode, next, lanes_of<kTogether>(c, run.decode, heads, query, query_row, out, out_row), nullptr);
    return;
  }
  for (int64_t token = 0; token < run.tokens; ++token, query += query_row, out += out_row) {
    const int64_t decode = run.decode + token;
    if (heads == 4) attend_four(c, decode, decode + 1, lanes_of<4>(c, decode, 4, query, 0, out, 0), sinks);
    if (heads == 2) attend_two(c, decode, decode + 1, lanes_of<2>(c, decode, 2, query, 0, out, 0), sinks);
    if (heads == 1) attend_one(c, decode, decode + 1, lanes_of<1>(c, decode, 1, query, 0, out, 0), sinks);
  }
}

}  // namespace

void mla_decode(const float* query, const float* cache, const Paged& paged, int64_t num_heads, int64_t width,
                int64_t rank, float scale, float* out, int num_threads) {
  const int64_t step = heads_at_once(num_heads);
  const Context context{cache, cache, width, width, rank, &paged, 0, scale};
  const std::vector<Run> runs = runs_of(paged, kTogether / step);
#pragma omp parallel for collapse(2) schedule(dynamic, 4) num_threads(num_threads) if (num_threads > 1)
  for (size_t i = 0; i < runs.size(); ++i)
    for (int64_t head = 0; head < num_heads; head += step) {
      const int64_t at = runs[i].decode * num_heads + head;
      attend(context, runs[i], step, query + at * width, num_heads * width, nullptr, out + at * rank, num_heads * rank);
    }
}

void gqa_decode(const float* query, const float* keys, const float* values, const Paged& paged,
                int64_t num_heads, int64_t num_key_heads, int64_t head_dim, float scale, int64_t window,
                const float* sinks, float* out, int num_threads) {
  const int64_t stride = num_key_heads * head_dim, step = heads_at_once(num_heads / num_key_heads);
  const std::vector<Run> runs = runs_of(paged, window || sinks ? 1 : kTogether / step);
#pragma omp parallel for collapse(2) schedule(dynamic, 4) num_threads(num_threads) if (num_threads > 1)
  for (size_t i = 0; i < runs.size(); ++i)
    for (int64_t head = 0; head < num_heads; head += step) {
      const int64_t at = (runs[i].decode * num_heads + head) * head_dim, row = num_heads * head_dim;
      const int64_t from = head / (num_heads / num_key_heads) * head_dim;
      const Context context{keys + from, values + from, stride, head_dim, head_dim, &paged, window, scale};
      attend(context, runs[i], step, query + at, row, sinks ? sinks + head : nullptr, out + at, row);
    }
}

}  // namespace rackscale
