#include "layers.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <stdexcept>

#include "portable.hpp"

namespace rackscale {
namespace {

using Buffer = std::unique_ptr<float[]>;

Buffer buffer(int64_t size) { return Buffer(new float[static_cast<size_t>(size)]); }

// What all layers of a step share.
struct Context {
  const Model& model;
  const Decode& step;
  int64_t num_rows, hidden;
  std::vector<int64_t> positions, slots;
};

Context context_of(const Model& model, const Decode& step) {
  const Paged& paged = step.paged;
  Context c{model, step, paged.num_decodes, model.hidden, {}, {}};
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
  const Buffer first = buffer(c.num_rows * m.first.columns);
  linear(c, normed, c.hidden, m.first, false, first.get());
  const int64_t row = m.first.columns, query_width = row - width;

  float* query = first.get();
  int64_t query_row = row;
  Buffer expanded;
  if (m.query_up.weight) {
    const Buffer compressed = buffer(c.num_rows * query_width);
    rms_norm(query, row, m.query_norm, c.num_rows, query_width, m.eps, compressed.get(), query_width);
    expanded = buffer(c.num_rows * heads * head);
    linear(c, compressed.get(), query_width, m.query_up, false, expanded.get());
    query = expanded.get();
    query_row = heads * head;
  }
  rotate(c, query + m.nope, query_row, head, heads, m.rope);

  float* const cache = caches[0];
  float* const latent = first.get() + query_width;
  rotate(c, latent + m.rank, row, m.rope, 1, m.rope);
  for (int64_t i = 0; i < c.num_rows; ++i) {
    float* slot = cache + c.slots[i] * width;
    rms_norm(latent + i * row, row, m.latent_norm, 1, m.rank, m.eps, slot, width);
    std::copy_n(latent + i * row + m.rank, m.rope, slot + m.rank);
  }

  const Buffer absorbed = buffer(c.num_rows * heads * width);
  linear_by_head(c, query, query_row, head, heads, m.key_up, absorbed.get(), heads * width, width);
  for (int64_t i = 0; i < c.num_rows; ++i)
    for (int64_t h = 0; h < heads; ++h)
      std::copy_n(query + i * query_row + h * head + m.nope, m.rope, absorbed.get() + (i * heads + h) * width + m.rank);
  const Buffer latents = buffer(c.num_rows * heads * m.rank);
  mla_decode(absorbed.get(), cache, c.step.paged, heads, width, m.rank, m.scale, latents.get(), c.step.num_threads);
  const int64_t out_row = heads * m.value_width;
  const Buffer values = buffer(c.num_rows * out_row);
  linear_by_head(c, latents.get(), heads * m.rank, m.rank, heads, m.value_up, values.get(), out_row, m.value_width);
  linear(c, values.get(), out_row, m.out, true, x);
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
  const Buffer first = buffer(c.num_rows * row), query = buffer(c.num_rows * query_width);
  linear(c, normed, c.hidden, g.first, false, first.get());
  float* const key = first.get() + query_width;
  norm_heads(c, g, first.get(), row, g.num_heads, g.query_norm);
  norm_heads(c, g, key, row, g.num_key_heads, g.key_norm);
  if (std::isfinite(g.clip))
    for (int64_t i = 0; i < c.num_rows * row; ++i) first[i] = std::clamp(first[i], -g.clip, g.clip);
  rotate(c, first.get(), row, g.head_dim, g.num_heads + g.num_key_heads, g.head_dim);

  float* const keys = caches[0];
  float* const values = caches[1];
  for (int64_t i = 0; i < c.num_rows; ++i) {
    std::copy_n(first.get() + i * row, query_width, query.get() + i * query_width);
    std::copy_n(key + i * row, key_width, keys + c.slots[i] * key_width);
    std::copy_n(key + i * row + key_width, key_width, values + c.slots[i] * key_width);
  }
  const Buffer attended = buffer(c.num_rows * query_width);
  gqa_decode(query.get(), keys, values, c.step.paged, g.num_heads, g.num_key_heads, g.head_dim, g.scale, g.window,
             g.sinks, attended.get(), c.step.num_threads);
  linear(c, attended.get(), query_width, g.out, true, x);
}

void feed_forward(const Context& c, const Mlp& m, const float* normed, float* x) {
  const int64_t width = m.down.depth;
  const Buffer inner = buffer(c.num_rows * 2 * width);
  linear(c, normed, c.hidden, m.gate_up, false, inner.get());
  swiglu_rows(inner.get(), c.num_rows, width);
  linear(c, inner.get(), 2 * width, m.down, true, x);
}

// Experts on other ranks: the shared one is computed while tokens are on their way.
void experts_on_ranks(const Context& c, const Moe& m, const float* normed, const float* gates, const int32_t* chosen,
                      float* x, float* routed) {
  AllToAll& ranks = *m.ranks;
  ranks.dispatch(m.number, normed, chosen, gates, c.num_rows);
  if (m.shared.gate_up.weight) feed_forward(c, m.shared, normed, x);
  const Received& received = ranks.receive();
  const Routed tokens{received.rows.data(), received.gates.data(), received.expert_ids.data(), received.count(),
                      m.routing.top_k};
  const int64_t size = received.count() * c.hidden;
  const Buffer sums = buffer(ranks.is_exact() ? 0 : size);
  const std::unique_ptr<double[]> exact(new double[static_cast<size_t>(ranks.is_exact() ? size : 0)]);
  if (ranks.is_exact()) {
    experts(tokens, m.experts, exact.get(), c.step.num_threads);
    ranks.combine(exact.get());
  } else {
    experts(tokens, m.experts, sums.get(), c.step.num_threads);
    ranks.combine(sums.get());
  }
  ranks.collect(routed);
}

void experts_here(const Context& c, const Moe& m, const float* normed, const float* gates, const int32_t* chosen,
                  float* x, float* routed) {
  std::vector<const float*> rows(c.num_rows);
  for (int64_t i = 0; i < c.num_rows; ++i) rows[i] = normed + i * c.hidden;
  experts({rows.data(), gates, chosen, c.num_rows, m.routing.top_k}, m.experts, routed, c.step.num_threads);
  if (m.shared.gate_up.weight) feed_forward(c, m.shared, normed, x);
}

// loads [E]: rises by the tokens that each expert gets.
void feed_forward(const Context& c, const Moe& m, const float* normed, float* x, int32_t* loads) {
  const Buffer logits = buffer(c.num_rows * m.routing.num_experts);
  const Buffer gates = buffer(c.num_rows * m.routing.top_k);
  const Buffer routed = buffer(c.num_rows * c.hidden);
  std::vector<int32_t> chosen(c.num_rows * m.routing.top_k);
  linear(c, normed, c.hidden, m.router, false, logits.get());
  route(logits.get(), m.correction, c.num_rows, m.routing, gates.get(), chosen.data());
  for (const int32_t expert : chosen) ++loads[expert];
  (m.ranks ? experts_on_ranks : experts_here)(c, m, normed, gates.get(), chosen.data(), x, routed.get());
  for (int64_t i = 0; i < c.num_rows * c.hidden; ++i) x[i] += routed[i];
}

// The tokens' rows of the embedding, as floats.
Buffer embedded(const Context& c) {
  const Matrix& embed = c.model.embed;
  Buffer x = buffer(c.num_rows * c.hidden);
  for (int64_t i = 0; i < c.num_rows; ++i) {
    const int64_t token = c.step.tokens[i], at = token * c.hidden;
    if (token < 0 || token >= embed.depth) throw std::out_of_range("a token is not in the vocabulary");
    float* row = x.get() + i * c.hidden;
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
  const Buffer normed = buffer(count * c.hidden);
  for (int64_t i = 0; i < count; ++i)
    rms_norm(x + c.step.sampled[i] * c.hidden, c.hidden, c.model.final_norm, 1, c.hidden, c.model.eps,
             normed.get() + i * c.hidden, c.hidden);
  const Matrix& head = c.model.head;
  rackscale::linear(normed.get(), c.hidden, count, head, false, logits, head.columns, c.step.num_threads);
}

}  // namespace

void decode(const Model& model, const Decode& step, float* logits, int32_t* loads) {
  const Context c = context_of(model, step);
  const int64_t hidden = model.hidden;
  const Buffer x = embedded(c), normed = buffer(c.num_rows * hidden);
  float* const* caches = step.caches;
  for (const Layer& layer : model.layers) {
    rms_norm(x.get(), hidden, layer.attention_norm, c.num_rows, hidden, model.eps, normed.get(), hidden);
    std::visit([&](const auto& attention) { attend(c, attention, normed.get(), caches, x.get()); }, layer.attention);
    caches += std::holds_alternative<Mla>(layer.attention) ? 1 : 2;
    if (step.after_attention) step.after_attention(&layer - model.layers.data());
    rms_norm(x.get(), hidden, layer.ffn_norm, c.num_rows, hidden, model.eps, normed.get(), hidden);
    if (const Moe* moe = std::get_if<Moe>(&layer.ffn)) {
      feed_forward(c, *moe, normed.get(), x.get(), loads);
      loads += moe->routing.num_experts;
    } else {
      feed_forward(c, std::get<Mlp>(layer.ffn), normed.get(), x.get());
    }
  }
  to_logits(c, x.get(), logits);
}

}  // namespace rackscale
