// Model files: an ONNX file that says all about itself.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "i2sb_rt.h"
#include "tiles.hpp"

namespace i2sb {

struct Tensor {
  std::string name;
  int32_t type = 0;  // of ONNX
  std::vector<int64_t> dims;
  std::string_view data;   // inside the file's bytes
  bool elsewhere = false;  // stored in another file
};

// What the loop must know of a model, from its metadata.
struct ModelRules {
  int channels = 0, batch = 1;
  bool cond_x1 = false, cond_mask = false, add_x1_noise = false;
  bool fills_smoothly = false;  // the hole of x1; else with noise
  SizeRules size{};
};

}  // namespace i2sb

// Immutable once opened.
struct i2sb_model {
  std::string path;
  std::string bytes;
  std::map<std::string, std::string> metadata;
  std::vector<i2sb::Tensor> tensors;
  i2sb::ModelRules rules;
};
