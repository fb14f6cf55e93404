// Samplers compiled to tables: one row a network call.
#pragma once

#include <vector>

#include "schedule.hpp"

namespace i2sb {

// The steps of a sampler, ascending from 0 to interval - 1: nfe + 1 of them.
std::vector<int> spaced_steps(int interval, int nfe);

// All return rows of I2SB_ROW_COLUMNS floats, one for each pair of neighbouring steps, the last pair first.
std::vector<float> posterior_rows(const Schedule& schedule, const std::vector<int>& steps, bool ot_ode);
std::vector<float> dbim_rows(const Schedule& schedule, const std::vector<int>& steps, int order, double eta);
std::vector<float> i3sb_rows(const Schedule& schedule, const std::vector<int>& steps, double eta);

// The plan of a sampler by its name.
struct NamedPlan {
  std::vector<float> rows;
  std::vector<int> steps;
  int32_t clip = 0, known = 0;

  i2sb_plan view() const;  // as long as this lives
};

NamedPlan named_plan(const i2sb_plan_params& params);

}  // namespace i2sb
