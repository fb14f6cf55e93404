// Model files: an ONNX file that says all about itself.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "i2sb_rt.h"
#include "memory.hpp"
#include "model_rules.hpp"

namespace i2sb {

struct Tensor {
  explicit Tensor(std::pmr::memory_resource* memory) : name(memory), dims(memory) {}

  std::pmr::string name;
  int32_t type = 0;  // of ONNX
  std::pmr::vector<int64_t> dims;
  std::string_view data;   // inside the file's bytes
  bool elsewhere = false;  // stored in another file
};

// What tells that a file is still the one that was read.
struct FileState {
  std::uintmax_t size = 0;
  std::filesystem::file_time_type written;
  bool operator==(const FileState&) const = default;

  static FileState of(std::string_view path);  // of no size where there is none any more
};

}  // namespace i2sb

// Immutable once loaded.
struct i2sb_model {
  explicit i2sb_model(const i2sb::Memory& from)
      : memory(from), path(&memory), bytes(&memory), metadata(&memory), tensors(&memory) {}

  i2sb::Memory memory;
  std::pmr::string path;  // absolute; empty where it was not loaded from a file
  i2sb::FileState state;  // before it was read
  std::pmr::string bytes;
  i2sb::Entries metadata;
  std::pmr::vector<i2sb::Tensor> tensors;
  i2sb::ModelRules rules;
};
