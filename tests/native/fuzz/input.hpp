// Reads values off a fuzzer's bytes; zeros where they end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace fuzz {

class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  bool empty() const { return size_ == 0; }

  template <typename Value>
  Value take() {
    Value value{};
    const size_t count = size_ < sizeof value ? size_ : sizeof value;
    if (count > 0) std::memcpy(&value, data_, count);
    data_ += count;
    size_ -= count;
    return value;
  }

  bool flag() { return take<uint8_t>() & 1; }
  // From least to most, both included, at most 256 values.
  int range(int least, int most) { return least + take<uint8_t>() % (most - least + 1); }

  template <typename Value, size_t count>
  Value one_of(const Value (&values)[count]) {
    return values[take<uint8_t>() % count];
  }

  // A number as callers give it, at the ends of its type, or any.
  int32_t number() {
    constexpr int32_t ENDS[] = {
        0, 1, -1, 2, 15, 16, 17, 1 << 20, (1 << 20) + 1, 1 << 30, INT32_MAX, INT32_MAX - 15, INT32_MIN};
    switch (range(0, 3)) {
      case 0:
        return one_of(ENDS);
      case 1:
        return take<int32_t>();
      default:
        return range(0, 64);
    }
  }

  std::string bytes(size_t most) {
    const size_t count = size_ < most ? size_ : most;
    std::string taken(reinterpret_cast<const char*>(data_), count);
    data_ += count;
    size_ -= count;
    return taken;
  }

 private:
  const uint8_t* data_;
  size_t size_;
};

}  // namespace fuzz
