// The caller's images: bytes or floats, any stride, with grey and a fourth channel.
#pragma once

#include <memory_resource>
#include <vector>

#include "i2sb_rt.h"

namespace i2sb {

// Throws unless an image's fields fit each other; `name` says which one it is.
void check_image(const i2sb_image* image, const char* name);

// Throws unless a model of so many channels takes the image, and gives a result `upscale` times its size.
void check_channels(const i2sb_image& image, int channels, int upscale);

// The image as planes [channels,H',W'] in [-1,1], enlarged to the layout's size by repeating pixels (nearest
// neighbour), then padded at the right and bottom. Throws where a float is not finite.
std::pmr::vector<float> to_planes(const i2sb_image& image, int channels, int upscale, const i2sb_layout& layout,
                                  std::pmr::memory_resource* memory);

// 0 where the mask is known, 1 in the hole, padded: [H',W'].
std::pmr::vector<float> to_mask(const i2sb_image& mask, const i2sb_layout& layout, std::pmr::memory_resource* memory);

// Crops, takes what is known from the image as it was, and writes the rest: bytes clamped and rounded half to even,
// floats clamped. The image may be the result.
void from_planes(const float* planes, int channels, const i2sb_layout& layout, const i2sb_image& image,
                 const i2sb_image* mask, const i2sb_image& out);

}  // namespace i2sb
