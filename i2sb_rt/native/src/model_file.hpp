// Model files: an ONNX file that says all about itself.
#pragma once

#include <cstdint>
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

}  // namespace i2sb

// Immutable once loaded.
struct i2sb_model {
  explicit i2sb_model(const i2sb::Memory& from)
      : memory(from), path(&memory), bytes(&memory), metadata(&memory), tensors(&memory) {}

  i2sb::Memory memory;
  std::pmr::string path;  // empty where it was not loaded from a file
  std::pmr::string bytes;
  i2sb::Entries metadata;
  std::pmr::vector<i2sb::Tensor> tensors;
  i2sb::ModelRules rules;
};
