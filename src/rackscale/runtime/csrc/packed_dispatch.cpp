// Which instruction set the packed kernels use.
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "packed_kernels.hpp"

namespace rackscale {
namespace {

bool has(const char* name) {
#if defined(__x86_64__)
#if defined(RACKSCALE_HAS_AVX512)
  if (!std::strcmp(name, "avx512"))
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("avx512bf16");
#endif
#if defined(RACKSCALE_HAS_AVX2)
  // F16C is in every processor that has AVX2.
  if (!std::strcmp(name, "avx2")) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
#endif
  return !std::strcmp(name, "portable");
}

const Instructions* named(const char* name) {
#if defined(RACKSCALE_HAS_AVX512)
  if (!std::strcmp(name, "avx512")) return &kAvx512;
#endif
#if defined(RACKSCALE_HAS_AVX2)
  if (!std::strcmp(name, "avx2")) return &kAvx2;
#endif
  return &kPortable;
}

const Instructions* best() {
  const char* wanted = std::getenv("RACKSCALE_ISA");
  if (wanted && has(wanted)) return named(wanted);
  for (const char* name : {"avx512", "avx2"})
    if (has(name)) return named(name);
  return &kPortable;
}

const Instructions*& chosen() {
  static const Instructions* set = best();
  return set;
}

}  // namespace

const Instructions& instructions() { return *chosen(); }

void set_instructions(const char* name) {
  if (!has(name)) throw std::invalid_argument(std::string("this machine does not have ") + name);
  chosen() = named(name);
}

}  // namespace rackscale
