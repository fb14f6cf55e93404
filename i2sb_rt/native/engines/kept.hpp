// Networks that OpenVINO compiled and left in a folder, each with its digest beside it in NAME.blob.digest. OpenVINO
// takes one that was damaged since, as by a power cut, and gives other pixels: so such a one is removed first.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace i2sb::openvino {

// Of accidents, not of malice: of bytes, after others of which it was `before`.
uint64_t digest(std::string_view bytes, uint64_t before = 1);

// Sixteen hexadecimal digits.
std::string digits(uint64_t value);

// Removes from a folder, made if missing, what is not as it was noted; false where that cannot be done. What another
// process is just writing there goes too: it has it in memory, and whoever comes next compiles again.
bool remove_damaged(const std::string& folder) noexcept;

// Notes what is new in a folder. Where that fails, it is removed the next time.
void note_new(const std::string& folder) noexcept;

}  // namespace i2sb::openvino
