// The noise schedule of a bridge.
#pragma once

#include <vector>

#include "i2sb_rt.h"

namespace i2sb {

// Arrays over the steps 0 .. interval - 1, in float64 (arXiv 2302.05872, eq. 11).
struct Schedule {
  std::vector<double> betas, std_fwd, std_bwd, std_sb, mu_x0, mu_x1, noise_levels;
};

// Throws if a schedule cannot be computed.
void check_schedule(const i2sb_schedule& schedule);

Schedule compute_schedule(const i2sb_schedule& schedule);

}  // namespace i2sb
