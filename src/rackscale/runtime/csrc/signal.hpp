// Counters in shared memory that one process waits on and others raise.
#pragma once

#include <atomic>
#include <cstdint>

namespace rackscale {

// How a wait goes: spin first, where the others have cores of their own; then sleep; after the limit give up.
struct Patience {
  int64_t spin_ns, limit_ns;
};

// Raised by several processes, awaited by one. Counts wrap; what is awaited is at most 2^30 ahead. Zeroed memory is a
// counter at 0 that nobody waits for.
struct alignas(64) Counter {
  std::atomic<uint32_t> count;
  std::atomic<uint32_t> awaited;  // the count at which a sleeper wants to be woken
  std::atomic<uint32_t> sleeping;

  // Everything written before is seen by who has waited for this.
  void raise();
  // Until the count has reached `target`. False: it did not within the limit.
  bool wait(uint32_t target, const Patience& patience);
  bool reached(uint32_t target) const {
    return static_cast<int32_t>(count.load(std::memory_order_acquire) - target) >= 0;
  }
};

// Nanoseconds of a clock that never goes back.
int64_t now_ns();

}  // namespace rackscale
