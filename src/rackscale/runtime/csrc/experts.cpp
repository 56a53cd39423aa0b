// Grouped experts: tokens sorted by expert, each expert's weights read once for up to kRows of its tokens.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels.hpp"
#include "panel.hpp"
#include "portable.hpp"

namespace rackscale {
namespace {

void activate(float* inner, int64_t width, const Experts& e) {
  for (int64_t i = 0; i < width; ++i) {
    float gate = inner[i], up = inner[width + i];
    if (e.clamped) {
      gate = std::min(gate, e.limit);
      up = std::clamp(up, -e.limit, e.limit) + 1.0f;
      inner[i] = gate / (1.0f + std::exp(-e.alpha * gate)) * up;
    } else {
      inner[i] = gate / (1.0f + std::exp(-gate)) * up;
    }
  }
}

struct Pair {
  int32_t token;
  float weight;
};

template <typename W, int64_t R>
RACKSCALE_INLINE void some(const float* hidden, const Pair* pairs, int64_t expert, const Experts& e,
                           float* scratch, float* out) {
  const W* gate_up = static_cast<const W*>(e.gate_up) + expert * e.hidden * 2 * e.width;
  const W* down = static_cast<const W*>(e.down) + expert * e.width * e.hidden;
  const float *in[R], *inner_in[R];
  float *inner[R], *result[R];
  for (int64_t r = 0; r < R; ++r) {
    in[r] = hidden + pairs[r].token * e.hidden;
    inner_in[r] = inner[r] = scratch + r * (2 * e.width + e.hidden);
    result[r] = inner[r] + 2 * e.width;
  }
  panel<W, R>(in, e.hidden, gate_up, 2 * e.width, e.gate_up_bias ? e.gate_up_bias + expert * 2 * e.width : nullptr,
              inner);
  for (int64_t r = 0; r < R; ++r) activate(inner[r], e.width, e);
  panel<W, R>(inner_in, e.width, down, e.hidden, e.down_bias ? e.down_bias + expert * e.hidden : nullptr, result);
  for (int64_t r = 0; r < R; ++r) add_scaled(out + pairs[r].token * e.hidden, result[r], pairs[r].weight, e.hidden);
}

template <typename W>
RACKSCALE_INLINE void expert_tokens(const float* hidden, const Pair* pairs, int64_t count, int64_t expert,
                                    const Experts& e, float* scratch, float* out) {
  for (; count >= kRows; count -= kRows, pairs += kRows) some<W, kRows>(hidden, pairs, expert, e, scratch, out);
  for (; count > 0; --count, ++pairs) some<W, 1>(hidden, pairs, expert, e, scratch, out);
}

RACKSCALE_CLONES void run_fp32(const float* hidden, const Pair* pairs, int64_t count, int64_t expert, const Experts& e,
                               float* scratch, float* out) {
  expert_tokens<float>(hidden, pairs, count, expert, e, scratch, out);
}
RACKSCALE_CLONES void run_bf16(const float* hidden, const Pair* pairs, int64_t count, int64_t expert, const Experts& e,
                               float* scratch, float* out) {
  expert_tokens<bf16>(hidden, pairs, count, expert, e, scratch, out);
}

}  // namespace

void experts(const float* hidden, const float* weights, const int32_t* expert_ids, int64_t num_tokens,
             int64_t per_token, const Experts& e, float* out, int num_threads) {
  const int64_t num_pairs = num_tokens * per_token;
  std::vector<int64_t> starts(e.num_experts + 1, 0);
  for (int64_t i = 0; i < num_pairs; ++i) ++starts[expert_ids[i] + 1];
  for (int64_t n = 0; n < e.num_experts; ++n) starts[n + 1] += starts[n];
  std::vector<Pair> pairs(num_pairs);
  std::vector<int64_t> next(starts.begin(), starts.end() - 1);
  for (int64_t i = 0; i < num_pairs; ++i)
    pairs[next[expert_ids[i]]++] = {static_cast<int32_t>(i / per_token), weights[i]};

  const int64_t size = num_tokens * e.hidden;
  const int64_t scratch_size = kRows * (2 * e.width + e.hidden);
  std::fill(out, out + size, 0.0f);
  // Each thread adds into a sum of its own: which thread has which expert is fixed, so that the order of
  // additions, and with it the result, is the same in every run.
  std::vector<float> sums(static_cast<size_t>(num_threads - 1) * size, 0.0f);
#pragma omp parallel for schedule(static, 1) num_threads(num_threads) if (num_threads > 1)
  for (int thread = 0; thread < num_threads; ++thread) {
    std::vector<float> scratch(scratch_size);
    float* to = thread == 0 ? out : sums.data() + (thread - 1) * size;
    for (int64_t n = thread; n < e.num_experts; n += num_threads) {
      const int64_t count = starts[n + 1] - starts[n];
      if (count == 0) continue;
      (e.is_bf16 ? run_bf16 : run_fp32)(hidden, pairs.data() + starts[n], count, n, e, scratch.data(), to);
    }
  }
  for (int thread = 1; thread < num_threads; ++thread) add_scaled(out, sums.data() + (thread - 1) * size, 1.0f, size);
}

}  // namespace rackscale
