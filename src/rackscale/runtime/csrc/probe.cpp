// What this machine can do at most, measured beside the kernels: reading memory, and multiplying small integers or bf16.
#include "probe.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "portable.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace rackscale {
namespace {

typedef uint64_t u64x4 __attribute__((vector_size(32), aligned(8), may_alias));

constexpr int64_t kStripe = 128;  // bytes that are read at once

// The sum of `size` bytes as words.
RACKSCALE_CLONES uint64_t read(const char* from, int64_t size) {
  u64x4 sums[4] = {};
  for (int64_t i = 0; i < size; i += kStripe) {
    const u64x4* x = reinterpret_cast<const u64x4*>(from + i);
    sums[0] += x[0];
    sums[1] += x[1];
    sums[2] += x[2];
    sums[3] += x[3];
  }
  const u64x4 sum = sums[0] + sums[1] + sums[2] + sums[3];
  return sum[0] + sum[1] + sum[2] + sum[3];
}

// Of the slowest thread, from when all had begun: a new one may have to wait for a processor.
template <typename Work>
double seconds(int num_threads, Work&& work) {
  std::atomic<int> begun{0};
  std::vector<double> taken(static_cast<size_t>(num_threads));
  const auto run = [&](int thread) {
    ++begun;
    while (begun < num_threads) continue;
    const auto begin = std::chrono::steady_clock::now();
    work(thread);
    taken[static_cast<size_t>(thread)] =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  std::vector<std::thread> threads;
  for (int thread = 1; thread < num_threads; ++thread) threads.emplace_back(run, thread);
  run(0);
  for (std::thread& thread : threads) thread.join();
  return *std::max_element(taken.begin(), taken.end());
}

#if defined(__x86_64__) && defined(__GNUC__)
constexpr int64_t kRounds = 20'000'000;
constexpr int kChains = 10;  // sums at once: enough to hide a product's latency
// Unrolled, and with a copy of the sum for the assembler: else the sums would be written to memory.
#define RACKSCALE_EACH_CHAIN _Pragma("GCC unroll 16") for (int i = 0; i < kChains; ++i)

// Operations (a product and a sum are two) of all rounds.
__attribute__((target("avx2"))) double multiply_avx2() {
  __m256i sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm256_set1_epi8(static_cast<char>(i));
  const __m256i factor = _mm256_set1_epi8(1);
  for (int64_t round = 0; round < kRounds; ++round)
    RACKSCALE_EACH_CHAIN {
      __m256i sum = sums[i];
      __asm__ volatile("vpmaddubsw %1, %0, %0" : "+x"(sum) : "x"(factor));
      sums[i] = sum;
    }
  return 2.0 * 32 * kChains * kRounds;
}
__attribute__((target("avx512f,avx512vnni"))) double multiply_int8() {
  __m512i sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_epi32(i);
  const __m512i factor = _mm512_set1_epi8(1);
  for (int64_t round = 0; round < kRounds; ++round)
    RACKSCALE_EACH_CHAIN {
      __m512i sum = sums[i];
      __asm__ volatile("vpdpbusd %1, %1, %0" : "+v"(sum) : "v"(factor));
      sums[i] = sum;
    }
  return 2.0 * 64 * kChains * kRounds;
}
__attribute__((target("avx512f,avx512bf16"))) double multiply_bf16() {
  __m512i sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm512_set1_epi32(0x3f803f80);
  const __m512i factor = _mm512_set1_epi32(0x3f803f80);
  for (int64_t round = 0; round < kRounds; ++round)
    RACKSCALE_EACH_CHAIN {
      __m512i sum = sums[i];
      __asm__ volatile("vdpbf16ps %1, %1, %0" : "+v"(sum) : "v"(factor));
      sums[i] = sum;
    }
  return 2.0 * 32 * kChains * kRounds;
}
__attribute__((target("avx2,fma"))) double multiply_fp32() {
  __m256 sums[kChains];
  for (int i = 0; i < kChains; ++i) sums[i] = _mm256_set1_ps(1.0f);
  const __m256 factor = _mm256_set1_ps(0.5f);
  for (int64_t round = 0; round < kRounds; ++round)
    RACKSCALE_EACH_CHAIN {
      __m256 sum = sums[i];
      __asm__ volatile("vfmadd231ps %1, %1, %0" : "+x"(sum) : "x"(factor));
      sums[i] = sum;
    }
  return 2.0 * 8 * kChains * kRounds;
}
#endif

}  // namespace

double read_bandwidth(const void* memory, int64_t size, int num_threads) {
  std::vector<uint64_t> kept(static_cast<size_t>(num_threads));
  const int64_t each = size / num_threads / kStripe * kStripe;
  const double taken = seconds(num_threads, [&](int thread) {
    kept[static_cast<size_t>(thread)] = read(static_cast<const char*>(memory) + thread * each, each);
  });
  volatile uint64_t sink = 0;
  for (const uint64_t value : kept) sink = sink + value;
  return static_cast<double>(each * num_threads) / taken;
}

double peak(Peak what, int num_threads) {
#if defined(__x86_64__) && defined(__GNUC__)
  const bool wide = __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 0.0;
  const auto multiply = what == Peak::kInt8 ? (wide ? multiply_int8 : multiply_avx2)
                                            : (wide ? multiply_bf16 : multiply_fp32);
  double operations = 0.0;
  const double taken = seconds(num_threads, [&](int thread) {
    const double done = multiply();
    if (thread == 0) operations = done;
  });
  return operations * num_threads / taken;
#else
  (void)what;
  (void)num_threads;
  return 0.0;
#endif
}

}  // namespace rackscale
