// Tokens to the ranks of their experts and back, through memory that all ranks of a domain have mapped.
//
// Every rank has a segment that the others write to: for each source a box for its tokens, and for each destination a
// box for what came of them there. A token goes once to each rank that has any of its experts, with the ids and gates
// of those; one sum comes back from each. A round is: dispatch, receive, combine, collect. A rank takes part in every
// round, with no tokens if it has none, so nobody needs to be told that a box is free: a source writes to a box again
// only after it has collected what came of the last contents.
#pragma once

#include <cstdint>
#include <vector>

#include "signal.hpp"

namespace rackscale {

enum class Wire { kFp32, kBf16, kFp8, kFp64 };  // fp8: e4m3 with one fp32 scale for every 128 elements

// Bytes of a row of `width` elements, a multiple of 64.
int64_t row_bytes(Wire wire, int64_t width);
void encode_row(Wire wire, const float* from, int64_t width, void* to);
void decode_row(Wire wire, const void* from, int64_t width, float* to);
// to += the row
void add_row(Wire wire, const void* from, int64_t width, float* to);

struct Domain {
  int64_t rank, num_ranks, hidden, top_k;
  int64_t capacity;  // tokens of one rank in one round
  Wire dispatch, combine;
};

// What a rank has to compute in a round, sources in order: rows [N] of `hidden` floats each; expert_ids and gates
// [N, K], id -1 where a token has fewer than K experts here.
struct Received {
  std::vector<const float*> rows;
  std::vector<int32_t> expert_ids;
  std::vector<float> gates;
  int64_t count() const { return static_cast<int64_t>(rows.size()); }
};

// Where time went since the last look.
struct Times {
  int64_t wait_ns, copy_ns, copied_bytes;
};

class AllToAll {
 public:
  static int64_t segment_bytes(const Domain& domain);

  // segments: of all ranks, in order, zeroed before the first rank begins.
  AllToAll(const Domain& domain, std::vector<char*> segments, Patience patience);

  // Which ranks have copies of a layer's experts: ranks [E, most], of which counts[e] are valid; none where no token
  // will ask for the expert.
  void place(int64_t layer, int64_t num_experts, int64_t most, const int32_t* ranks, const int32_t* counts);

  // hidden [T, hidden], expert_ids and gates [T, K]; an id of -1 is nobody's. Must stay until `collect`.
  void dispatch(int64_t layer, const float* hidden, const int32_t* expert_ids, const float* gates, int64_t num_tokens);
  // Waits for all sources. Throws std::runtime_error after the limit, or where memory holds nonsense.
  const Received& receive();
  // sums [N, hidden]: of each received token the gated sum of its experts here. Must stay until `collect`.
  void combine(const float* sums);
  // The same in doubles, for a `combine` wire of fp64: out is then the same whichever ranks had the experts.
  void combine(const double* sums);
  // Waits for all destinations; out [T, hidden], of a token the sum of what came back, by rank.
  void collect(float* out);
  bool is_exact() const { return domain_.combine == Wire::kFp64; }

  const Received& received() const { return received_; }
  Times take_times();
  const Domain& domain() const { return domain_; }

 private:
  struct Placed {
    int64_t most;
    std::vector<int32_t> ranks, counts;
  };
  struct Box;  // the head of a source's box

  char* source_box(int64_t owner, int64_t source) const;
  char* result_box(int64_t owner, int64_t destination) const;
  void wait(Counter& counter, const char* what);
  void collect_exact(float* out);

  Domain domain_;
  std::vector<char*> segments_;
  Patience patience_;
  std::vector<Placed> placed_;
  uint32_t round_ = 0;
  const float* hidden_ = nullptr;
  const float* sums_ = nullptr;
  const double* exact_sums_ = nullptr;
  int64_t num_tokens_ = 0;
  std::vector<std::vector<int32_t>> sent_;      // by destination: the tokens, in order
  std::vector<int32_t> own_ids_;                // of tokens that stay here
  std::vector<float> own_gates_;
  std::vector<int64_t> num_from_;               // by source
  std::vector<float> widened_;                  // rows that came in a narrow format
  Received received_;
  Times times_{};
};

}  // namespace rackscale
