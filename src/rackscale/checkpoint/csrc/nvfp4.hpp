// NVFP4 out of fp32 or bf16, as ModelOpt rounds; see checkpoint/codecs for the format.
#pragma once

#include <cstdint>

#include "portable.hpp"

namespace rackscale {

constexpr int64_t kBlock = 16;

// Rows of a matrix, stride elements from one to the next.
template <typename W>
struct Rows {
  const W* first;
  int64_t num_rows, depth, stride;
};

// Sums of squares over a matrix: of what rounding changed, and of what it was.
struct Squares {
  double error, weight;
};

// The largest magnitude. Infinite or NaN where one of the numbers is.
float largest(const Rows<float>& rows);
float largest(const Rows<bf16>& rows);

// codes: [num_rows, depth / 2], scales: [num_rows, depth / 16]. tensor_scale above 0, depth a multiple of 16.
void encode_nvfp4(const Rows<float>& rows, float tensor_scale, uint8_t* codes, uint8_t* scales);
void encode_nvfp4(const Rows<bf16>& rows, float tensor_scale, uint8_t* codes, uint8_t* scales);

// The rows against what codes and scales of any NVFP4 encoder stand for.
Squares compare_nvfp4(const Rows<float>& rows, float tensor_scale, const uint8_t* codes, const uint8_t* scales);
Squares compare_nvfp4(const Rows<bf16>& rows, float tensor_scale, const uint8_t* codes, const uint8_t* scales);

}  // namespace rackscale
