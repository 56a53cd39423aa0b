// Grouped experts: tokens sorted by expert, each expert's weights read once for up to kRows of its tokens.
#include <algorithm>
#include <memory>
#include <vector>

#include "activation.hpp"
#include "kernels.hpp"
#include "panel.hpp"
#include "portable.hpp"

namespace rackscale {
namespace {

struct Pair {
  const float* row;
  int32_t token;
  float weight;
};

// inner [rows, 2 * width]
RACKSCALE_INLINE void activate(float* inner, int64_t num_rows, const Experts& e) {
  for (int64_t row = 0; row < num_rows; ++row, inner += 2 * e.width) {
    if (e.clamped) {
      swiglu_clamped(inner, e.width, e.alpha, e.limit);
    } else {
      swiglu(inner, e.width);
    }
  }
}

// All columns of a product of R rows, stretch by stretch.
template <bool wide, typename W, int64_t R>
RACKSCALE_INLINE void stretches(Rows<R> rows, int64_t depth, const W* weight, int64_t columns, const float* bias,
                                Ahead& ahead) {
  for (int64_t k = 0; k < depth; k += kDepth) {
    panel<wide, W, R>(rows, std::min(kDepth, depth - k), weight + k * columns, columns, k == 0 ? bias : nullptr, k > 0, 0,
                columns, ahead);
    for (int64_t r = 0; r < R; ++r) rows.in[r] += kDepth;
  }
}

// Products of two floats are exact in double, and so are sums of a few to its last bits: rounded to floats at the end they
// are the same in any order, so that it does not matter which ranks or threads have which experts.
RACKSCALE_INLINE void add_gated(double* to, const float* from, float gate, int64_t size) {
  for (int64_t i = 0; i < size; ++i) to[i] += static_cast<double>(from[i]) * gate;
}

// Up to kRows tokens of one expert. next: the expert after it.
template <bool wide, typename W, int64_t R>
RACKSCALE_INLINE void some(const Pair* pairs, int64_t expert, int64_t next, const Experts& e,
                           float* scratch, double* out) {
  const W* gate_up = static_cast<const W*>(e.gate_up) + expert * e.hidden * 2 * e.width;
  const W* down = static_cast<const W*>(e.down) + expert * e.width * e.hidden;
  Rows<R> first, second;
  for (int64_t r = 0; r < R; ++r) {
    first.in[r] = pairs[r].row;
    second.in[r] = first.out[r] = scratch + r * (2 * e.width + e.hidden);
    second.out[r] = first.out[r] + 2 * e.width;
  }
  Ahead ahead = Ahead::bytes_of(down);
  stretches<wide, W, R>(first, e.hidden, gate_up, 2 * e.width,
                  e.gate_up_bias ? e.gate_up_bias + expert * 2 * e.width : nullptr, ahead);
  for (int64_t r = 0; r < R; ++r) activate(first.out[r], 1, e);
  ahead = Ahead::bytes_of(static_cast<const W*>(e.gate_up) + next * e.hidden * 2 * e.width);
  stretches<wide, W, R>(second, e.width, down, e.hidden, e.down_bias ? e.down_bias + expert * e.hidden : nullptr, ahead);
  for (int64_t r = 0; r < R; ++r) add_gated(out + pairs[r].token * e.hidden, second.out[r], pairs[r].weight, e.hidden);
}

// The same for many tokens: gathered, so that the products can keep a widened part of the weight.
template <bool wide, typename W>
RACKSCALE_INLINE void many(const Pair* pairs, int64_t count, int64_t expert, const Experts& e,
                           float* scratch, double* out) {
  const W* gate_up = static_cast<const W*>(e.gate_up) + expert * e.hidden * 2 * e.width;
  const W* down = static_cast<const W*>(e.down) + expert * e.width * e.hidden;
  const float* gate_up_bias = e.gate_up_bias ? e.gate_up_bias + expert * 2 * e.width : nullptr;
  const float* down_bias = e.down_bias ? e.down_bias + expert * e.hidden : nullptr;
  float* const inner = scratch + count * e.hidden;
  for (int64_t i = 0; i < count; ++i)
    std::copy_n(pairs[i].row, e.hidden, scratch + i * e.hidden);
  product<wide>(scratch, e.hidden, count, e.hidden, gate_up, 2 * e.width, gate_up_bias, false, inner, 2 * e.width, 0,
          2 * e.width);
  activate(inner, count, e);
  product<wide>(inner, 2 * e.width, count, e.width, down, e.hidden, down_bias, false, scratch, e.hidden, 0, e.hidden);
  for (int64_t i = 0; i < count; ++i)
    add_gated(out + pairs[i].token * e.hidden, scratch + i * e.hidden, pairs[i].weight, e.hidden);
}

template <bool wide, typename W>
RACKSCALE_INLINE void expert_tokens(const Pair* pairs, int64_t count, int64_t expert,
                                    int64_t next, const Experts& e, float* scratch, double* out) {
  if (count >= kPackedRows<W>) {
    many<wide, W>(pairs, count, expert, e, scratch, out);
    return;
  }
  for (; count >= kRows; count -= kRows, pairs += kRows) some<wide, W, kRows>(pairs, expert, next, e, scratch, out);
  switch (count) {
    case 3:
      some<wide, W, 3>(pairs, expert, next, e, scratch, out);
      break;
    case 2:
      some<wide, W, 2>(pairs, expert, next, e, scratch, out);
      break;
    case 1:
      some<wide, W, 1>(pairs, expert, next, e, scratch, out);
      break;
  }
}

template <bool wide>
RACKSCALE_INLINE void run_fp32(const Pair* pairs, int64_t count, int64_t expert, int64_t next, const Experts& e,
                               float* scratch, double* out) {
  expert_tokens<wide, float>(pairs, count, expert, next, e, scratch, out);
}
template <bool wide>
RACKSCALE_INLINE void run_bf16(const Pair* pairs, int64_t count, int64_t expert, int64_t next, const Experts& e,
                               float* scratch, double* out) {
  expert_tokens<wide, bf16>(pairs, count, expert, next, e, scratch, out);
}
#define RACKSCALE_RUN(name)                                                                                    \
  RACKSCALE_BY_WIDTH(name,                                                                                     \
                     (const Pair* pairs, int64_t count, int64_t expert, int64_t next, const Experts& e,        \
                      float* scratch, double* out),                                                            \
                     (pairs, count, expert, next, e, scratch, out))
RACKSCALE_RUN(run_fp32)
RACKSCALE_RUN(run_bf16)
RACKSCALE_CLONES void add(double* to, const double* from, int64_t size) {
  for (int64_t i = 0; i < size; ++i) to[i] += from[i];
}

// The most tokens that one expert has.
int64_t largest_gap(const std::vector<int64_t>& starts) {
  int64_t most = 0;
  for (size_t n = 1; n < starts.size(); ++n) most = std::max(most, starts[n] - starts[n - 1]);
  return most;
}

void run(const Routed& routed, const Experts& e, double* out, int num_threads) {
  const int64_t num_pairs = routed.num_tokens * routed.per_token;
  std::vector<int64_t> starts(e.num_experts + 1, 0);
  for (int64_t i = 0; i < num_pairs; ++i)
    if (routed.expert_ids[i] >= 0) ++starts[routed.expert_ids[i] + 1];
  for (int64_t n = 0; n < e.num_experts; ++n) starts[n + 1] += starts[n];
  std::vector<Pair> pairs(starts[e.num_experts]);
  std::vector<int64_t> next(starts.begin(), starts.end() - 1);
  for (int64_t i = 0; i < num_pairs; ++i)
    if (routed.expert_ids[i] >= 0) {
      const int64_t token = i / routed.per_token;
      pairs[next[routed.expert_ids[i]]++] = {routed.rows[token], static_cast<int32_t>(token), routed.gates[i]};
    }

  const int64_t size = routed.num_tokens * e.hidden;
  const int64_t most = largest_gap(starts);
  const int64_t scratch_size = std::max(kRows, most) * (2 * e.width + e.hidden);
  std::fill(out, out + size, 0.0);
  // Each thread adds into a sum of its own.
  std::vector<double> sums(static_cast<size_t>(num_threads - 1) * size, 0.0);
#pragma omp parallel for schedule(static, 1) num_threads(num_threads) if (num_threads > 1)
  for (int thread = 0; thread < num_threads; ++thread) {
    std::vector<float> scratch(scratch_size);
    double* to = thread == 0 ? out : sums.data() + (thread - 1) * size;
    const auto used_from = [&](int64_t n) {
      while (n < e.num_experts && starts[n + 1] == starts[n]) n += num_threads;
      return n;
    };
    for (int64_t n = used_from(thread), next; n < e.num_experts; n = next) {
      next = used_from(n + num_threads);
      const Pair* first = pairs.data() + starts[n];
      const int64_t count = starts[n + 1] - starts[n], after = std::min(next, e.num_experts - 1);
      if (e.is_bf16) {
        run_bf16(first, count, n, after, e, scratch.data(), to);
      } else {
        run_fp32(first, count, n, after, e, scratch.data(), to);
      }
    }
  }
  for (int thread = 1; thread < num_threads; ++thread) add(out, sums.data() + (thread - 1) * size, size);
}

void run(const Routed& routed, const PackedExperts& e, double* out, int num_threads) {
  experts(routed, e, out, num_threads);
}

}  // namespace

void experts(const Routed& routed, const AnyExperts& any, double* out, int num_threads) {
  std::visit([&](const auto& e) { run(routed, e, out, num_threads); }, any);
}

RACKSCALE_CLONES void to_floats(const double* from, int64_t size, float* to) {
  for (int64_t i = 0; i < size; ++i) to[i] = static_cast<float>(from[i]);
}

void experts(const Routed& routed, const AnyExperts& any, float* out, int num_threads) {
  const int64_t size = routed.num_tokens * std::visit([](const auto& e) { return e.hidden; }, any);
  const std::unique_ptr<double[]> sums(new double[static_cast<size_t>(size)]);
  experts(routed, any, sums.get(), num_threads);
  to_floats(sums.get(), size, out);
}

}  // namespace rackscale
