// What an instruction set offers the C interface: each op on a range of one image. Plain functions and plain data, so
// that nothing compiled for one instruction set is reached by another.
#pragma once

#include "i2sb_kernels.h"

namespace i2sb {

// Elements first .. first + count - 1 of image `image`; first is a multiple of 4.
using BridgeStepRange = void (*)(const i2sb_bridge_step_args& args, int64_t image, int64_t first, int64_t count);

// Elements first .. first + count - 1 of a stream, to out[0] .. out[count - 1].
using NoiseRange = void (*)(uint64_t seed, uint64_t first, uint64_t count, uint32_t row, uint32_t purpose, float* out);

#define I2SB_DECLARE(isa)                                                                                \
  namespace isa {                                                                                        \
  void bridge_step(const i2sb_bridge_step_args& args, int64_t image, int64_t first, int64_t count);      \
  void noise(uint64_t seed, uint64_t first, uint64_t count, uint32_t row, uint32_t purpose, float* out); \
  }
I2SB_DECLARE(scalar)
I2SB_DECLARE(avx2)
I2SB_DECLARE(avx512)
#undef I2SB_DECLARE

}  // namespace i2sb
