#include "failure.hpp"
#include "i2sb_kernels.h"

extern "C" i2sb_status i2sb_noise(uint64_t seed, uint64_t first, uint64_t count, uint32_t row, uint32_t purpose,
                                  float* out) {
  return i2sb::guard([&] {
    i2sb::require(out != nullptr || count == 0, "out is NULL");
    i2sb::require(purpose <= I2SB_NOISE_X1, "purpose must be 0 (step), 1 (hole), 2 (known) or 3 (x1)");
    i2sb_noise_fill(seed, first, count, row, purpose, out, 1, I2SB_ISA_AUTO);
  });
}
