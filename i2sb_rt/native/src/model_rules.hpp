// What the metadata of a model file say, checked.
#pragma once

#include <map>
#include <memory_resource>
#include <string>

#include "i2sb_rt.h"
#include "tiles.hpp"

namespace i2sb {

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

// Fails with a sentence that names the key where one is missing, impossible or at odds with another.
ModelRules read_rules(const Entries& entries);

}  // namespace i2sb
