// An image in memory that watches over every byte which is not a pixel.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "check.h"
#include "i2sb_rt.hpp"

namespace tests {

inline size_t value_size(int type) { return type == I2SB_U8 ? sizeof(uint8_t) : sizeof(float); }

// How the rows of an image lie.
struct Lie {
  int gap = 0;               // values between the rows
  bool upside_down = false;  // the upper row last, and a negative stride
};

// Rows with `gap` values behind each, and as many bytes in front of and behind all of them. What is not a pixel holds a
// pattern; the memory ends where the last guard does, for sanitizers to see what goes further.
class Canvas {
 public:
  Canvas(int width, int height, int channels, int type, Lie lie = {})
      : row_(static_cast<size_t>(width) * channels * value_size(type)),
        pitch_(row_ + lie.gap * value_size(type)),
        guard_(lie.gap * value_size(type)),
        bytes_(2 * guard_ + pitch_ * height) {
    for (size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = pattern(i);
    const size_t upper = lie.upside_down ? pitch_ * (height - 1) : 0;
    const auto stride = lie.upside_down ? -static_cast<ptrdiff_t>(pitch_) : static_cast<ptrdiff_t>(pitch_);
    // 0 says the same of rows without gaps.
    image = {sizeof image,
             width,
             height,
             channels,
             type,
             bytes_.data() + guard_ + upper,
             lie.gap > 0 || lie.upside_down ? stride : 0};
    upper_ = bytes_.data() + guard_ + upper;
    stride_ = stride;
  }
  Canvas(const Canvas&) = delete;
  Canvas& operator=(const Canvas&) = delete;

  template <typename Value>
  Value get(int y, size_t i) const {
    Value value;
    std::memcpy(&value, upper_ + stride_ * y + i * sizeof value, sizeof value);
    return value;
  }
  template <typename Value>
  void set(int y, size_t i, Value value) {
    std::memcpy(upper_ + stride_ * y + i * sizeof value, &value, sizeof value);
  }

  // Value i of row y on the scale 0 .. 255, whatever the type.
  double level(int y, size_t i) const { return image.type == I2SB_U8 ? get<uint8_t>(y, i) : get<float>(y, i) * 255.0; }
  void set_level(int y, size_t i, uint8_t level) {
    if (image.type == I2SB_U8)
      set<uint8_t>(y, i, level);
    else
      set<float>(y, i, static_cast<float>(level) / 255.0f);
  }

  size_t row_values() const { return static_cast<size_t>(image.width) * image.channels; }

  // The pixels' bytes, row by row from the upper one.
  std::vector<unsigned char> pixels() const {
    std::vector<unsigned char> all;
    for (int y = 0; y < image.height; ++y) all.insert(all.end(), upper_ + stride_ * y, upper_ + stride_ * y + row_);
    return all;
  }

  void check_guards() const {
    std::vector<bool> is_pixel(bytes_.size());
    for (int y = 0; y < image.height; ++y)
      for (size_t i = 0; i < row_; ++i) is_pixel[upper_ + stride_ * y + i - bytes_.data()] = true;
    for (size_t i = 0; i < bytes_.size(); ++i) CHECK(is_pixel[i] || bytes_[i] == pattern(i));
  }

  i2sb_image image;

 private:
  static unsigned char pattern(size_t i) { return static_cast<unsigned char>(i * 37 + 11); }

  size_t row_, pitch_, guard_;
  std::vector<unsigned char> bytes_;
  unsigned char* upper_;
  ptrdiff_t stride_;
};

}  // namespace tests
