// The steps of a diffusion Schrodinger bridge (arXiv 2106.01357), compiled to rows.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "failure.hpp"
#include "i2sb_kernels.h"
#include "loop.hpp"
#include "model_file.hpp"
#include "plan.hpp"

namespace i2sb {
namespace {

constexpr double TIME_SCALE = 1000;  // the network's time at the end of the bridge: sinusoids are made for such times

constexpr int MOST_GAMMAS = 1000000;
bool is_gamma(double value) { return value >= 1e-12 && value <= 1e12; }

struct Bridge {
  std::vector<double> gammas;  // from the data onwards
  bool backward;
  std::string prediction;
  int nfe;
};

// Sums of the gammas, from 0: the time of each state.
std::vector<double> times_of(const std::vector<double>& gammas) {
  std::vector<double> times{0};
  for (const double gamma : gammas) times.push_back(times.back() + gamma);
  return times;
}

// What the network's output is to be multiplied by to be gamma f, where f is its drift; `own` is the gamma of the step
// that it was trained for.
double scale_of(const std::string& prediction, double gamma, double own) {
  if (prediction == "drift") return gamma;
  return prediction == "noise" ? gamma * std::sqrt(2 / own) : 1;
}

// Euler-Maruyama (arXiv 2106.01357, section 3.3): x' = x + gamma f(x) + sqrt(2 gamma) z, where several steps taken in
// one have the sum of their gammas; the last one is without noise.
std::vector<float> rows_of(const Bridge& bridge, const std::vector<int>& steps) {
  const std::vector<double> times = times_of(bridge.gammas);
  std::vector<float> rows;
  for (int i = 0; i < bridge.nfe; ++i) {
    const int here = steps[bridge.backward ? bridge.nfe - i : i],
              next = steps[bridge.backward ? bridge.nfe - i - 1 : i + 1];
    const auto [low, high] = std::minmax(here, next);
    const double gamma = std::accumulate(bridge.gammas.begin() + low, bridge.gammas.begin() + high, 0.0);
    float row[I2SB_ROW_COLUMNS] = {};
    row[I2SB_COL_T] = static_cast<float>(TIME_SCALE * times[here] / times.back());
    row[I2SB_COL_P] = bridge.prediction == "mean" ? 0 : 1;
    row[I2SB_COL_Q] =
        static_cast<float>(scale_of(bridge.prediction, gamma, bridge.gammas[bridge.backward ? here - 1 : here]));
    row[I2SB_COL_B] = 1;
    row[I2SB_COL_S] = i + 1 == bridge.nfe ? 0 : static_cast<float>(std::sqrt(2 * gamma));
    rows.insert(rows.end(), row, row + I2SB_ROW_COLUMNS);
  }
  return rows;
}

std::vector<double> gammas_of(const i2sb_plan_params& p) {
  if (!p.gammas) {
    if (!p.model) fail(I2SB_ERROR_ARGUMENT, "a plan of the sampler dsb needs gammas or a model");
    if (!p.model->rules.is_dsb())
      fail(I2SB_ERROR_ARGUMENT, "the model " + std::string(p.model->rules.name) +
                                    " has a schedule, so it takes any "
                                    "sampler but dsb");
    return parse_gammas(p.model->rules.gammas);
  }
  require(p.gamma_count >= 1 && p.gamma_count <= MOST_GAMMAS, "gamma_count must be from 1 to 1000000");
  std::vector<double> gammas(p.gammas, p.gammas + p.gamma_count);
  require(std::all_of(gammas.begin(), gammas.end(), is_gamma), "gammas must be from 1e-12 to 1e12");
  return gammas;
}

Bridge complete(const i2sb_plan_params& p) {
  const ModelRules* rules = p.model && p.model->rules.is_dsb() ? &p.model->rules : nullptr;
  require(!p.schedule, "the sampler dsb has gammas in place of a schedule");
  require(!p.steps, "steps are a choice of the samplers dbim1, dbim2 and dbim3, not of dsb");
  require(p.eta < 0, "eta is a choice of the samplers dbim1 and i3sb, not of dsb");
  require(p.clip <= 0, "the states of dsb are no images until the end, so clip must be 0");
  require(p.direction || rules, "a plan of the sampler dsb needs a direction or a model");
  const std::string direction = p.direction ? p.direction : rules->direction;
  require(direction == "forward" || direction == "backward", "direction must be forward or backward");
  Bridge bridge{gammas_of(p), direction == "backward",
                p.prediction ? p.prediction : (rules ? rules->prediction : "drift"), 0};
  const auto count = static_cast<int>(bridge.gammas.size());
  bridge.nfe = p.nfe != 0 ? p.nfe : (rules && !p.gammas ? rules->nfe : count);
  const std::string& kind = bridge.prediction;
  if (kind != "drift" && kind != "noise" && kind != "mean" && kind != "residual")
    fail(I2SB_ERROR_ARGUMENT,
         "prediction is \"drift\", \"noise\", \"mean\" or \"residual\" for the sampler dsb, not \"" + kind + "\"");
  if (bridge.nfe < 1 || bridge.nfe > count)
    fail(I2SB_ERROR_ARGUMENT, "nfe must be from 1 to " + std::to_string(count) + " (the number of gammas), not " +
                                  std::to_string(bridge.nfe));
  if (bridge.nfe != count && kind != "drift" && kind != "noise")
    fail(I2SB_ERROR_ARGUMENT, "a network that predicts the " + kind + " knows its own steps alone, so nfe must be " +
                                  std::to_string(count) + ", not " + std::to_string(bridge.nfe));
  return bridge;
}

}  // namespace

std::vector<double> parse_gammas(std::string_view text) {
  std::vector<double> gammas;
  for (const char *at = text.data(), *end = at + text.size(); gammas.size() < MOST_GAMMAS;) {
    double gamma = 0;
    const auto [after, problem] = std::from_chars(at, end, gamma);
    if (problem != std::errc{} || !is_gamma(gamma)) return {};
    gammas.push_back(gamma);
    if (after == end) return gammas;
    if (*after != ',') return {};
    at = after + 1;
  }
  return {};
}

NamedPlan dsb_plan(const i2sb_plan_params& params) {
  const Bridge bridge = complete(params);
  NamedPlan plan;
  plan.steps = spaced_steps(static_cast<int>(bridge.gammas.size()) + 1, bridge.nfe);
  plan.rows = rows_of(bridge, plan.steps);
  check_plan(plan.view());
  return plan;
}

}  // namespace i2sb
