#include "layers.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "portable.hpp"
#include "signal.hpp"

namespace rackscale {
namespace {

constexpr int64_t kRoutedTogether = 32;  // tokens

// to += each of them as a float.
RACKSCALE_CLONES void add_rounded(const double* from, int64_t size, float* to) {
  for (int64_t i = 0; i < size; ++i) to[i] += static_cast<float>(from[i]);
}

// Says where the time goes: what has passed since it was last asked belongs to one part.
struct Laps {
  PartTimes& times;
  int64_t last = now_ns();

  void end(int64_t PartTimes::* part) {
    const int64_t now = now_ns();
    times.*part += now - last;
    last = now;
  }
};

// What all layers of a step share.
struct Context {
  const Model& model;
  const Decode& step;
  Laps& laps;
  Scratch& scratch;
  int64_t num_rows, hidden;
  std::vector<int64_t> positions, slots;

  float* buffer(int64_t size) const { return scratch.of<float>(size); }
};

Context context_of(Model& model, const Decode& step, Laps& laps) {
  const Paged& paged = step.paged;
  Context c{model, step, laps, model.scratch, paged.num_decodes, model.hidden, {}, {}};
  for (int64_t i = 0; i < paged.num_decodes; ++i) {
    const int64_t position = paged.lengths[i] - 1;
    const int64_t block = paged.table[paged.rows[i] * paged.table_width + position / paged.block_size];
    c.positions.push_back(position);
    c.slots.push_back(block * paged.block_size + position % paged.block_size);
  }
  return c;
}

void rotate(const Context& c, float* x, int64_t token_stride, int64_t head_stride, int64_t num_heads, int64_t width) {
  rackscale::rotate(x, token_stride, head_stride, c.model.cos, c.model.sin, c.positions.data(), c.num_rows, num_heads, width / 2);
}

void linear(const Context& c, const float* in, int64_t in_stride, const Matrix& m, bool add, float* out) {
  rackscale::linear(in, in_stride, c.num_rows, m, add, out, m.columns, c.step.num_threads);
}

// One of several matrices that lie one after the other.
Matrix part_of(const Matrix& m, int64_t number) {
  Matrix part = m;
  const int64_t bytes = m.depth * m.columns * static_cast<int64_t>(m.is_bf16 ? sizeof(uint16_t) : sizeof(float));
  part.weight = static_cast<const char*>(m.weight) + number * bytes;
  return part;
}

// Every head times its own matrix; heads of a row lie in_stride and out_stride apart, rows as many heads apart.
void linear_by_head(const Context& c, const float* in, int64_t in_row, int64_t in_head, int64_t num_heads,
                    const Matrix& m, float* out, int64_t out_row, int64_t out_head) {
#pragma omp parallel for num_threads(c.step.num_threads) if (c.step.num_threads > 1)
  for (int64_t head = 0; head < num_heads; ++head)
    rackscale::linear(in + head * in_head, in_row, c.num_rows, part_of(m, head), false, out + head * out_head, out_row, 1);
}

// normed [D, hidden] to x += attention.
void attend(const Context& c, const Mla& m, const float* normed, float* const* caches, float* x) {
  const int64_t width = m.rank + m.rope, heads = m.num_heads, head = m.nope + m.rope;
  float* const first = c.buffer(c.num_rows * m.first.columns);
  linear(c, normed, c.hidden, m.first, false, first);
  const int64_t row = m.first.columns, query_width = row - width;

  float* query = first;
  int64_t query_row = row;
  if (m.query_up) {
    float* const compressed = c.buffer(c.num_rows * query_width);
    rms_norm(query, row, m.query_norm, c.num_rows, query_width, m.eps, compressed, query_width);
    float* const expanded = c.buffer(c.num_rows * heads * head);
    linear(c, compressed, query_width, m.query_up, false, expanded);
    query = expanded;
    query_row = heads * head;
  }
  rotate(c, query + m.nope, query_row, head, heads, m.rope);

  float* const cache = caches[0];
  float* const latent = first + query_width;
  rotate(c, latent + m.rank, row, m.rope, 1, m.rope);
  for (int64_t i = 0; i < c.num_rows; ++i) {
    float* slot = cache + c.slots[i] * width;
    rms_norm(latent + i * row, row, m.latent_norm, 1, m.rank, m.eps, slot, width);
    std::copy_n(latent + i * row + m.rank, m.rope, slot + m.rank);
  }

  float* const absorbed = c.buffer(c.num_rows * heads * width);
  linear_by_head(c, query, query_row, head, heads, m.key_up, absorbed, heads * width, width);
  for (int64_t i = 0; i < c.num_rows; ++i)
    for (int64_t h = 0; h < heads; ++h)
      std::copy_n(query + i * query_row + h * head + m.nope, m.rope, absorbed + (i * heads + h) * width + m.rank);
  float* const latents = c.buffer(c.num_rows * heads * m.rank);
  c.laps.end(&PartTimes::projections);
  mla_decode(absorbed, cache, c.step.paged, heads, width, m.rank, m.scale, latents, c.step.num_threads);
  c.laps.end(&PartTimes::attention);
  const int64_t out_row = heads * m.value_width;
  float* const values = c.buffer(c.num_rows * out_row);
  linear_by_head(c, latents, heads * m.rank, m.rank, heads, m.value_up, values, out_row, m.value_width);
  linear(c, values, out_row, m.out, true, x);
  c.laps.end(&PartTimes::projections);
}

// Queries or keys, normed where they are.
void norm_heads(const Context& c, const Gqa& g, float* x, int64_t row, int64_t num_heads, const float* weight) {
  const int64_t width = num_heads * g.head_dim;
  if (g.norm == QkNorm::kProjection) rms_norm(x, row, weight, c.num_rows, width, g.eps, x, row);
  if (g.norm == QkNorm::kHead)
    for (int64_t i = 0; i < c.num_rows; ++i)
      rms_norm(x + i * row, g.head_dim, weight, num_heads, g.head_dim, g.eps, x + i * row, g.head_dim);
}

void attend(const Context& c, const Gqa& g, const float* normed, float* const* caches, float* x) {
  const int64_t query_width = g.num_heads * g.head_dim, key_width = g.num_key_heads * g.head_dim;
  const int64_t row = g.first.columns;
  float* const first = c.buffer(c.num_rows * row);
  float* const query = c.buffer(c.num_rows * query_width);
  linear(c, normed, c.hidden, g.first, false, first);
  float* const key = first + query_width;
  norm_heads(c, g, first, row, g.num_heads, g.query_norm);
  norm_heads(c, g, key, row, g.num_key_heads, g.key_norm);
  if (std::isfinite(g.clip))
    for (int64_t i = 0; i < c.num_rows * row; ++i) first[i] = std::clamp(first[i], -g.clip, g.clip);
  rotate(c, first, row, g.head_dim, g.num_heads + g.num_key_heads, g.head_dim);

  float* const keys = caches[0];
  float* const values = caches[1];
  for (int64_t i = 0; i < c.num_rows; ++i) {
    std::copy_n(first + i * row, query_width, query + i * query_width);
    std::copy_n(key + i * row, key_width, keys + c.slots[i] * key_width);
    std::copy_n(key + i * row + key_width, key_width, values + c.slots[i] * key_width);
  }
  float* const attended = c.buffer(c.num_rows * query_width);
  c.laps.end(&PartTimes::projections);
  gqa_decode(query, keys, values, c.step.paged, g.num_heads, g.num_key_heads, g.head_dim, g.scale, g.window,
             g.sinks, attended, c.step.num_threads);
  c.laps.end(&PartTimes::attention);
  linear(c, attended, query_width, g.out, true, x);
  c.laps.end(&PartTimes::projections);
}

void feed_forward(const Context& c, const Mlp& m, const float* normed, float* x) {
  if (m.gate_up.packed) {
    mlp(normed, c.hidden, c.num_rows, *m.gate_up.packed, *m.down.packed, true, x, c.hidden, c.step.num_threads);
    c.laps.end(&PartTimes::dense);
    return;
  }
  const int64_t width = m.down.depth;
  float* const inner = c.buffer(c.num_rows * 2 * width);
  linear(c, normed, c.hidden, m.gate_up, false, inner);
  swiglu_rows(inner, c.num_rows, width);
  linear(c, inner, 2 * width, m.down, true, x);
  c.laps.end(&PartTimes::dense);
}

// Experts on other ranks: the shared one is computed while tokens are on their way.
void experts_on_ranks(const Context& c, const Moe& m, const float* normed, const float* gates, const int32_t* chosen,
                      float* x) {
  AllToAll& ranks = *m.ranks;
  ranks.dispatch(m.number, normed, chosen, gates, c.num_rows);
  if (m.shared.gate_up) feed_forward(c, m.shared, normed, x);
  const Received& received = ranks.receive();
  const Routed tokens{received.rows.data(), received.gates.data(), received.expert_ids.data(), received.count(),
                      m.routing.top_k};
  const int64_t size = received.count() * c.hidden;
  double* const sums = c.scratch.of<double>(size);
  experts(tokens, m.experts, sums, c.step.num_threads);
  if (ranks.is_exact()) {
    ranks.combine(sums);
  } else {
    float* const rounded = c.buffer(size);
    to_floats(sums, size, rounded);
    ranks.combine(rounded);
  }
  float* const routed = c.buffer(c.num_rows * c.hidden);
  ranks.collect(routed);
  for (int64_t i = 0; i < c.num_rows * c.hidden; ++i) x[i] += routed[i];
  c.laps.end(&PartTimes::experts);
}

void experts_here(const Context& c, const Moe& m, const float* normed, const float* gates, const int32_t* chosen,
                  float* x) {
  const float** const rows = c.scratch.of<const float*>(c.num_rows);
  for (int64_t i = 0; i < c.num_rows; ++i) rows[i] = normed + i * c.hidden;
  double* const routed = c.scratch.of<double>(c.num_rows * c.hidden);
  experts({rows, gates, chosen, c.num_rows, m.routing.top_k}, m.experts, routed, c.step.num_threads);
  c.laps.end(&PartTimes::experts);
  if (m.shared.gate_up) feed_forward(c, m.shared, normed, x);
  add_rounded(routed, c.num_rows * c.hidden, x);
}

// In shares of tokens, where there are enough to be worth waking a thread.
void route_all(const Context& c, const Moe& m, const float* logits, float* gates, int32_t* chosen) {
  const int64_t shares = std::clamp<int64_t>(c.num_rows / kRoutedTogether, 1, c.step.num_threads);
#pragma omp parallel for num_threads(static_cast<int>(shares)) if (shares > 1)
  for (int64_t share = 0; share < shares; ++share) {
    const int64_t from = c.num_rows * share / shares, to = c.num_rows * (share + 1) / shares;
    route(logits + from * m.routing.num_experts, m.correction, to - from, m.routing, gates + from * m.routing.top_k,
          chosen + from * m.routing.top_k);
  }
}

// loads [E]: rises by the tokens that each expert gets.
void feed_forward(const Context& c, const Moe& m, const float* normed, float* x, int32_t* loads) {
  float* const logits = c.buffer(c.num_rows * m.routing.num_experts);
  float* const gates = c.buffer(c.num_rows * m.routing.top_k);
  int32_t* const chosen = c.scratch.of<int32_t>(c.num_rows * m.routing.top_k);
  linear(c, normed, c.hidden, m.router, false, logits);
  route_all(c, m, logits, gates, chosen);
  for (int64_t i = 0; i < c.num_rows * m.routing.top_k; ++i) ++loads[chosen[i]];
  c.laps.end(&PartTimes::router);
  (m.ranks ? experts_on_ranks : experts_here)(c, m, normed, gates, chosen, x);
}

// The tokens' rows of the embedding, as floats.
float* embedded(const Context& c) {
  const Matrix& embed = c.model.embed;
  float* const x = c.buffer(c.num_rows * c.hidden);
  for (int64_t i = 0; i < c.num_rows; ++i) {
    const int64_t token = c.step.tokens[i], at = token * c.hidden;
    if (token < 0 || token >= embed.depth) throw std::out_of_range("a token is not in the vocabulary");
    float* row = x + i * c.hidden;
    if (embed.is_bf16) {
      widen(static_cast<const bf16*>(embed.weight) + at, c.hidden, row);
    } else {
      std::copy_n(static_cast<const float*>(embed.weight) + at, c.hidden, row);
    }
  }
  return x;
}

void to_logits(const Context& c, const float* x, float* logits) {
  const int64_t count = c.step.num_sampled;
  float* const normed = c.buffer(count * c.hidden);
  for (int64_t i = 0; i < count; ++i)
    rms_norm(x + c.step.sampled[i] * c.hidden, c.hidden, c.model.final_norm, 1, c.hidden, c.model.eps,
             normed + i * c.hidden, c.hidden);
  const Matrix& head = c.model.head;
  rackscale::linear(normed, c.hidden, count, head, false, logits, head.columns, c.step.num_threads);
}

}  // namespace

void decode(Model& model, const Decode& step, float* logits, int32_t* loads) {
  Laps laps{model.times};
  const Context c = context_of(model, step, laps);
  const int64_t hidden = model.hidden;
  const Scratch::Mark start = model.scratch.mark();
  float* const x = embedded(c);
  float* const normed = c.buffer(c.num_rows * hidden);
  const Scratch::Mark layers = model.scratch.mark();
  laps.end(&PartTimes::embed);
  float* const* caches = step.caches;
  for (const Layer& layer : model.layers) {
    model.scratch.back_to(layers);
    rms_norm(x, hidden, layer.attention_norm, c.num_rows, hidden, model.eps, normed, hidden);
    laps.end(&PartTimes::norms);
    std::visit([&](const auto& attention) { attend(c, attention, normed, caches, x); }, layer.attention);
    caches += std::holds_alternative<Mla>(layer.attention) ? 1 : 2;
    if (step.after_attention) step.after_attention(&layer - model.layers.data());
    rms_norm(x, hidden, layer.ffn_norm, c.num_rows, hidden, model.eps, normed, hidden);
    laps.end(&PartTimes::norms);
    if (const Moe* moe = std::get_if<Moe>(&layer.ffn)) {
      feed_forward(c, *moe, normed, x, loads);
      loads += moe->routing.num_experts;
    } else {
      feed_forward(c, std::get<Mlp>(layer.ffn), normed, x);
    }
  }
  to_logits(c, x, logits);
  model.scratch.back_to(start);
  laps.end(&PartTimes::head);
}

}  // namespace rackscale
