// The kernels behind `rackscale.runtime.kernels.native`. Pointers are to contiguous fp32 unless said otherwise;
// shapes are checked by the caller. Axes as in kernels/interface.py.
#pragma once

#include <cstdint>
#include <optional>
#include <variant>

#include "packed.hpp"
#include "routed.hpp"

namespace rackscale {

// A linear layer's weight: input-major, or packed.
struct Matrix {
  const void* weight = nullptr;  // [depth, columns], fp32 or bf16; null: packed, or no such layer
  bool is_bf16 = false;
  int64_t depth = 0, columns = 0;
  const float* bias = nullptr;  // [columns] or null
  std::optional<Packed> packed = std::nullopt;

  explicit operator bool() const { return weight || packed; }
};

struct Experts {
  int64_t num_experts, hidden, width;
  const void* gate_up;        // [E, hidden, 2 * width], fp32 or bf16
  const void* down;           // [E, width, hidden], the same dtype
  bool is_bf16;
  const float* gate_up_bias;  // [E, 2 * width] or null
  const float* down_bias;     // [E, hidden] or null
  bool clamped;               // gpt-oss's activation
  float alpha, limit;
};

// out [T, hidden] = the gated sum of each token's experts; in doubles, or rounded once.
using AnyExperts = std::variant<Experts, PackedExperts>;
void experts(const Routed& routed, const AnyExperts& experts, double* out, int num_threads);
void experts(const Routed& routed, const AnyExperts& experts, float* out, int num_threads);
void to_floats(const double* from, int64_t size, float* to);

struct Paged {
  const int32_t* rows;     // [D]
  const int32_t* lengths;  // [D]
  const int32_t* table;    // [rows, table_width]
  int64_t num_decodes, table_width, block_size;
};

// out [D, A, rank]; query [D, A, width]; cache [slots, width].
void mla_decode(const float* query, const float* cache, const Paged& paged, int64_t num_heads, int64_t width,
                int64_t rank, float scale, float* out, int num_threads);

// out [D, A, N]; query [D, A, N]; keys and values [slots, G, N]; sinks [A] or null; window 0: none.
void gqa_decode(const float* query, const float* keys, const float* values, const Paged& paged,
                int64_t num_heads, int64_t num_key_heads, int64_t head_dim, float scale, int64_t window,
                const float* sinks, float* out, int num_threads);

struct Router {
  int64_t num_experts, top_k, num_groups, topk_groups;
  int scoring;  // 0 softmax, 1 softmax over the best, 2 sigmoid
  bool renormalise;
  float scale;
};

// weights [T, K] and expert_ids int32 [T, K] of logits [T, E]; correction [E] or null.
void route(const float* logits, const float* correction, int64_t num_tokens, const Router& router,
           float* weights, int32_t* expert_ids);

// Rows of row_bytes each, from the slots of one tensor to those of another.
void copy_rows(const void* from, const int32_t* from_slots, int64_t count, int64_t row_bytes, void* to,
               const int32_t* to_slots);

// out [rows, width] = in / rms(in) * weight; rows begin every in_stride and out_stride floats.
void rms_norm(const float* in, int64_t in_stride, const float* weight, int64_t num_rows, int64_t width, float eps,
              float* out, int64_t out_stride);

// Rotates, in place, the pairs (i, i + half) of every head; cos and sin are [positions, half].
void rotate(float* x, int64_t token_stride, int64_t head_stride, const float* cos, const float* sin,
            const int64_t* positions, int64_t num_tokens, int64_t num_heads, int64_t half);

// inner [rows, 2 * width], gate and up: silu(gate) * up takes the gate's place.
void swiglu_rows(float* inner, int64_t num_rows, int64_t width);

// out [rows, columns] = in [rows, depth] * weight (+ bias) (+ out where `add`); rows begin every in_stride and
// out_stride floats.
void linear(const float* in, int64_t in_stride, int64_t num_rows, const Matrix& matrix, bool add, float* out,
            int64_t out_stride, int num_threads);

}  // namespace rackscale
