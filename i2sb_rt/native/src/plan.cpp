#include "plan.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "failure.hpp"
#include "i2sb_kernels.h"
#include "loop.hpp"
#include "model_file.hpp"

namespace i2sb {

static_assert(I2SB_PLAN_COLUMNS == I2SB_ROW_COLUMNS, "the kernels and the header read the same rows");

namespace {

using Row = std::array<double, I2SB_ROW_COLUMNS>;

// What every row begins with: the network is asked at step n, and says (x_n - x0) / s_n (arXiv 2302.05872, eq. 12);
// one that says x0 is left to `predicting`.
Row asked_at(const Schedule& schedule, int n) {
  Row row{};
  row[I2SB_COL_T] = schedule.noise_levels[n];
  row[I2SB_COL_P] = 1;
  row[I2SB_COL_Q] = -schedule.std_fwd[n];
  return row;
}

// What cancels up to rounding is nothing, for a row pays for every term that it reads. Below 1e-10 no term is seen.
float stored(double value) { return std::abs(value) < 1e-10 ? 0.0f : static_cast<float>(value); }

std::vector<float> stored(const std::vector<Row>& rows) {
  std::vector<float> table;
  for (const Row& row : rows)
    for (const double value : row) table.push_back(stored(value));
  return table;
}

// The bridge at step k: x_k = a x1 + b x0 + c z. With std_bwd^2 := S^2 - std_fwd^2, S = std_fwd of the last step, a + b
// is 1 and c is 0 at the end, which the sum of the betas that std_bwd counts twice would spoil.
struct Marginal {
  double a, b, c;

  double half_log_snr() const { return std::log(b / c); }
};

Marginal marginal(const Schedule& schedule, int k) {
  const double s2 = schedule.std_fwd[k] * schedule.std_fwd[k], S2 = schedule.std_fwd.back() * schedule.std_fwd.back();
  return {s2 / S2, (S2 - s2) / S2, std::sqrt(s2 * (S2 - s2) / S2)};
}

// The booting step of arXiv 2405.15885: at the end of the bridge x is x1, and there is no noise to keep a share of.
Row booted(const Schedule& schedule, int n, int p) {
  const Marginal to = marginal(schedule, p);
  Row row = asked_at(schedule, n);
  row[I2SB_COL_A] = to.a;
  row[I2SB_COL_B] = to.b;
  row[I2SB_COL_S] = p == 0 ? 0 : to.c;
  return row;
}

// DBIM's update with rho = w (arXiv 2405.15885), I3SB's with g = w (arXiv 2403.06069): x_p has the marginal of step p,
// its noise made of k times that in x_n and of w fresh.
Row first_order(const Schedule& schedule, int n, int p, double eta) {
  const Marginal from = marginal(schedule, n), to = marginal(schedule, p);
  const double ratio = schedule.std_fwd[p] / schedule.std_fwd[n];
  const double w = eta * schedule.std_fwd[p] * std::sqrt(1 - ratio * ratio);
  const double k = std::sqrt(std::max(0.0, to.c * to.c - w * w)) / from.c;
  Row row = asked_at(schedule, n);
  row[I2SB_COL_A] = k;
  row[I2SB_COL_B] = to.b - k * from.b;
  row[I2SB_COL_C] = to.a - k * from.a;
  row[I2SB_COL_S] = p == 0 ? 0 : w;
  return row;
}

// DBIM's exponential integrator (arXiv 2405.15885) in lambda = log(b / c): between n and p, x0 is its Taylor series
// with the derivatives taken from the estimates at n and at the one or two steps before it, the newest first.
Row higher_order(const Schedule& schedule, int n, int p, const std::vector<int>& before) {
  const Marginal to = marginal(schedule, p);
  const double at_n = marginal(schedule, n).half_log_snr(), h = to.half_log_snr() - at_n;
  const double h1 = at_n - marginal(schedule, before[0]).half_log_snr();
  const double linear = to.b * (std::exp(-h) + h - 1);
  Row row = first_order(schedule, n, p, 0);
  double newest = linear / h1, second = 0;  // weights of D1 = x0(n) - x0(u1) and of D2 = x0(u1) - x0(u2)
  if (before.size() == 2) {
    const double h2 = marginal(schedule, before[0]).half_log_snr() - marginal(schedule, before[1]).half_log_snr();
    const double square = to.b * (h * h / 2 - h + 1 - std::exp(-h));
    newest = (linear * (2 * h1 + h2) + 2 * square) / (h1 * (h1 + h2));
    second = -(linear * h1 + 2 * square) / (h2 * (h1 + h2));
  }
  row[I2SB_COL_B] += newest;
  row[I2SB_COL_D] = second - newest;
  row[I2SB_COL_E] = -second;
  return row;
}

}  // namespace

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
  std::vector<Row> rows;
  for (size_t i = steps.size() - 1; i > 0; --i) {
    const int n = steps[i], p = steps[i - 1];
    const double s_n = schedule.std_fwd[n], s_p = schedule.std_fwd[p];
    const double d2 = s_n * s_n - s_p * s_p;
    // arXiv 2302.05872, eq. 4: the Gaussian bridge between x0 and x_n, at p.
    Row row = asked_at(schedule, n);
    row[I2SB_COL_A] = s_p * s_p / (s_n * s_n);
    row[I2SB_COL_B] = d2 / (s_n * s_n);
    row[I2SB_COL_S] = ot_ode || p == 0 ? 0 : s_p * std::sqrt(d2) / s_n;
    row[I2SB_COL_R] = ot_ode ? 0 : schedule.std_sb[p];
    rows.push_back(row);
  }
  return stored(rows);
}

std::vector<float> dbim_rows(const Schedule& schedule, const std::vector<int>& steps, int order, double eta) {
  const size_t nfe = steps.size() - 1;
  std::vector<Row> rows{booted(schedule, steps[nfe], steps[nfe - 1])};
  for (size_t i = nfe - 1; i > 0; --i) {
    // The estimate at the end of the bridge has no place in lambda, so the second row has no history, and the last row
    // is of the first order as published.
    std::vector<int> before;
    for (size_t u = i + 1; u < nfe && before.size() + 1 < static_cast<size_t>(order); ++u) before.push_back(steps[u]);
    const bool first = before.empty() || i == 1;
    rows.push_back(first ? first_order(schedule, steps[i], steps[i - 1], eta)
                         : higher_order(schedule, steps[i], steps[i - 1], before));
  }
  return stored(rows);
}

std::vector<float> i3sb_rows(const Schedule& schedule, const std::vector<int>& steps, double eta) {
  const size_t nfe = steps.size() - 1;
  std::vector<Row> rows;
  for (size_t i = nfe; i > 1; --i)
    rows.push_back(i == nfe ? booted(schedule, steps[i], steps[i - 1])
                            : first_order(schedule, steps[i], steps[i - 1], eta));
  rows.push_back(asked_at(schedule, steps[1]));
  rows.back()[I2SB_COL_B] = 1;  // the last estimate of x0 is the result
  return stored(rows);
}

namespace {

// What a plan is made of, with the model's values in place of what was not given.
struct Asked {
  std::string sampler;
  const char* prediction;
  i2sb_schedule schedule;
  int nfe;
  bool clip;
};

constexpr std::array SAMPLERS{"sde", "ode", "dbim1", "dbim2", "dbim3", "i3sb"};

// A model's bridge must have what the sampler draws on.
void check_legal(const ModelRules& rules, const std::string& sampler) {
  const std::string model = "the model " + std::string(rules.name);
  if (rules.is_dsb()) fail(I2SB_ERROR_ARGUMENT, model + " is one of DSB, so it takes the sampler dsb, not " + sampler);
  if (rules.ot_ode && sampler != "ode")
    fail(I2SB_ERROR_ARGUMENT, model + " was trained without noise, so it takes the sampler ode, not " + sampler);
}

Asked complete(const i2sb_plan_params& p) {
  const ModelRules* rules = p.model ? &p.model->rules : nullptr;
  require(p.schedule || rules, "a plan needs a schedule or a model");
  require(p.sampler || rules, "a plan needs a sampler or a model");
  if (p.schedule) require_struct(p.schedule, "schedule");
  Asked asked{p.sampler ? p.sampler : rules->sampler,
              p.prediction ? p.prediction : (rules ? rules->prediction : "noise"),
              p.schedule ? *p.schedule : rules->schedule, p.nfe == 0 && rules ? rules->nfe : p.nfe,
              p.clip < 0 ? rules && rules->clip : p.clip != 0};
  if (rules) check_legal(*rules, asked.sampler);
  check_schedule(asked.schedule);
  return asked;
}

// The share of fresh noise: what was asked for, where the sampler leaves a choice.
double eta_of(const std::string& sampler, double asked) {
  constexpr double OF_I3SB = 0.6;  // arXiv 2403.06069, for photos
  const bool has_choice = sampler == "dbim1" || sampler == "i3sb";
  if (asked < 0) return sampler == "i3sb" ? OF_I3SB : 0;
  if (!has_choice) fail(I2SB_ERROR_ARGUMENT, "eta is a choice of the samplers dbim1 and i3sb, not of " + sampler);
  require(asked <= 1, "eta must be a number from 0 to 1");
  return asked;
}

std::vector<int> checked_steps(const Asked& asked, const int32_t* given) {
  std::vector<int> steps = spaced_steps(asked.schedule.interval, asked.nfe);
  if (!given) return steps;
  if (!asked.sampler.starts_with("dbim"))
    fail(I2SB_ERROR_ARGUMENT, "steps are a choice of the samplers dbim1, dbim2 and dbim3, not of " + asked.sampler);
  steps.assign(given, given + asked.nfe + 1);
  const bool ascending = std::adjacent_find(steps.begin(), steps.end(), std::greater_equal<>()) == steps.end();
  if (!ascending || steps.front() != 0 || steps.back() != asked.schedule.interval - 1)
    fail(I2SB_ERROR_ARGUMENT,
         "steps must ascend from 0 to " + std::to_string(asked.schedule.interval - 1) + " (interval - 1), each once");
  return steps;
}

std::vector<float> rows_of(const Asked& asked, const std::vector<int>& steps, double eta) {
  const Schedule schedule = compute_schedule(asked.schedule);
  const std::string& sampler = asked.sampler;
  if (sampler == "sde" || sampler == "ode") return posterior_rows(schedule, steps, sampler == "ode");
  if (sampler == "i3sb") return i3sb_rows(schedule, steps, eta);
  return dbim_rows(schedule, steps, sampler.back() - '0', eta);
}

// Reads x0 off the network's output as it is meant: rows are made for one that says (x_n - x0) / std_fwd_n.
void predicting(const char* prediction, std::vector<float>& rows) {
  const std::string_view kind = prediction;
  if (kind != "noise" && kind != "mean")
    fail(I2SB_ERROR_ARGUMENT, "prediction is \"noise\" or \"mean\", not \"" + std::string(kind) + "\"");
  for (size_t row = 0; kind == "mean" && row < rows.size(); row += I2SB_ROW_COLUMNS) {
    rows[row + I2SB_COL_P] = 0;
    rows[row + I2SB_COL_Q] = 1;
  }
}

}  // namespace

NamedPlan named_plan(const i2sb_plan_params& params) {
  const char* sampler = params.sampler ? params.sampler : params.model ? params.model->rules.sampler : "";
  if (sampler == std::string_view("dsb")) return dsb_plan(params);
  require(!params.gammas && !params.direction, "gammas and direction are those of the sampler dsb");
  const Asked asked = complete(params);
  if (std::find(SAMPLERS.begin(), SAMPLERS.end(), asked.sampler) == SAMPLERS.end())
    fail(I2SB_ERROR_ARGUMENT,
         "'" + asked.sampler +
             "' is no sampler of a bridge with a schedule; there are sde, ode, dbim1, dbim2, dbim3 "
             "and i3sb");
  require(!std::isnan(params.eta), "eta must be a number from 0 to 1");
  const double eta = eta_of(asked.sampler, params.eta);
  NamedPlan plan;
  plan.steps = checked_steps(asked, params.steps);
  plan.rows = rows_of(asked, plan.steps, eta);
  predicting(asked.prediction, plan.rows);
  plan.clip = asked.clip;
  plan.known = asked.sampler == "sde" || asked.sampler == "ode" ? I2SB_KNOWN_RENEW : I2SB_KNOWN_X0;
  check_plan(plan.view());  // a schedule far from any trained one overflows
  return plan;
}

i2sb_plan NamedPlan::view() const {
  return {sizeof(i2sb_plan), static_cast<int32_t>(rows.size() / I2SB_ROW_COLUMNS), rows.data(), clip, known};
}

}  // namespace i2sb

extern "C" i2sb_status i2sb_plan_make(const i2sb_plan_params* params, float* rows, int32_t* steps, i2sb_plan* plan) {
  return i2sb::guard([&] {
    const i2sb_plan_params whole = i2sb::taken(params, "params", {offsetof(i2sb_plan_params, gammas)});
    i2sb::require(whole.reserved == 0, "params.reserved must be 0");
    i2sb::require(rows || !steps, "steps are only given with rows");
    i2sb::require(rows || plan, "rows and plan are NULL");
    if (plan) i2sb::require_struct(plan, "plan");
    const i2sb::NamedPlan made = i2sb::named_plan(whole);
    i2sb_plan view = made.view();
    view.rows = rows;
    if (rows) std::copy(made.rows.begin(), made.rows.end(), rows);
    if (steps) std::copy(made.steps.begin(), made.steps.end(), steps);
    if (plan) i2sb::give_struct(plan, view);
  });
}
