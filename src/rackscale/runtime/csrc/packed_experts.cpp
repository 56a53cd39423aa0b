// Experts with packed weights, in phases that all threads take part in: even one expert is shared among them.
#include <algorithm>

#include "packed_panels.hpp"

namespace rackscale {
namespace {

// An expert that has tokens: those of the slots from `first` on.
struct Hit {
  int64_t expert, first, count;
};

// Tokens sorted by expert; a slot for each token of an expert.
struct Slots {
  std::vector<Hit> hits;
  std::vector<int32_t> tokens;  // [slots]
  std::vector<int32_t> of;      // [T, K]: the slot, -1: none

  Slots(const Routed& routed, int64_t num_experts) : of(static_cast<size_t>(routed.num_tokens * routed.per_token), -1) {
    std::vector<int64_t> next(static_cast<size_t>(num_experts) + 1, 0);
    const int64_t size = routed.num_tokens * routed.per_token;
    for (int64_t i = 0; i < size; ++i)
      if (routed.expert_ids[i] >= 0) ++next[routed.expert_ids[i] + 1];
    for (int64_t n = 0; n < num_experts; ++n) {
      if (next[n + 1]) hits.push_back({n, next[n], next[n + 1]});
      next[n + 1] += next[n];
    }
    tokens.resize(static_cast<size_t>(next[num_experts]));
    for (int64_t i = 0; i < size; ++i)
      if (routed.expert_ids[i] >= 0) {
        of[i] = static_cast<int32_t>(next[routed.expert_ids[i]]++);
        tokens[of[i]] = static_cast<int32_t>(i / routed.per_token);
      }
  }
};

// What a tile costs: its way from memory, or a few tokens.
int64_t cost_of(const Hit& hit) { return 3 + hit.count; }

// A thread's share of the hits' units (tiles, or pairs of them), of each hit as many: run(hit, from, to) for what lies in
// its part of all costs.
template <typename Run>
void shared(const std::vector<Hit>& hits, int64_t units, int64_t thread, int64_t num_threads, Run&& run) {
  int64_t all = 0, before = 0;
  for (const Hit& hit : hits) all += units * cost_of(hit);
  const int64_t begin = all * thread / num_threads, end = all * (thread + 1) / num_threads;
  for (const Hit& hit : hits) {
    const int64_t cost = cost_of(hit);
    const auto unit = [&](int64_t at) { return std::clamp<int64_t>((at - before + cost - 1) / cost, 0, units); };
    const int64_t from = begin <= before ? 0 : unit(begin), to = end <= before ? 0 : unit(end);
    if (from < to) run(hit, from, to);
    before += units * cost;
  }
}

constexpr int64_t kShare = 1 << 17;  // elements of weights that are worth waking a thread for
constexpr int64_t kStretch = 512;    // of a token's columns that are added up at once
constexpr int64_t kTokensAlone = 2;  // that one thread encodes sooner than several wait for each other

// One call's arguments and memory, shared by its threads.
struct Call {
  const Routed& routed;
  const PackedExperts& e;
  const Instructions& set;
  const Slots& slots;
  PanelShape outer, inner;  // of rows into gate and up, and into down
  uint8_t *tokens, *middle_rows;
  float *middle, *results;  // [slots, width], filled up to whole tiles; [slots, hidden]
  double* out;

  int64_t width_tiles() const { return up_to(e.width, kTileRows) / kTileRows; }
  int64_t hidden_tiles() const { return up_to(e.hidden, kTileRows) / kTileRows; }

  void encode_token(int64_t token) const {
    set.encode(routed.rows[token], outer, e.gate_up.input_scale, outer.at(tokens + token * outer.bytes(), 1));
  }
  void encode_middle(int64_t slot) const {
    set.encode(middle + slot * width_tiles() * kTileRows, inner, e.down.input_scale,
               inner.at(middle_rows + slot * inner.bytes(), 1));
  }

  void gate_up(const Hit& hit, int64_t from, int64_t to, Panels& panels, CallMemory& scratch) const {
    const int64_t bytes = tile_bytes(e.gate_up.format, e.hidden), first_tile = hit.expert * 2 * width_tiles();
    const float* bias = e.gate_up_bias ? e.gate_up_bias + hit.expert * 2 * e.width : nullptr;
    const uint8_t* rows[Panels::kMost];
    for (int64_t some = 0; some < hit.count; some += Panels::kMost) {
      const int64_t count = std::min(Panels::kMost, hit.count - some), first = hit.first + some;
      for (int64_t i = 0; i < count; ++i) rows[i] = tokens + slots.tokens[first + i] * outer.bytes();
      panels.fill(rows, count, scratch.of(panels.bytes(count)));
      for (int64_t unit = from; unit < to; ++unit) {
        const int64_t tile = first_tile + 2 * unit, column = unit * kTileRows;
        panels.times(e.gate_up.tiles + tile * bytes, e.gate_up.tile_scales[tile], e.gate_up.tiles + (tile + 1) * bytes,
                     e.gate_up.tile_scales[tile + 1], [&](int64_t at, int64_t num, float* gate, float* up) {
                       for (int64_t m = 0; m < num; ++m, gate += kTileRows, up += kTileRows) {
                         if (bias) {
                           const int64_t size = std::min(kTileRows, e.width - column);
                           put(bias + column, size, nullptr, true, gate);
                           put(bias + e.width + column, size, nullptr, true, up);
                         }
                         set.activate(gate, up, e.clamped, e.alpha, e.limit,
                                      middle + (first + at + m) * width_tiles() * kTileRows + column);
                       }
                     });
      }
    }
  }

  void down(const Hit& hit, int64_t from, int64_t to, Panels& panels, CallMemory& scratch) const {
    const int64_t bytes = tile_bytes(e.down.format, e.width), first_tile = hit.expert * hidden_tiles();
    const float* bias = e.down_bias ? e.down_bias + hit.expert * e.hidden : nullptr;
    const uint8_t* rows[Panels::kMost];
    for (int64_t some = 0; some < hit.count; some += Panels::kMost) {
      const int64_t count = std::min(Panels::kMost, hit.count - some), first = hit.first + some;
      for (int64_t i = 0; i < count; ++i) rows[i] = middle_rows + (first + i) * inner.bytes();
      panels.fill(rows, count, scratch.of(panels.bytes(count)));
      for (int64_t unit = from; unit < to; ++unit) {
        const int64_t tile = first_tile + unit, column = unit * kTileRows;
        const int64_t size = std::min(kTileRows, e.hidden - column);
        panels.times(e.down.tiles + tile * bytes, e.down.tile_scales[tile],
                     [&](int64_t at, int64_t num, const float* result) {
                       for (int64_t m = 0; m < num; ++m)
                         put(result + m * kTileRows, size, bias ? bias + column : nullptr, false,
                             results + (first + at + m) * e.hidden + column);
                     });
      }
    }
  }

  // Products of two floats are exact in doubles: see add_gated() in experts.cpp. In the order of the token's experts.
  void add_up(int64_t token, int64_t column) const {
    const int64_t size = std::min(kStretch, e.hidden - column);
    double* to = out + token * e.hidden + column;
    std::fill(to, to + size, 0.0);
    for (int64_t i = token * routed.per_token; i < (token + 1) * routed.per_token; ++i) {
      if (slots.of[i] < 0) continue;
      const float* from = results + slots.of[i] * e.hidden + column;
      const double gate = routed.gates[i];
      for (int64_t n = 0; n < size; ++n) to[n] += gate * from[n];
    }
  }
};

}  // namespace

void experts(const Routed& routed, const PackedExperts& e, double* out, int num_threads) {
  const Instructions& set = instructions();
  const Slots slots(routed, e.num_experts);
  const int64_t num_slots = static_cast<int64_t>(slots.tokens.size());
  const PanelShape outer{e.gate_up.format, set.kind(e.gate_up.format, e.gate_up.activations), e.hidden};
  const PanelShape inner{e.down.format, set.kind(e.down.format, e.down.activations), e.width};
  const int64_t width = up_to(e.width, kTileRows);

  thread_local CallMemory scratch;
  const int64_t sizes[] = {routed.num_tokens * outer.bytes(), num_slots * inner.bytes(), num_slots * width * 4,
                           num_slots * e.hidden * 4};
  uint8_t* const memory = scratch.of(sizes[0] + sizes[1] + sizes[2] + sizes[3]);
  uint8_t* const middle = memory + sizes[0] + sizes[1];
  const Call call{routed, e, set, slots, outer, inner, memory, memory + sizes[0], reinterpret_cast<float*>(middle),
                  reinterpret_cast<float*>(middle + sizes[2]), out};

  const int64_t shares = std::clamp<int64_t>(3 * e.hidden * e.width * num_slots / kShare, 1, num_threads);
  const bool alone = routed.num_tokens <= kTokensAlone;
  for (int64_t token = 0; alone && token < routed.num_tokens; ++token) call.encode_token(token);

#pragma omp parallel num_threads(static_cast<int>(shares)) if (shares > 1)
  {
    thread_local CallMemory gathered;
    Panels outer_panels(set, outer), inner_panels(set, inner);
    if (!alone) {
#pragma omp for schedule(static)
      for (int64_t token = 0; token < routed.num_tokens; ++token) call.encode_token(token);
    }
#pragma omp for schedule(static)
    for (int64_t share = 0; share < shares; ++share)
      shared(slots.hits, call.width_tiles(), share, shares, [&](const Hit& hit, int64_t from, int64_t to) {
        call.gate_up(hit, from, to, outer_panels, gathered);
      });
#pragma omp for schedule(static)
    for (int64_t slot = 0; slot < num_slots; ++slot) call.encode_middle(slot);
#pragma omp for schedule(static)
    for (int64_t share = 0; share < shares; ++share)
      shared(slots.hits, call.hidden_tiles(), share, shares, [&](const Hit& hit, int64_t from, int64_t to) {
        call.down(hit, from, to, inner_panels, gathered);
      });
#pragma omp for collapse(2) schedule(static)
    for (int64_t token = 0; token < routed.num_tokens; ++token)
      for (int64_t column = 0; column < e.hidden; column += kStretch) call.add_up(token, column);
  }
}

void mlp(const float* in, int64_t in_stride, int64_t num_rows, const Packed& gate_up, const Packed& down, bool add,
         float* out, int64_t out_stride, int num_threads) {
  std::vector<const float*> rows(static_cast<size_t>(num_rows));
  for (int64_t row = 0; row < num_rows; ++row) rows[row] = in + row * in_stride;
  const std::vector<float> gates(static_cast<size_t>(num_rows), 1.0f);
  const std::vector<int32_t> ids(static_cast<size_t>(num_rows), 0);
  std::vector<double> sums(static_cast<size_t>(num_rows * down.columns));
  const PackedExperts one{1, gate_up.depth, down.depth, gate_up, down, nullptr, nullptr, false, 0.0f, 0.0f};
  experts({rows.data(), gates.data(), ids.data(), num_rows, 1}, one, sums.data(), num_threads);
  for (int64_t row = 0; row < num_rows; ++row)
    for (int64_t i = 0; i < down.columns; ++i) {
      const float value = static_cast<float>(sums[row * down.columns + i]);
      float& to = out[row * out_stride + i];
      to = add ? to + value : value;
    }
}

}  // namespace rackscale
