#include "all_to_all.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include "kernels.hpp"
#include "portable.hpp"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace rackscale {
namespace {

constexpr int64_t kLine = 64;
constexpr int64_t kScaled = 128;         // elements that share a scale
constexpr float kLargest = 448.0f;       // of e4m3
constexpr uint8_t kNoNumber = 0x7f;
constexpr float kSmallestScale = 0x1p-126f;  // whose inverse is finite
constexpr float kSmallestNormal = 0x1p-6f;  // of e4m3
constexpr float kInSubnormals = 0x1p14f;    // the float whose last bit is worth e4m3's smallest, 2^-9
constexpr float kFromSubnormal = 0x1p120f;  // takes fp32's lowest exponents to e4m3's

int64_t lines(int64_t bytes) { return (bytes + kLine - 1) / kLine * kLine; }
int64_t num_scales(int64_t width) { return (width + kScaled - 1) / kScaled; }

template <typename To, typename From>
RACKSCALE_INLINE To bits_of(From value) {
  To bits;
  static_assert(sizeof(To) == sizeof(From));
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

RACKSCALE_INLINE bool is_no_number(uint32_t bits) { return (bits & 0x7fffffff) > 0x7f800000; }

// The nearest, ties to even.
RACKSCALE_INLINE uint16_t to_bf16(float value) {
  const uint32_t bits = bits_of<uint32_t>(value);
  if (is_no_number(bits)) return 0x7fc0;
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// The nearest, ties to even; beyond the largest it is the largest.
RACKSCALE_INLINE uint8_t to_e4m3(float value) {
  const uint32_t bits = bits_of<uint32_t>(value);
  const float magnitude = std::min(bits_of<float>(bits & 0x7fffffff), kLargest);
  const uint32_t wide = bits_of<uint32_t>(magnitude);
  const uint32_t normal = (wide - (120u << 23) + 0x7ffff + (wide >> 20 & 1)) >> 20;
  const uint32_t subnormal = bits_of<uint32_t>(magnitude + kInSubnormals) - bits_of<uint32_t>(kInSubnormals);
  const uint32_t code = magnitude < kSmallestNormal ? subnormal : normal;
  return is_no_number(bits) ? kNoNumber : static_cast<uint8_t>((bits >> 24 & 0x80) | code);
}

RACKSCALE_INLINE float from_e4m3(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80) << 24;
  const float magnitude = bits_of<float>(static_cast<uint32_t>(code & 0x7f) << 20) * kFromSubnormal;
  if ((code & 0x7f) == kNoNumber) return bits_of<float>(0x7fc00000u);
  return bits_of<float>(bits_of<uint32_t>(magnitude) | sign);
}

RACKSCALE_CLONES void encode_bf16(const float* from, int64_t width, uint16_t* to) {
  for (int64_t i = 0; i < width; ++i) to[i] = to_bf16(from[i]);
}

// Scales first, then codes. What is not a number stays so; an infinity makes all that share its scale not numbers.
RACKSCALE_CLONES void encode_fp8(const float* from, int64_t width, char* to) {
  float* scales = reinterpret_cast<float*>(to);
  uint8_t* codes = reinterpret_cast<uint8_t*>(to + lines(num_scales(width) * 4));
  for (int64_t start = 0; start < width; start += kScaled) {
    const int64_t end = std::min(width, start + kScaled);
    float largest = 0;
    for (int64_t i = start; i < end; ++i) largest = std::max(largest, std::fabs(from[i]));
    const float scale = std::max(largest / kLargest, kSmallestScale), inverse = 1.0f / scale;
    scales[start / kScaled] = scale;
    for (int64_t i = start; i < end; ++i) codes[i] = to_e4m3(from[i] * inverse);
  }
}

template <bool Add>
RACKSCALE_INLINE void decode_bf16(const uint16_t* from, int64_t width, float* to) {
  for (int64_t i = 0; i < width; ++i) to[i] = Add ? to[i] + widen(from[i]) : widen(from[i]);
}

template <bool Add>
RACKSCALE_INLINE void decode_fp8(const char* from, int64_t width, float* to) {
  const float* scales = reinterpret_cast<const float*>(from);
  const uint8_t* codes = reinterpret_cast<const uint8_t*>(from + lines(num_scales(width) * 4));
  for (int64_t start = 0; start < width; start += kScaled)
    for (int64_t i = start; i < std::min(width, start + kScaled); ++i) {
      const float value = from_e4m3(codes[i]) * scales[start / kScaled];
      to[i] = Add ? to[i] + value : value;
    }
}

RACKSCALE_CLONES void put_bf16(const uint16_t* from, int64_t width, float* to) { decode_bf16<false>(from, width, to); }
RACKSCALE_CLONES void add_bf16(const uint16_t* from, int64_t width, float* to) { decode_bf16<true>(from, width, to); }
RACKSCALE_CLONES void put_fp8(const char* from, int64_t width, float* to) { decode_fp8<false>(from, width, to); }
RACKSCALE_CLONES void add_fp8(const char* from, int64_t width, float* to) { decode_fp8<true>(from, width, to); }
RACKSCALE_CLONES void add_fp32(const float* from, int64_t width, float* to) { add_scaled(to, from, 1.0f, width); }
RACKSCALE_CLONES void sum_fp32(const float* a, const float* b, int64_t width, float* to) {
  for (int64_t i = 0; i < width; ++i) to[i] = a[i] + b[i];
}

// Past the caches: what is written is then not read from memory first, and does not displace what is in use. Worth it
// where a round's rows are more than the caches hold. `to` begins at a multiple of 16 bytes.
constexpr int64_t kStreamed = 4 << 20;

#if defined(__SSE2__)
void stream(const float* from, int64_t width, float* to) {
  int64_t i = 0;
  for (; i + 4 <= width; i += 4) _mm_stream_ps(to + i, _mm_loadu_ps(from + i));
  for (; i < width; ++i) to[i] = from[i];
}

void stream_sum(const float* a, const float* b, int64_t width, float* to) {
  int64_t i = 0;
  for (; i + 4 <= width; i += 4) _mm_stream_ps(to + i, _mm_add_ps(_mm_loadu_ps(a + i), _mm_loadu_ps(b + i)));
  for (; i < width; ++i) to[i] = a[i] + b[i];
}

void end_streams() { _mm_sfence(); }
#else
void stream(const float* from, int64_t width, float* to) { std::copy_n(from, width, to); }
void stream_sum(const float* a, const float* b, int64_t width, float* to) { sum_fp32(a, b, width, to); }
void end_streams() {}
#endif

// The sum of rows, in their order. streams: past the caches where it is made in one go.
void add_up(const std::vector<std::pair<Wire, const char*>>& parts, int64_t width, float* to, bool streams) {
  if (parts.empty()) {
    std::fill_n(to, width, 0.0f);
    return;
  }
  const auto& [wire, first] = parts[0];
  const bool pair = parts.size() > 1 && wire == Wire::kFp32 && parts[1].first == Wire::kFp32;
  if (pair) {
    (streams && parts.size() == 2 ? stream_sum : sum_fp32)(reinterpret_cast<const float*>(first),
                                                           reinterpret_cast<const float*>(parts[1].second), width, to);
  } else {
    decode_row(wire, first, width, to);
  }
  for (size_t n = pair ? 2 : 1; n < parts.size(); ++n) add_row(parts[n].first, parts[n].second, width, to);
}

// A token's share of a destination's experts.
struct Choice {
  int32_t expert;
  float gate;
};

struct SegmentHead {
  Counter dispatched, combined;
};

constexpr int64_t kHead = 4096;
static_assert(sizeof(SegmentHead) <= kHead);

SegmentHead& head(char* segment) { return *reinterpret_cast<SegmentHead*>(segment); }

int64_t choice_bytes(const Domain& d) { return lines(d.top_k * static_cast<int64_t>(sizeof(Choice))); }
int64_t source_box_bytes(const Domain& d) {
  return kLine + d.capacity * (row_bytes(d.dispatch, d.hidden) + choice_bytes(d));
}
int64_t result_box_bytes(const Domain& d) { return d.capacity * row_bytes(d.combine, d.hidden); }

}  // namespace

int64_t row_bytes(Wire wire, int64_t width) {
  switch (wire) {
    case Wire::kFp32:
      return lines(width * 4);
    case Wire::kFp64:
      return lines(width * 8);
    case Wire::kBf16:
      return lines(width * 2);
    default:
      return lines(num_scales(width) * 4) + lines(width);
  }
}

void encode_row(Wire wire, const float* from, int64_t width, void* to) {
  switch (wire) {
    case Wire::kFp32:
      std::memcpy(to, from, static_cast<size_t>(width) * sizeof(float));
      break;
    case Wire::kBf16:
      encode_bf16(from, width, static_cast<uint16_t*>(to));
      break;
    default:
      encode_fp8(from, width, static_cast<char*>(to));
  }
}

void decode_row(Wire wire, const void* from, int64_t width, float* to) {
  switch (wire) {
    case Wire::kFp32:
      std::memcpy(to, from, static_cast<size_t>(width) * sizeof(float));
      break;
    case Wire::kBf16:
      put_bf16(static_cast<const uint16_t*>(from), width, to);
      break;
    default:
      put_fp8(static_cast<const char*>(from), width, to);
  }
}

void add_row(Wire wire, const void* from, int64_t width, float* to) {
  switch (wire) {
    case Wire::kFp32:
      add_fp32(static_cast<const float*>(from), width, to);
      break;
    case Wire::kBf16:
      add_bf16(static_cast<const uint16_t*>(from), width, to);
      break;
    default:
      add_fp8(static_cast<const char*>(from), width, to);
  }
}

struct AllToAll::Box {
  uint32_t count, round;
};

int64_t AllToAll::segment_bytes(const Domain& d) {
  return kHead + d.num_ranks * (source_box_bytes(d) + result_box_bytes(d));
}

AllToAll::AllToAll(const Domain& domain, std::vector<char*> segments, Patience patience)
    : domain_(domain), segments_(std::move(segments)), patience_(patience), sent_(domain.num_ranks),
      num_from_(domain.num_ranks) {}

char* AllToAll::source_box(int64_t owner, int64_t source) const {
  return segments_[owner] + kHead + source * source_box_bytes(domain_);
}

char* AllToAll::result_box(int64_t owner, int64_t destination) const {
  return segments_[owner] + kHead + domain_.num_ranks * source_box_bytes(domain_) +
         destination * result_box_bytes(domain_);
}

void AllToAll::place(int64_t layer, int64_t num_experts, int64_t most, const int32_t* ranks, const int32_t* counts) {
  if (static_cast<int64_t>(placed_.size()) <= layer) placed_.resize(layer + 1);
  for (int64_t expert = 0; expert < num_experts; ++expert) {
    if (counts[expert] < 0 || counts[expert] > most) throw std::invalid_argument("more copies than ranks are named");
    for (int64_t n = 0; n < counts[expert]; ++n)
      if (ranks[expert * most + n] < 0 || ranks[expert * most + n] >= domain_.num_ranks)
        throw std::invalid_argument("a copy is on a rank that is not there");
  }
  placed_[layer] = {most, {ranks, ranks + num_experts * most}, {counts, counts + num_experts}};
}

void AllToAll::dispatch(int64_t layer, const float* hidden, const int32_t* expert_ids, const float* gates,
                        int64_t num_tokens) {
  const int64_t start = now_ns();
  const Domain& d = domain_;
  if (num_tokens > d.capacity) throw std::invalid_argument("more tokens than a box holds");
  const Placed& placed = placed_.at(layer);
  const int64_t stride = row_bytes(d.dispatch, d.hidden);
  const bool streams = d.dispatch == Wire::kFp32 && num_tokens * stride >= kStreamed;
  hidden_ = hidden;
  num_tokens_ = num_tokens;
  ++round_;
  for (auto& tokens : sent_) tokens.clear();
  own_ids_.clear();
  own_gates_.clear();
  std::vector<int64_t> used(d.num_ranks);  // choices of the destination's last token
  for (int64_t token = 0; token < num_tokens; ++token)
    for (int64_t k = 0; k < d.top_k; ++k) {
      const int32_t expert = expert_ids[token * d.top_k + k];
      if (expert < 0) continue;
      if (expert >= static_cast<int64_t>(placed.counts.size()) || placed.counts[expert] == 0)
        throw std::invalid_argument("expert " + std::to_string(expert) + " has no copy");
      // Copies take turns, by token; ranks begin with different ones.
      const int32_t to = placed.ranks[expert * placed.most + (d.rank + token) % placed.counts[expert]];
      auto& tokens = sent_[to];
      const bool first = tokens.empty() || tokens.back() != token;
      if (first) {
        tokens.push_back(static_cast<int32_t>(token));
        used[to] = 0;
      }
      const int64_t at = static_cast<int64_t>(tokens.size()) - 1, slot = used[to]++;
      if (to == d.rank) {
        if (first) {
          own_ids_.insert(own_ids_.end(), d.top_k, -1);
          own_gates_.insert(own_gates_.end(), d.top_k, 0.0f);
        }
        own_ids_[at * d.top_k + slot] = expert;
        own_gates_[at * d.top_k + slot] = gates[token * d.top_k + k];
        continue;
      }
      char* const rows = source_box(to, d.rank) + kLine;
      Choice* choices = reinterpret_cast<Choice*>(rows + d.capacity * stride + at * choice_bytes(d));
      if (first) {
        const float* const row = hidden + token * d.hidden;
        if (streams) {
          stream(row, d.hidden, reinterpret_cast<float*>(rows + at * stride));
        } else {
          encode_row(d.dispatch, row, d.hidden, rows + at * stride);
        }
        for (int64_t n = 0; n < d.top_k; ++n) choices[n].expert = -1;
        times_.copied_bytes += stride;
      }
      choices[slot] = {expert, gates[token * d.top_k + k]};
    }
  if (streams) end_streams();
  for (int64_t step = 1; step < d.num_ranks; ++step) {
    const int64_t to = (d.rank + step) % d.num_ranks;
    *reinterpret_cast<Box*>(source_box(to, d.rank)) = {static_cast<uint32_t>(sent_[to].size()), round_};
    head(segments_[to]).dispatched.raise();
  }
  times_.copy_ns += now_ns() - start;
}

void AllToAll::wait(Counter& counter, const char* what) {
  const int64_t start = now_ns();
  const bool done = counter.wait(round_ * static_cast<uint32_t>(domain_.num_ranks - 1), patience_);
  times_.wait_ns += now_ns() - start;
  if (!done)
    throw std::runtime_error("rank " + std::to_string(domain_.rank) + " waited in vain for other ranks to " + what +
                             " in round " + std::to_string(round_));
}

const Received& AllToAll::receive() {
  const Domain& d = domain_;
  wait(head(segments_[d.rank]).dispatched, "dispatch");
  const int64_t stride = row_bytes(d.dispatch, d.hidden);
  const int64_t num_experts = static_cast<int64_t>(placed_[0].counts.size());
  received_.rows.clear();
  received_.expert_ids.clear();
  received_.gates.clear();
  int64_t total = 0;
  for (int64_t source = 0; source < d.num_ranks; ++source) {
    if (source == d.rank) {
      num_from_[source] = static_cast<int64_t>(sent_[source].size());
    } else {
      const Box box = *reinterpret_cast<const Box*>(source_box(d.rank, source));
      if (box.round != round_ || box.count > d.capacity)
        throw std::runtime_error("shared memory is corrupt: the box of rank " + std::to_string(source));
      num_from_[source] = box.count;
      total += box.count;
    }
  }
  if (d.dispatch != Wire::kFp32) widened_.resize(static_cast<size_t>(total * d.hidden));
  float* wide = widened_.data();
  for (int64_t source = 0; source < d.num_ranks; ++source) {
    if (source == d.rank) {
      for (const int32_t token : sent_[source]) received_.rows.push_back(hidden_ + token * d.hidden);
      received_.expert_ids.insert(received_.expert_ids.end(), own_ids_.begin(), own_ids_.end());
      received_.gates.insert(received_.gates.end(), own_gates_.begin(), own_gates_.end());
      continue;
    }
    const char* rows = source_box(d.rank, source) + kLine;
    for (int64_t at = 0; at < num_from_[source]; ++at) {
      if (d.dispatch == Wire::kFp32) {
        received_.rows.push_back(reinterpret_cast<const float*>(rows + at * stride));
      } else {
        decode_row(d.dispatch, rows + at * stride, d.hidden, wide);
        received_.rows.push_back(wide);
        wide += d.hidden;
      }
      const Choice* choices = reinterpret_cast<const Choice*>(rows + d.capacity * stride + at * choice_bytes(d));
      for (int64_t k = 0; k < d.top_k; ++k) {
        if (choices[k].expert < -1 || choices[k].expert >= num_experts)
          throw std::runtime_error("shared memory is corrupt: an expert of rank " + std::to_string(source));
        received_.expert_ids.push_back(choices[k].expert);
        received_.gates.push_back(choices[k].expert < 0 ? 0.0f : choices[k].gate);
      }
    }
  }
  return received_;
}

void AllToAll::combine(const float* sums) {
  const int64_t start = now_ns();
  const Domain& d = domain_;
  const int64_t stride = row_bytes(d.combine, d.hidden);
  sums_ = sums;
  std::vector<int64_t> first(d.num_ranks, 0);
  for (int64_t source = 1; source < d.num_ranks; ++source) first[source] = first[source - 1] + num_from_[source - 1];
  for (int64_t step = 1; step < d.num_ranks; ++step) {
    const int64_t source = (d.rank + step) % d.num_ranks;
    char* const rows = result_box(source, d.rank);
    const bool streams = d.combine == Wire::kFp32 && num_from_[source] * stride >= kStreamed;
    for (int64_t at = 0; at < num_from_[source]; ++at) {
      const float* const row = sums + (first[source] + at) * d.hidden;
      if (streams) {
        stream(row, d.hidden, reinterpret_cast<float*>(rows + at * stride));
      } else {
        encode_row(d.combine, row, d.hidden, rows + at * stride);
      }
    }
    if (streams) end_streams();
    times_.copied_bytes += num_from_[source] * stride;
    head(segments_[source]).combined.raise();
  }
  times_.copy_ns += now_ns() - start;
}

void AllToAll::combine(const double* sums) {
  const int64_t start = now_ns();
  const Domain& d = domain_;
  const int64_t stride = row_bytes(d.combine, d.hidden);
  exact_sums_ = sums;
  for (int64_t source = 0; source < d.num_ranks; ++source) {
    const int64_t count = num_from_[source];
    if (source != d.rank) {
      char* const rows = result_box(source, d.rank);
      for (int64_t at = 0; at < count; ++at)
        std::memcpy(rows + at * stride, sums + at * d.hidden, static_cast<size_t>(d.hidden) * sizeof(double));
      times_.copied_bytes += count * stride;
      head(segments_[source]).combined.raise();
    }
    sums += count * d.hidden;
  }
  times_.copy_ns += now_ns() - start;
}

// The same as `collect`, in doubles and rounded once.
void AllToAll::collect_exact(float* out) {
  const Domain& d = domain_;
  const int64_t stride = row_bytes(d.combine, d.hidden);
  std::vector<const double*> rows(d.num_ranks);
  std::vector<size_t> taken(d.num_ranks, 0);
  for (int64_t from = 0; from < d.num_ranks; ++from) rows[from] = reinterpret_cast<const double*>(result_box(d.rank, from));
  rows[d.rank] = exact_sums_;
  for (int64_t source = 0; source < d.rank; ++source) rows[d.rank] += num_from_[source] * d.hidden;
  std::vector<double> sum(static_cast<size_t>(d.hidden));
  for (int64_t token = 0; token < num_tokens_; ++token, out += d.hidden) {
    std::fill(sum.begin(), sum.end(), 0.0);
    for (int64_t from = 0; from < d.num_ranks; ++from) {
      if (taken[from] == sent_[from].size() || sent_[from][taken[from]] != token) continue;
      ++taken[from];
      for (int64_t i = 0; i < d.hidden; ++i) sum[i] += rows[from][i];
      rows[from] += from == d.rank ? d.hidden : stride / static_cast<int64_t>(sizeof(double));
    }
    to_floats(sum.data(), d.hidden, out);
  }
}

void AllToAll::collect(float* out) {
  const Domain& d = domain_;
  wait(head(segments_[d.rank]).combined, "combine");
  const int64_t start = now_ns();
  if (is_exact()) {
    collect_exact(out);
    times_.copy_ns += now_ns() - start;
    return;
  }
  const int64_t stride = row_bytes(d.combine, d.hidden);
  std::vector<const char*> rows(d.num_ranks);  // what came from each rank and is not yet in a sum
  std::vector<size_t> taken(d.num_ranks, 0);
  for (int64_t from = 0; from < d.num_ranks; ++from) rows[from] = result_box(d.rank, from);
  rows[d.rank] = reinterpret_cast<const char*>(sums_);  // begins with what is for the ranks before this one
  const int64_t own_stride = d.hidden * static_cast<int64_t>(sizeof(float));
  for (int64_t source = 0; source < d.rank; ++source) rows[d.rank] += num_from_[source] * own_stride;
  const bool streams = num_tokens_ * own_stride >= kStreamed && own_stride % 16 == 0 &&
                       reinterpret_cast<uintptr_t>(out) % 16 == 0;
  std::vector<std::pair<Wire, const char*>> parts;
  // By token, so that a sum stays in the cache until it is complete.
  for (int64_t token = 0; token < num_tokens_; ++token, out += d.hidden) {
    parts.clear();
    for (int64_t from = 0; from < d.num_ranks; ++from) {
      if (taken[from] == sent_[from].size() || sent_[from][taken[from]] != token) continue;
      ++taken[from];
      parts.push_back({from == d.rank ? Wire::kFp32 : d.combine, rows[from]});
      rows[from] += from == d.rank ? own_stride : stride;
    }
    add_up(parts, d.hidden, out, streams);
  }
  if (streams) end_streams();
  times_.copy_ns += now_ns() - start;
}

Times AllToAll::take_times() {
  const Times taken = times_;
  times_ = {};
  return taken;
}

}  // namespace rackscale
