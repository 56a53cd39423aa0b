// Tokens on their way through experts.
#pragma once

#include <cstdint>

namespace rackscale {

// rows [T], of `hidden` floats each; expert_ids int32 [T, K], -1: none.
struct Routed {
  const float* const* rows;
  const float* gates;  // [T, K]
  const int32_t* expert_ids;
  int64_t num_tokens, per_token;
};

}  // namespace rackscale
