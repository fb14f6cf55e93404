// What a fuzzer checks of every call: the status is one that the caller can act on, and comes with a sentence.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

#include "check.h"
#include "heap.hpp"

namespace fuzz {

// Whether the bytes are UTF-8, asked of nothing in the library.
inline bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i++]);
    const int more = lead < 0x80 ? 0 : lead >> 5 == 6 ? 1 : lead >> 4 == 14 ? 2 : lead >> 3 == 30 ? 3 : -1;
    if (more < 0) return false;
    for (int k = 0; k < more; ++k, ++i)
      if (i >= text.size() || (text[i] & 0xc0) != 0x80) return false;
  }
  return true;
}

// Of a call that was made after the last error was emptied.
inline i2sb_status checked(i2sb_status status) {
  CHECK(status >= I2SB_OK && status <= I2SB_ERROR_CANCELLED && status != I2SB_ERROR_INTERNAL);
  const std::string_view sentence = i2sb_last_error();
  CHECK(sentence.empty() == (status == I2SB_OK));
  CHECK(is_utf8(sentence));
  return status;
}

#define FUZZED(call) (i2sb_fail(I2SB_OK, ""), fuzz::checked(call))

// A heap of a few megabytes for the length of one input, which leaves nothing in it.
class SmallHeap {
 public:
  explicit SmallHeap(size_t bytes) : before_(tests::heap::live()) { tests::heap::limit(bytes); }
  SmallHeap(const SmallHeap&) = delete;
  SmallHeap& operator=(const SmallHeap&) = delete;
  ~SmallHeap() {
    tests::heap::recover();
    CHECK(tests::heap::live() == before_);
  }

 private:
  int64_t before_;
};

}  // namespace fuzz
