// Model files: an ONNX file that says all about itself.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "i2sb_rt.h"
#include "memory.hpp"
#include "tiles.hpp"

namespace i2sb {

struct Tensor {
  explicit Tensor(std::pmr::memory_resource* memory) : name(memory), dims(memory) {}

  std::pmr::string name;
  int32_t type = 0;  // of ONNX
  std::pmr::vector<int64_t> dims;
  std::string_view data;   // inside the file's bytes
  bool elsewhere = false;  // stored in another file
};

using Entries = std::pmr::map<std::pmr::string, std::pmr::string, std::less<>>;

// What the core must know of a model, from its metadata. Text is the metadata's own.
struct ModelRules {
  const char *name = "", *sampler = "", *prediction = "";
  int channels = 0, batch = 1, nfe = 1;
  bool cond_x1 = false, cond_mask = false, add_x1_noise = false, clip = false, ot_ode = false;
  bool fills_smoothly = false;  // the hole of x1; else with noise
  bool needs_mask = false;
  bool holds_points = false;  // the states have one pixel: the network is an MLP
  i2sb_schedule schedule{};   // interval 0: a model of DSB, which has the two below in its place
  const char *gammas = nullptr, *direction = nullptr;
  SizeRules size{};

  bool is_dsb() const { return gammas != nullptr; }
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
