// Ranks that share an attention: each has a part of every sum, and all need the whole.
#pragma once

#include <cstdint>
#include <vector>

#include "signal.hpp"

namespace rackscale {

// One member's end. All members call `all_reduce` with equal counts, in the same order.
class Team {
 public:
  // capacity: floats that are exchanged at once; longer sums go in pieces.
  static int64_t segment_bytes(int64_t capacity);

  // segments: of all members, in order, zeroed before the first begins.
  Team(int64_t index, int64_t capacity, std::vector<char*> segments, Patience patience);

  // The sum over the members in their order, so that all have the same bits. Throws std::runtime_error after the
  // limit, or where memory holds nonsense.
  void all_reduce(float* values, int64_t count);

  // Nanoseconds spent waiting for other members and copying, and bytes that they were given, since the last look.
  struct Times {
    int64_t wait_ns, copy_ns, copied_bytes;
  };
  Times take_times();

 private:
  struct Box;  // the head of a buffer

  Box& box(int64_t member) const;
  void exchange(float* values, int64_t count);

  int64_t index_, capacity_;
  std::vector<char*> segments_;
  Patience patience_;
  uint32_t round_ = 0;
  Times times_{};
};

}  // namespace rackscale
