// What this machine can do at most; for benches.
#pragma once

#include <cstdint>

namespace rackscale {

// Bytes a second, reading memory from end to end by so many threads.
double read_bandwidth(const void* memory, int64_t size, int num_threads);

// kInt8: vpdpbusd, or vpmaddubsw where that is missing. kBf16: vdpbf16ps, or fp32's vfmadd.
enum class Peak : int32_t { kInt8, kBf16 };

// Operations a second, a product and a sum being two; 0: not known on this machine.
double peak(Peak what, int num_threads);

}  // namespace rackscale
