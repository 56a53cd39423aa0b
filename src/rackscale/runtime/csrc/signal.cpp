#include "signal.hpp"

#include <ctime>

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace rackscale {
namespace {

constexpr int kSpins = 64;                 // between two looks at the clock
constexpr int64_t kLongestSleep = 100'000'000;  // ns; a lost wake-up costs no more

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

timespec to_timespec(int64_t ns) { return {static_cast<time_t>(ns / 1'000'000'000), static_cast<long>(ns % 1'000'000'000)}; }

// Sleep while the word is `seen`. May wake for no reason.
void sleep_on(std::atomic<uint32_t>* word, uint32_t seen, int64_t ns) {
#ifdef __linux__
  const timespec limit = to_timespec(ns);
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAIT, seen, &limit, nullptr, 0);
#else
  (void)word, (void)seen;
  const timespec nap = to_timespec(ns < 50'000 ? ns : 50'000);
  nanosleep(&nap, nullptr);
#endif
}

void wake(std::atomic<uint32_t>* word) {
#ifdef __linux__
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(word), FUTEX_WAKE, 1, nullptr, nullptr, 0);
#else
  (void)word;
#endif
}

}  // namespace

int64_t now_ns() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1'000'000'000 + time.tv_nsec;
}

void Counter::raise() {
  const uint32_t reached = count.fetch_add(1, std::memory_order_seq_cst) + 1;
  if (sleeping.load(std::memory_order_seq_cst) &&
      static_cast<int32_t>(reached - awaited.load(std::memory_order_relaxed)) >= 0)
    wake(&count);
}

bool Counter::wait(uint32_t target, const Patience& patience) {
  if (reached(target)) return true;
  const int64_t start = now_ns();
  while (now_ns() - start < patience.spin_ns)
    for (int i = 0; i < kSpins; ++i) {
      if (reached(target)) return true;
      pause_briefly();
    }
  awaited.store(target, std::memory_order_relaxed);
  sleeping.store(1, std::memory_order_seq_cst);
  bool done;
  while (true) {
    const uint32_t seen = count.load(std::memory_order_seq_cst);
    done = static_cast<int32_t>(seen - target) >= 0;
    const int64_t left = patience.limit_ns - (now_ns() - start);
    if (done || left <= 0) break;
    sleep_on(&count, seen, left < kLongestSleep ? left : kLongestSleep);
  }
  sleeping.store(0, std::memory_order_relaxed);
  return done;
}

}  // namespace rackscale
