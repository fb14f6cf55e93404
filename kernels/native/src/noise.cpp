// noise: standard normal draws of a window of a stream. Compiled once an instruction set.
#include "kernels.hpp"
#include "normal.hpp"

namespace i2sb::I2SB_ISA {

void noise(uint64_t seed, uint64_t first, uint64_t count, uint32_t row, uint32_t purpose, float* out) {
  const Stream stream = make_stream(seed, row, purpose);
  while (count > 0) {
    const Four z = normals(stream, first / 4);
    const uint64_t skip = first % 4;
    const uint64_t made = count < kBlock - skip ? count : kBlock - skip;
    if (made == kBlock) {
      store_four(out, z);
    } else {
      float block[kBlock];
      store_four(block, z);
      for (uint64_t i = 0; i < made; ++i) out[i] = block[skip + i];
    }
    first += made;
    out += made;
    count -= made;
  }
}

}  // namespace i2sb::I2SB_ISA
