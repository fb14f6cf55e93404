// Holes filled with what is around them.
#pragma once

#include <cstddef>

namespace i2sb {

// Fills planes [channels, H, W] in place where mask [H, W] is not 0: smoothly, from the known values around. Where
// nothing at all is known it puts 0.
void fill_smoothly(float* planes, int channels, int height, int width, const float* mask);

}  // namespace i2sb
