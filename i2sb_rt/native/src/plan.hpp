// Samplers compiled to tables: one row a network call.
#pragma once

#include <vector>

#include "schedule.hpp"

namespace i2sb {

// The steps of a posterior sampler, ascending from 0 to interval - 1: nfe + 1 of them.
std::vector<int> spaced_steps(int interval, int nfe);

// Rows of I2SB_ROW_COLUMNS floats.
std::vector<float> posterior_rows(const Schedule& schedule, const std::vector<int>& steps, bool ot_ode);

}  // namespace i2sb
