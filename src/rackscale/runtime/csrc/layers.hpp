// Whole layers for a batch of decodes: one call instead of the dozens of operations that they are made of, of which
// each would cost more to call than to do.
#pragma once

#include <cstdint>
#include <variant>
#include <vector>

#include "kernels.hpp"

namespace rackscale {

// Latent attention with absorbed up-projections; see runtime/model/mla.py.
struct Mla {
  int64_t num_heads, nope, rope, value_width, rank;
  float scale, eps;
  Matrix first;              // queries (or what they are expanded from), latent, rotated key
  const float* query_norm;   // of what queries are expanded from
  Matrix query_up;           // none: `first` gives queries
  const float* latent_norm;
  Matrix key_up, value_up;   // [heads, nope, rank] and [heads, rank, value_width], heads one after the other
  Matrix out;
};

enum class QkNorm { kNone, kHead, kProjection };

// Grouped-query attention; see runtime/model/gqa.py.
struct Gqa {
  int64_t num_heads, num_key_heads, head_dim;
  int64_t window;  // 0: none
  float scale, eps;
  float clip;  // of queries, keys and values; infinity: none
  QkNorm norm;
  Matrix first;  // queries, keys, values
  const float* query_norm;
  const float* key_norm;
  const float* sinks;  // [heads] or null
  Matrix out;
};

struct Mlp {
  Matrix gate_up, down;
};

struct Moe {
  Matrix router;
  const float* correction;  // [E] or null
  Router routing;
  Experts experts;
  Mlp shared;  // no weights: none
};

struct Layer {
  const float* attention_norm;
  std::variant<Mla, Gqa> attention;
  const float* ffn_norm;
  std::variant<Mlp, Moe> ffn;
};

// A step of decodes. caches: of each layer its tensors one after the other (latents, or keys and values).
struct Decode {
  Paged paged;
  float* const* caches;
  const float* cos;  // [positions, half]
  const float* sin;
  int num_threads;
};

// x [D, hidden] through all layers, in place. chosen int32 [layers with experts, D, K]: which experts tokens got.
void decode(const std::vector<Layer>& layers, int64_t hidden, float eps, const Decode& step, float* x,
            int32_t* chosen);

}  // namespace rackscale
