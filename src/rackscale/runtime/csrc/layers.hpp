// A whole model for a batch of decodes: one call instead of the hundreds of operations that it is made of, of which
// each would cost more to call than to do.
#pragma once

#include <cstdint>
#include <functional>
#include <variant>
#include <vector>

#include "all_to_all.hpp"
#include "kernels.hpp"
#include "scratch.hpp"

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
  AllToAll* ranks;  // that share the experts; null: they are all here
  int64_t number;   // among the layers with experts
  Matrix router;
  const float* correction;  // [E] or null
  Router routing;
  AnyExperts experts;
  Mlp shared;  // no weights: none
};

struct Layer {
  const float* attention_norm;
  std::variant<Mla, Gqa> attention;
  const float* ffn_norm;
  std::variant<Mlp, Moe> ffn;
};

// Nanoseconds spent in the parts of a model. projections: before and after attention. dense: feed-forward parts
// without a router, shared experts among them. experts: of all ranks, with the waiting for others.
struct PartTimes {
  int64_t embed, norms, projections, attention, router, experts, dense, head;
};

struct Model {
  int64_t hidden;
  float eps;
  Matrix embed;      // [vocabulary, hidden]
  const float* cos;  // [positions, half]
  const float* sin;
  std::vector<Layer> layers;
  const float* final_norm;
  Matrix head;
  PartTimes times{};  // since somebody last took them
  Scratch scratch{};  // of the step that runs
};

// A step. tokens: one each, of rows as long as `paged.lengths` says with it. Several of one row may be in a step, in
// order: KV is written before it is read. caches: of each layer its tensors one after the other (latents, or keys and
// values). sampled: the decodes whose logits are wanted.
struct Decode {
  const int32_t* tokens;
  Paged paged;
  float* const* caches;
  const int32_t* sampled;
  int64_t num_sampled;
  int num_threads;
  std::function<void(int64_t)> after_attention;  // told the number of each layer whose KV is written; or empty
};

// logits [sampled, vocabulary]. loads int32 [layers with experts, E]: how many tokens each expert got.
void decode(Model& model, const Decode& step, float* logits, int32_t* loads);

}  // namespace rackscale
