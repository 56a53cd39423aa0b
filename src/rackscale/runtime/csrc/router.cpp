// Which experts a token goes to, and with what weights.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "activation.hpp"
#include "kernels.hpp"
#include "portable.hpp"

namespace rackscale {
namespace {

constexpr float kGone = -std::numeric_limits<float>::infinity();

RACKSCALE_CLONES void to_sigmoids(float* values, int64_t size) {
  int64_t i = 0;
  for (; i + kHalf <= size; i += kHalf) {
    const f32x8 result = sigmoid(half(values + i));
    std::memcpy(values + i, &result, sizeof(result));
  }
  for (; i < size; ++i) values[i] = 1.0f / (1.0f + std::exp(-values[i]));
}

void softmax(float* values, int64_t size) {
  const float largest = *std::max_element(values, values + size);
  float total = 0;
  for (int64_t i = 0; i < size; ++i) total += values[i] = std::exp(values[i] - largest);
  for (int64_t i = 0; i < size; ++i) values[i] /= total;
}

// The indices of the k largest, the largest first, the lower of equals first. `values` is spoilt.
void top(float* values, int64_t size, int64_t k, int32_t* indices) {
  for (int64_t n = 0; n < k; ++n) {
    indices[n] = static_cast<int32_t>(std::max_element(values, values + size) - values);
    values[indices[n]] = kGone;
  }
}

// Experts outside of the best groups are gone. A group is as good as its two best experts.
void only_best_groups(float* choice, const Router& r, std::vector<float>& group_scores,
                      std::vector<int32_t>& best) {
  const int64_t size = r.num_experts / r.num_groups;
  for (int64_t group = 0; group < r.num_groups; ++group) {
    float first = kGone, second = kGone;
    for (int64_t i = group * size; i < (group + 1) * size; ++i) {
      if (choice[i] > first) {
        second = first;
        first = choice[i];
      } else {
        second = std::max(second, choice[i]);
      }
    }
    group_scores[group] = first + second;
  }
  top(group_scores.data(), r.num_groups, r.topk_groups, best.data());
  for (int64_t group = 0; group < r.num_groups; ++group)
    if (std::find(best.begin(), best.begin() + r.topk_groups, group) == best.begin() + r.topk_groups)
      std::fill(choice + group * size, choice + (group + 1) * size, kGone);
}

}  // namespace

void route(const float* logits, const float* correction, int64_t num_tokens, const Router& r, float* weights,
           int32_t* expert_ids) {
  std::vector<float> scores(r.num_experts), choice(r.num_experts), group_scores(r.num_groups);
  std::vector<int32_t> best(r.topk_groups);
  for (int64_t token = 0; token < num_tokens; ++token) {
    std::copy(logits + token * r.num_experts, logits + (token + 1) * r.num_experts, scores.begin());
    if (r.scoring == 0) softmax(scores.data(), r.num_experts);
    if (r.scoring == 2) to_sigmoids(scores.data(), r.num_experts);
    choice = scores;
    if (correction)
      for (int64_t i = 0; i < r.num_experts; ++i) choice[i] += correction[i];
    if (r.num_groups > 1) only_best_groups(choice.data(), r, group_scores, best);
    int32_t* chosen = expert_ids + token * r.top_k;
    float* chosen_weights = weights + token * r.top_k;
    top(choice.data(), r.num_experts, r.top_k, chosen);
    for (int64_t k = 0; k < r.top_k; ++k) chosen_weights[k] = scores[chosen[k]];
    if (r.scoring == 1) softmax(chosen_weights, r.top_k);
    float total = 1e-20f;
    for (int64_t k = 0; k < r.top_k; ++k) total += chosen_weights[k];
    for (int64_t k = 0; k < r.top_k; ++k)
      chosen_weights[k] *= r.renormalise ? r.scale / total : r.scale;
  }
}

}  // namespace rackscale
