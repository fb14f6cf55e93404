// Samplers compiled to tables: one row a network call.
#pragma once

#include <string_view>
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

// That of the sampler dsb (arXiv 2106.01357).
NamedPlan dsb_plan(const i2sb_plan_params& params);

// Decimals separated by commas; nothing where they are no gammas.
std::vector<double> parse_gammas(std::string_view text);

}  // namespace i2sb
