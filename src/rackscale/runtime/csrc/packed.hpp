// Products with packed weights: four-bit, eight-bit and bf16, laid out in tiles of sixteen outputs.
//
// A tile holds sixteen rows of a weight [outputs, depth], all of the depth; tiles follow one another. Along the depth it
// is a list of spans (packed_layout.hpp): a line of scales, then lines of 64 bytes that hold a dword of every row.
// Depths are filled up with zeros to whole spans, the last tile with rows of zeros.
//
// A token's result is the same to the last bit whatever is computed beside it, and by however many threads.
#pragma once

#include <cstdint>

#include "routed.hpp"

namespace rackscale {

enum class Format : int32_t { kNvfp4, kInt4, kMxfp4, kFp8, kBf16 };

// What the input is rounded to. kInt8: a scale for every 128 columns of a row. kNvfp4: as Blackwell does.
// Where a weight's format does not take it (fp8 and bf16 with kInt8, all but nvfp4 with kNvfp4), kBf16 is used.
enum class Activations : int32_t { kFp32, kBf16, kInt8, kNvfp4 };

struct Packed {
  Format format = Format::kBf16;
  Activations activations = Activations::kFp32;
  int64_t depth = 0, columns = 0;      // of the input and of the output
  const uint8_t* tiles = nullptr;      // aligned to 64 bytes; null: no such layer
  const float* tile_scales = nullptr;  // [tiles], each multiplies all that its tile gives
  float input_scale = 0;               // kNvfp4's; 0: every row's own, its largest / 2688
};

// Tiles of gate and up take turns, beginning with the gate's: gate_up.columns is 2 * width, and both are filled up to
// sixteen by themselves.
struct PackedExperts {
  int64_t num_experts, hidden, width;
  Packed gate_up, down;        // of the first expert; the others follow it
  const float* gate_up_bias;   // [E, 2 * width], first the gate's, then up's; or null
  const float* down_bias;      // [E, hidden] or null
  bool clamped;                // gpt-oss's activation
  float alpha, limit;
};

int64_t tile_bytes(Format format, int64_t depth);

// out [rows, columns] = in [rows, depth] times the weight (+ bias) (+ out where `add`); rows begin every in_stride and
// out_stride floats.
void linear(const float* in, int64_t in_stride, int64_t num_rows, const Packed& packed, const float* bias, bool add,
            float* out, int64_t out_stride, int num_threads);

// out [rows, depth of down] = down(silu(gate) * up) (+ out where `add`): an MLP, or a shared expert.
void mlp(const float* in, int64_t in_stride, int64_t num_rows, const Packed& gate_up, const Packed& down, bool add,
         float* out, int64_t out_stride, int num_threads);

// out [T, hidden] = the gated sum of each token's experts, in doubles.
void experts(const Routed& routed, const PackedExperts& experts, double* out, int num_threads);

// A part of a checkpoint's matrix on its way into tiles first_tile, first_tile + tile_step, ... of a packed one.
struct PackJob {
  Format format;
  const uint8_t* codes;    // [rows, depth / 2], or of fp8 [rows, depth], or of bf16 [rows, depth] words
  int64_t codes_stride;    // bytes from row to row
  const uint8_t* scales;   // as the checkpoint has them; fp8: fp32 [rows / 128, depth / 128]; bf16: null
  int64_t scales_stride;   // bytes from row to row
  int64_t num_rows, depth;
  float tensor_scale;
  uint8_t* tiles;
  float* tile_scales;
  int64_t first_tile, tile_step;
};

// All jobs, on threads of their own that are gone afterwards: a process may fork then.
void pack(const PackJob* jobs, int64_t num_jobs, int num_threads);

}  // namespace rackscale
