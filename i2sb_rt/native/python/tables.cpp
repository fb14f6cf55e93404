// Schedules, plans, noise and tiles.
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <tuple>

#include "arrays.hpp"
#include "bindings.hpp"

namespace i2sb::python {
namespace {

py::dict schedule_compute(int32_t interval, double beta_max, double t0, double T) {
  const i2sb_schedule schedule{sizeof schedule, interval, beta_max, t0, T};
  constexpr const char* NAMES[] = {"betas", "std_fwd", "std_bwd", "std_sb", "mu_x0", "mu_x1", "noise_levels"};
  const size_t length = interval > 0 && interval <= 1000000 ? static_cast<size_t>(interval) : 1;  // else it is refused
  std::vector<double> arrays(std::size(NAMES) * length);
  check(i2sb_schedule_compute(&schedule, arrays.data()));
  py::dict out;
  for (size_t i = 0; i < std::size(NAMES); ++i)
    out[NAMES[i]] = Array<double>(static_cast<py::ssize_t>(length), arrays.data() + i * length);
  return out;
}

// (rows [nfe,10], steps [nfe+1], clip, known); what is None is the model's.
py::tuple plan(const std::optional<std::string>& sampler, int32_t nfe, const ModelHandle* model,
               const std::optional<std::tuple<int32_t, double, double, double>>& schedule_in,
               const std::optional<std::string>& prediction, const std::optional<double>& eta,
               const std::optional<std::vector<int32_t>>& steps_in, const std::optional<bool>& clip,
               const std::optional<std::vector<double>>& gammas, const std::optional<std::string>& direction) {
  i2sb_schedule schedule{};
  i2sb_plan_params params;
  i2sb_plan_params_init(&params, sizeof params);
  if (schedule_in) {
    const auto& [interval, beta_max, t0, T] = *schedule_in;
    schedule = {sizeof schedule, interval, beta_max, t0, T};
    params.schedule = &schedule;
  }
  params.model = model ? model->model.get() : nullptr;
  params.nfe = nfe;
  params.sampler = sampler ? sampler->c_str() : nullptr;
  params.prediction = prediction ? prediction->c_str() : nullptr;
  if (eta && *eta < 0) throw py::value_error("eta must be a number from 0 to 1");
  if (eta) params.eta = *eta;
  if (clip) params.clip = *clip;
  if (gammas) {
    static constexpr double none = 0;  // an empty vector has no address, which would mean the model's own
    params.gammas = gammas->empty() ? &none : gammas->data();
    params.gamma_count = static_cast<int32_t>(std::min<size_t>(gammas->size(), INT32_MAX));
  }
  params.direction = direction ? direction->c_str() : nullptr;
  i2sb_plan made{};
  made.struct_size = sizeof made;
  check(i2sb_plan_make(&params, nullptr, nullptr, &made));
  if (steps_in && steps_in->size() != static_cast<size_t>(made.row_count) + 1)
    throw py::value_error("a plan of " + std::to_string(nfe) + " network calls goes through " +
                          std::to_string(made.row_count + 1) + " steps, not " + std::to_string(steps_in->size()));
  if (steps_in) params.steps = steps_in->data();
  Array<float> rows({static_cast<py::ssize_t>(made.row_count), static_cast<py::ssize_t>(I2SB_ROW_COLUMNS)});
  Array<int32_t> steps(static_cast<py::ssize_t>(made.row_count) + 1);
  check(i2sb_plan_make(&params, rows.mutable_data(), steps.mutable_data(), &made));
  return py::make_tuple(rows, steps, made.clip != 0, known_name(made.known));
}

Array<float> noise(uint64_t seed, uint64_t first, uint64_t count, uint32_t row, uint32_t purpose) {
  if (count > static_cast<uint64_t>(PY_SSIZE_T_MAX)) throw py::value_error("count is too large");
  Array<float> out(static_cast<py::ssize_t>(count));
  float* data = out.mutable_data();
  check(without_lock([&] { return i2sb_noise(seed, first, count, row, purpose, data); }));
  return out;
}

Array<float> fill_hole(const py::object& planes, const py::object& mask) {
  const Array<float> given = expect<float>(planes, "planes", 3), hole = expect<float>(mask, "mask", 2);
  expect_shape(hole, "mask", {given.shape(1), given.shape(2)});
  Array<float> out({given.shape(0), given.shape(1), given.shape(2)});
  std::copy(given.data(), given.data() + given.size(), out.mutable_data());
  const int32_t channels = side(given.shape(0)), height = side(given.shape(1)), width = side(given.shape(2));
  float* data = out.mutable_data();
  check(without_lock([&] { return i2sb_fill_hole(channels, height, width, hole.data(), data); }));
  return out;
}

std::vector<int32_t> tile_origins(int32_t size, int32_t tile, int32_t overlap) {
  int32_t count = 0;
  check(i2sb_tile_origins(size, tile, overlap, nullptr, &count));
  std::vector<int32_t> origins(static_cast<size_t>(count));
  check(i2sb_tile_origins(size, tile, overlap, origins.data(), &count));
  return origins;
}

}  // namespace

void bind_tables(py::module_& module) {
  using py::arg;
  module.def("schedule_compute", &schedule_compute, arg("interval"), arg("beta_max"), arg("t0"), arg("T"));
  module.def("plan", &plan, arg("sampler"), arg("nfe"), py::kw_only(), arg("model") = nullptr,
             arg("schedule") = py::none(), arg("prediction") = py::none(), arg("eta") = py::none(),
             arg("steps") = py::none(), arg("clip") = py::none(), arg("gammas") = py::none(),
             arg("direction") = py::none());
  module.def("noise", &noise, arg("seed"), arg("first"), arg("count"), arg("row"), arg("purpose"));
  module.def("fill_hole", &fill_hole, arg("planes"), arg("mask"));
  module.def("tile_origins", &tile_origins, arg("size"), arg("tile"), arg("overlap"));
}

}  // namespace i2sb::python
