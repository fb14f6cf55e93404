// Holes filled with what is around them.
#pragma once

#include <cstddef>
#include <memory_resource>

namespace i2sb {

// Fills planes [channels, H, W] in place where mask [H, W] is not 0: smoothly, from the known values around. Where
// nothing at all is known it puts 0.
void fill_smoothly(float* planes, int channels, int height, int width, const float* mask,
                   std::pmr::memory_resource* memory);

}  // namespace i2sb
