#include "pixels.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>

#include "failure.hpp"
#include "tiles.hpp"

namespace i2sb {
namespace {

constexpr int RGB = 3, RGB_AND_ONE = 4;

size_t value_size(const i2sb_image& image) { return image.type == I2SB_U8 ? sizeof(uint8_t) : sizeof(float); }

// A view of an image whose values are of type Value.
template <typename Value>
struct Rows {
  explicit Rows(const i2sb_image& image)
      : data(static_cast<unsigned char*>(image.data)),
        stride(image.stride
                   ? image.stride
                   : static_cast<ptrdiff_t>(image.width) * image.channels * static_cast<ptrdiff_t>(sizeof(Value))) {}
  Value* operator[](int y) const { return reinterpret_cast<Value*>(data + stride * y); }

  unsigned char* data;
  ptrdiff_t stride;
};

// Calls body(Rows) with the image's type.
template <typename Body>
void with_rows(const i2sb_image& image, Body&& body) {
  if (image.type == I2SB_U8)
    body(Rows<uint8_t>(image));
  else
    body(Rows<float>(image));
}

// 0..255 or 0..1 -> [-1,1].
struct Signal {
  Signal() {
    for (int value = 0; value < 256; ++value) of_byte[value] = static_cast<float>(value) / 127.5f - 1.0f;
  }
  float operator()(uint8_t value) const { return of_byte[value]; }
  float operator()(float value) const {
    if (!std::isfinite(value)) fail(I2SB_ERROR_ARGUMENT, "the image holds a value that is not finite");
    return 2.0f * value - 1.0f;
  }
  std::array<float, 256> of_byte;
};

// [-1,1] -> 0..255, clamped and rounded half to even: above 2^23 a float holds integers only.
void put(float value, uint8_t& to) {
  constexpr float INTEGERS = 8388608.0f;
  to = static_cast<uint8_t>((std::clamp(value, -1.0f, 1.0f) + 1.0f) * 127.5f + INTEGERS - INTEGERS);
}

void put(float value, float& to) { to = (std::clamp(value, -1.0f, 1.0f) + 1.0f) * 0.5f; }

// The luma of ITU-R BT.601, of bytes in integers.
uint8_t luma(const std::array<uint8_t, RGB>& v) {
  return static_cast<uint8_t>((v[0] * 19595u + v[1] * 38470u + v[2] * 7471u + 0x8000u) >> 16);
}

float luma(const std::array<float, RGB>& v) { return 0.299f * v[0] + 0.587f * v[1] + 0.114f * v[2]; }

bool in_hole(const i2sb_image& mask, int y, int x) {
  return mask.type == I2SB_U8 ? Rows<uint8_t>(mask)[y][x] != 0 : Rows<float>(mask)[y][x] != 0;
}

template <typename Value>
void write_row(const float* planes, size_t area, int channels, int y, const Rows<Value>& from, const i2sb_image& image,
               const i2sb_image* mask, const i2sb_image& out, const Rows<Value>& to) {
  const int count = out.channels, restored = count == RGB_AND_ONE && channels == RGB ? RGB : count;
  for (int x = 0; x < out.width; ++x) {
    Value* pixel = to[y] + static_cast<ptrdiff_t>(x) * count;
    if (mask && !in_hole(*mask, y, x)) {
      const Value* known = from[y] + static_cast<ptrdiff_t>(x) * image.channels;
      std::copy(known, known + count, pixel);
    } else if (count == 1 && channels == RGB) {
      std::array<Value, RGB> colour;
      for (size_t c = 0; c < RGB; ++c) put(planes[c * area + x], colour[c]);
      *pixel = luma(colour);
    } else {
      for (int c = 0; c < restored; ++c) put(planes[c * area + x], pixel[c]);
      if (restored < count) pixel[restored] = from[y][static_cast<ptrdiff_t>(x) * image.channels + restored];
    }
  }
}

}  // namespace

void check_image(const i2sb_image* image, const char* name) {
  require_struct(image, name);
  const auto refuse = [&](const char* why) { fail(I2SB_ERROR_ARGUMENT, std::string(name) + "." + why); };
  if (!image->data) refuse("data is NULL");
  if (image->width < 1 || image->height < 1) refuse("width and height must be at least 1");
  if (image->channels < 1) refuse("channels must be at least 1");
  if (image->type != I2SB_U8 && image->type != I2SB_F32) refuse("type must be I2SB_U8 or I2SB_F32");
  const auto size = static_cast<ptrdiff_t>(value_size(*image));
  if (image->width > PTRDIFF_MAX / size / image->channels) refuse("width is too large");
  const ptrdiff_t row = static_cast<ptrdiff_t>(image->width) * image->channels * size;
  if (image->stride != 0 && image->stride < row && image->stride > -row) refuse("stride is less than a row");
  if (image->stride % size != 0 || reinterpret_cast<uintptr_t>(image->data) % static_cast<size_t>(size) != 0)
    refuse("data and stride must be multiples of 4 for floats");
}

void check_channels(const i2sb_image& image, int channels, int upscale) {
  const bool fits = image.channels == channels || (channels == RGB && (image.channels == 1 || image.channels == 4));
  if (!fits)
    fail(I2SB_ERROR_ARGUMENT, "this model restores images of " + std::to_string(channels) +
                                  " channels, the image has " + std::to_string(image.channels));
  if (image.channels > channels && upscale > 1)
    fail(I2SB_ERROR_ARGUMENT, "a fourth channel is not enlarged: give the three that are restored");
}

std::pmr::vector<float> to_planes(const i2sb_image& image, int channels, int upscale, const i2sb_layout& layout,
                                  std::pmr::memory_resource* memory) {
  static const Signal signal;
  const int padded_width = layout.padded_width;
  const size_t area = static_cast<size_t>(layout.padded_height) * padded_width;
  std::pmr::vector<ptrdiff_t> columns(padded_width, memory);
  for (int x = 0; x < padded_width; ++x)
    columns[x] = static_cast<ptrdiff_t>(padded_source(x, layout.width) / upscale) * image.channels;
  std::pmr::vector<float> planes(channels * area, memory);
  with_rows(image, [&](const auto& rows) {
    for (int y = 0; y < layout.padded_height; ++y) {
      const auto* line = rows[padded_source(y, layout.height) / upscale];
      for (int c = 0; c < channels; ++c) {
        float* to = planes.data() + c * area + static_cast<size_t>(y) * padded_width;
        const auto* channel = line + (image.channels == 1 ? 0 : c);
        for (int x = 0; x < padded_width; ++x) to[x] = signal(channel[columns[x]]);
      }
    }
  });
  return planes;
}

std::pmr::vector<float> to_mask(const i2sb_image& mask, const i2sb_layout& layout, std::pmr::memory_resource* memory) {
  std::pmr::vector<float> padded(memory);
  padded.reserve(static_cast<size_t>(layout.padded_height) * layout.padded_width);
  with_rows(mask, [&](const auto& rows) {
    for (int y = 0; y < layout.padded_height; ++y) {
      const auto* line = rows[padded_source(y, layout.height)];
      for (int x = 0; x < layout.padded_width; ++x)
        padded.push_back(line[padded_source(x, layout.width)] != 0 ? 1.0f : 0.0f);
    }
  });
  return padded;
}

void from_planes(const float* planes, int channels, const i2sb_layout& layout, const i2sb_image& image,
                 const i2sb_image* mask, const i2sb_image& out) {
  const size_t area = static_cast<size_t>(layout.padded_height) * layout.padded_width;
  with_rows(out, [&](const auto& to) {
    const std::decay_t<decltype(to)> from(image);
    for (int y = 0; y < out.height; ++y)
      write_row(planes + static_cast<size_t>(y) * layout.padded_width, area, channels, y, from, image, mask, out, to);
  });
}

}  // namespace i2sb
