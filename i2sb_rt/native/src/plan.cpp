#include "plan.hpp"

#include <cmath>
#include <cstring>
#include <string>

#include "failure.hpp"
#include "i2sb_kernels.h"

namespace i2sb {

static_assert(I2SB_PLAN_COLUMNS == I2SB_ROW_COLUMNS, "the kernels and the header read the same rows");

std::vector<int> spaced_steps(int interval, int nfe) {
  if (nfe < 1 || nfe > interval - 1)
    fail(I2SB_ERROR_ARGUMENT,
         "nfe must be from 1 to " + std::to_string(interval - 1) + " (interval - 1), not " + std::to_string(nfe));
  // By repeated addition: the rounding that accumulates is part of the contract with published checkpoints.
  std::vector<int> steps;
  const double stride = static_cast<double>(interval - 1) / nfe;
  double position = 0;
  for (int k = 0; k <= nfe; ++k, position += stride) steps.push_back(static_cast<int>(std::nearbyint(position)));
  return steps;
}

std::vector<float> posterior_rows(const Schedule& schedule, const std::vector<int>& steps, bool ot_ode) {
  const size_t nfe = steps.size() - 1;
  std::vector<float> rows(nfe * I2SB_ROW_COLUMNS);
  for (size_t i = 0; i < nfe; ++i) {
    const int n = steps[nfe - i], p = steps[nfe - i - 1];
    const double s_n = schedule.std_fwd[n], s_p = schedule.std_fwd[p];
    const double d2 = s_n * s_n - s_p * s_p;
    // arXiv 2302.05872, eq. 4: the Gaussian bridge between x0 and x_n, at p.
    double row[I2SB_ROW_COLUMNS] = {};
    row[I2SB_COL_T] = schedule.noise_levels[n];
    row[I2SB_COL_P] = 1;
    row[I2SB_COL_Q] = -s_n;  // eq. 12: the network says (x_n - x0) / s_n
    row[I2SB_COL_A] = s_p * s_p / (s_n * s_n);
    row[I2SB_COL_B] = d2 / (s_n * s_n);
    row[I2SB_COL_S] = ot_ode || p == 0 ? 0 : s_p * std::sqrt(d2) / s_n;
    row[I2SB_COL_R] = ot_ode ? 0 : schedule.std_sb[p];
    for (int column = 0; column < I2SB_ROW_COLUMNS; ++column)
      rows[i * I2SB_ROW_COLUMNS + column] = static_cast<float>(row[column]);
  }
  return rows;
}

}  // namespace i2sb

extern "C" i2sb_status i2sb_plan_posterior(const i2sb_schedule* schedule, int32_t nfe, int32_t ot_ode, float* rows,
                                           int32_t* steps, i2sb_error* error) {
  return i2sb::guard(error, [&] {
    i2sb::require_struct(schedule, "schedule");
    i2sb::require(rows != nullptr, "rows is NULL");
    const i2sb::Schedule s = i2sb::compute_schedule(*schedule);
    const std::vector<int> spaced = i2sb::spaced_steps(schedule->interval, nfe);
    const std::vector<float> table = i2sb::posterior_rows(s, spaced, ot_ode != 0);
    std::memcpy(rows, table.data(), table.size() * sizeof(float));
    if (steps) std::copy(spaced.begin(), spaced.end(), steps);
  });
}
