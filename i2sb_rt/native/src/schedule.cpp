#include "schedule.hpp"

#include <algorithm>
#include <cmath>
#include <string>

#include "failure.hpp"

namespace i2sb {
namespace {

double linspace(double first, double last, int count, int index) {
  return index == count - 1 ? last : first + index * ((last - first) / (count - 1));
}

}  // namespace

void check_schedule(const i2sb_schedule& schedule) {
  const int N = schedule.interval;
  if (N < 2 || N > 1000000 || N % 2 != 0)
    fail(I2SB_ERROR_ARGUMENT, "interval must be an even number from 2 to 1000000, not " + std::to_string(N));
  require(std::isfinite(schedule.beta_max) && schedule.beta_max > 0, "beta_max must be a positive number");
  require(std::isfinite(schedule.t0) && std::isfinite(schedule.T) && schedule.t0 < schedule.T,
          "t0 and T must be numbers with t0 < T");
}

Schedule compute_schedule(const i2sb_schedule& schedule) {
  check_schedule(schedule);
  const int N = schedule.interval;
  const double beta_min = 1e-4;
  Schedule s;
  for (auto* array : {&s.betas, &s.std_fwd, &s.std_bwd, &s.std_sb, &s.mu_x0, &s.mu_x1, &s.noise_levels})
    array->resize(static_cast<size_t>(N));

  // Symmetric in time: the first half rises, the second is its mirror.
  for (int k = 0; k < N / 2; ++k) {
    const double root = linspace(std::sqrt(beta_min), std::sqrt(schedule.beta_max / N), N, k);
    s.betas[k] = s.betas[N - 1 - k] = root * root;
  }
  double forward = 0, backward = 0;
  for (int k = 0; k < N; ++k) {
    s.std_fwd[k] = std::sqrt(forward += s.betas[k]);
    s.std_bwd[N - 1 - k] = std::sqrt(backward += s.betas[N - 1 - k]);
  }
  for (int k = 0; k < N; ++k) {
    const double fwd2 = s.std_fwd[k] * s.std_fwd[k], bwd2 = s.std_bwd[k] * s.std_bwd[k], sum = fwd2 + bwd2;
    s.mu_x0[k] = bwd2 / sum;
    s.mu_x1[k] = fwd2 / sum;
    s.std_sb[k] = std::sqrt(fwd2 * bwd2 / sum);
    s.noise_levels[k] = linspace(schedule.t0, schedule.T, N, k) * N;
  }
  return s;
}

}  // namespace i2sb

extern "C" i2sb_status i2sb_schedule_compute(const i2sb_schedule* schedule, double* arrays) {
  return i2sb::guard([&] {
    i2sb::require_struct(schedule, "schedule");
    i2sb::require(arrays != nullptr, "arrays is NULL");
    const i2sb::Schedule s = i2sb::compute_schedule(*schedule);
    for (const auto* array : {&s.betas, &s.std_fwd, &s.std_bwd, &s.std_sb, &s.mu_x0, &s.mu_x1, &s.noise_levels})
      arrays = std::copy(array->begin(), array->end(), arrays);
  });
}
