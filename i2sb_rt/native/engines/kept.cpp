#include "kept.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <vector>

namespace i2sb::openvino {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> blobs(const std::string& folder) {
  std::vector<fs::path> found;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder))
    if (entry.path().extension() == ".blob") found.push_back(entry.path());
  return found;
}

fs::path note_of(fs::path blob) { return blob += ".digest"; }

std::string digest_of(const fs::path& blob) {
  std::ifstream file(blob, std::ios::binary);
  std::string piece(size_t{1} << 20, '\0');
  uint64_t value = digest({});
  do {
    file.read(piece.data(), static_cast<std::streamsize>(piece.size()));
    value = digest({piece.data(), static_cast<size_t>(file.gcount())}, value);
  } while (file);
  if (!file.eof()) throw std::runtime_error("it cannot be read");
  return digits(value);
}

}  // namespace

uint64_t digest(std::string_view bytes, uint64_t value) {
  while (!bytes.empty()) {
    uint64_t word = 0;
    const size_t count = std::min(bytes.size(), sizeof word);
    std::memcpy(&word, bytes.data(), count);
    value = std::rotl((value ^ word) * 0x9E3779B97F4A7C15u, 29);
    bytes.remove_prefix(count);
  }
  return value;
}

std::string digits(uint64_t value) {
  std::string text;
  for (int shift = 60; shift >= 0; shift -= 4) text += "0123456789abcdef"[value >> shift & 15];
  return text;
}

bool remove_damaged(const std::string& folder) noexcept {
  try {
    fs::create_directories(folder);
    for (const fs::path& blob : blobs(folder)) {
      std::string noted;
      std::ifstream(note_of(blob)) >> noted;
      if (noted == digest_of(blob)) continue;
      fs::remove(note_of(blob));
      fs::remove(blob);
    }
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

void note_new(const std::string& folder) noexcept {
  try {
    for (const fs::path& blob : blobs(folder))
      if (!fs::exists(note_of(blob))) std::ofstream(note_of(blob)) << digest_of(blob);
  } catch (const std::exception&) {
    return;
  }
}

}  // namespace i2sb::openvino
