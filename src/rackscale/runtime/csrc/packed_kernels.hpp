// The kernels of one instruction set, and which set this machine has.
#pragma once

#include <cstdint>

#include "packed_layout.hpp"

namespace rackscale {

// out [tokens, 16] = a tile times a panel of as many tokens, over `depth` columns.
typedef void (*TileKernel)(const uint8_t* tile, float tile_scale, const Panel& panel, int64_t depth, float* out);

struct Instructions {
  const char* name;
  // What kind of rows this weight is multiplied with here.
  Kind (*kind)(Format format, Activations activations);
  // How many tokens the next panel takes of so many: at most kMostTokens and maybe more than there are, or all of them.
  int64_t (*panel_tokens)(Format format, Kind kind, int64_t left);
  TileKernel (*tile)(Format format, Kind kind, int64_t tokens);
  // Not 0: in a panel of so many kGroup values of each token lie together, each the exclusive or of a row's and this.
  uint8_t (*flip)(Format format, Kind kind, int64_t tokens);
  // A row of floats to a panel of one.
  void (*encode)(const float* in, const PanelShape& shape, float input_scale, const Panel& out);
  // out [16] = silu(gate) * up, or clamped; gate and up [16].
  void (*activate)(const float* gate, const float* up, bool clamped, float alpha, float limit, float* out);
};

constexpr int64_t kMostTokens = 16;

extern const Instructions kPortable;
#if defined(__x86_64__)
extern const Instructions kAvx2;
extern const Instructions kAvx512;
#endif

// The best set of this machine, or the one that the environment's RACKSCALE_ISA names, if the machine has it. Looked up
// once.
const Instructions& instructions();
void set_instructions(const char* name);  // for tests; throws std::invalid_argument where the machine has it not

}  // namespace rackscale
