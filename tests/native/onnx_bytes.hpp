// ONNX files made in memory: as much of the format as a model file of this library needs.
#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace tests {

using Metadata = std::map<std::string, std::string>;  // keys without their "i2sb."

// A legal model of a bridge: tiles of 32 with 16 of overlap, sides in multiples of 4.
inline Metadata tiny_metadata() {
  return {{"format", "1"},      {"name", "tiny"},          {"task", "jpeg"},      {"prediction", "noise"},
          {"interval", "1000"}, {"beta_max", "0.3"},       {"t0", "0.0001"},      {"T", "1"},
          {"ot_ode", "0"},      {"cond_x1", "0"},          {"add_x1_noise", "0"}, {"clip", "0"},
          {"channels", "3"},    {"upscale", "1"},          {"multiple", "4"},     {"minimum", "4"},
          {"tile", "32"},       {"overlap", "16"},         {"batch", "1"},        {"sampler", "sde"},
          {"nfe", "3"},         {"dtype", "fp32"},         {"network", "{}"},     {"trained_on", "nothing"},
          {"license", "none"},  {"weights_sha256", "0000"}};
}

inline std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

// A length-delimited field of a protobuf message.
inline std::string field(uint32_t number, const std::string& bytes) {
  return varint(number << 3 | 2) + varint(bytes.size()) + bytes;
}

inline std::string integer_field(uint32_t number, uint64_t value) { return varint(number << 3) + varint(value); }

// A ModelProto: metadata_props is field 14, the graph 7; its initializer 5 with dims 1, data_type 2, name 8,
// raw_data 9.
inline std::string metadata_bytes(const std::string& key, const std::string& value) {
  return field(14, field(1, key) + field(2, value));
}

inline std::string graph_bytes() {
  const float values[] = {0.5f, 0.25f};
  const std::string raw(reinterpret_cast<const char*>(values), sizeof values);
  return field(7, field(5, integer_field(1, 2) + integer_field(2, 1) + field(8, "mix.weight") + field(9, raw)));
}

inline std::string onnx_bytes(const Metadata& changes = {}) {
  Metadata metadata = changes;
  metadata.merge(tiny_metadata());  // keeps what was changed
  std::string bytes = integer_field(1, 8) + graph_bytes();
  for (const auto& [key, value] : metadata) bytes += metadata_bytes("i2sb." + key, value);
  return bytes;
}

}  // namespace tests
