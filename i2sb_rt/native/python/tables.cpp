// Schedules, plans, noise and tiles.
#include <pybind11/stl.h>

#include <optional>

#include "arrays.hpp"
#include "bindings.hpp"

namespace i2sb::python {
namespace {

i2sb_schedule make_schedule(int32_t interval, double beta_max, double t0, double T) {
  return {sizeof(i2sb_schedule), interval, beta_max, t0, T};
}

py::dict schedule_compute(int32_t interval, double beta_max, double t0, double T) {
  const i2sb_schedule schedule = make_schedule(interval, beta_max, t0, T);
  i2sb_schedule_arrays arrays{};
  arrays.struct_size = sizeof arrays;
  call([&](i2sb_error* error) { return i2sb_schedule_compute(&schedule, &arrays, error); });
  py::dict out;
  const auto array = [&](const char* name) {
    Array<double> made(interval);
    out[name] = made;
    return made.mutable_data();
  };
  arrays.betas = array("betas");
  arrays.std_fwd = array("std_fwd");
  arrays.std_bwd = array("std_bwd");
  arrays.std_sb = array("std_sb");
  arrays.mu_x0 = array("mu_x0");
  arrays.mu_x1 = array("mu_x1");
  arrays.noise_levels = array("noise_levels");
  call([&](i2sb_error* error) { return i2sb_schedule_compute(&schedule, &arrays, error); });
  return out;
}

// Rows and steps of a plan that `make(schedule, rows, steps, error)` fills.
template <typename Make>
py::tuple plan(int32_t interval, double beta_max, double t0, double T, int32_t nfe, Make&& make) {
  const i2sb_schedule schedule = make_schedule(interval, beta_max, t0, T);
  const int32_t rows_wanted = nfe < 1 || nfe > interval ? 1 : nfe;  // the core refuses such a number by itself
  Array<float> rows({static_cast<py::ssize_t>(rows_wanted), static_cast<py::ssize_t>(I2SB_ROW_COLUMNS)});
  Array<int32_t> steps(rows_wanted + 1);
  call([&](i2sb_error* error) { return make(&schedule, rows.mutable_data(), steps.mutable_data(), error); });
  return py::make_tuple(rows, steps);
}

py::tuple plan_posterior(int32_t interval, double beta_max, double t0, double T, int32_t nfe, bool ot_ode, bool mean) {
  return plan(interval, beta_max, t0, T, nfe, [&](auto* schedule, float* rows, int32_t* steps, auto* error) {
    return i2sb_plan_posterior(schedule, mean, nfe, ot_ode, rows, steps, error);
  });
}

py::tuple plan_dbim(int32_t interval, double beta_max, double t0, double T, int32_t nfe, int32_t order, double eta,
                    const std::optional<std::vector<int32_t>>& given, bool mean) {
  if (given && given->size() != static_cast<size_t>(nfe) + 1)
    throw py::value_error("a plan of " + std::to_string(nfe) + " network calls goes through " +
                          std::to_string(static_cast<int64_t>(nfe) + 1) + " steps, not " +
                          std::to_string(given->size()));
  return plan(interval, beta_max, t0, T, nfe, [&](auto* schedule, float* rows, int32_t* steps, auto* error) {
    return i2sb_plan_dbim(schedule, mean, nfe, order, eta, given ? given->data() : nullptr, rows, steps, error);
  });
}

py::tuple plan_i3sb(int32_t interval, double beta_max, double t0, double T, int32_t nfe, double eta, bool mean) {
  return plan(interval, beta_max, t0, T, nfe, [&](auto* schedule, float* rows, int32_t* steps, auto* error) {
    return i2sb_plan_i3sb(schedule, mean, nfe, eta, rows, steps, error);
  });
}

Array<float> noise(uint64_t seed, uint64_t first, uint64_t count, uint32_t row, uint32_t purpose) {
  if (count > static_cast<uint64_t>(PY_SSIZE_T_MAX)) throw py::value_error("count is too large");
  Array<float> out(static_cast<py::ssize_t>(count));
  float* data = out.mutable_data();
  call([&](i2sb_error* error) {
    const py::gil_scoped_release release;
    return i2sb_noise(seed, first, count, row, purpose, data, error);
  });
  return out;
}

Array<float> fill_hole(const py::object& planes, const py::object& mask) {
  const Array<float> given = expect<float>(planes, "planes", 3), hole = expect<float>(mask, "mask", 2);
  expect_shape(hole, "mask", {given.shape(1), given.shape(2)});
  Array<float> out({given.shape(0), given.shape(1), given.shape(2)});
  std::copy(given.data(), given.data() + given.size(), out.mutable_data());
  const int32_t channels = side(given.shape(0)), height = side(given.shape(1)), width = side(given.shape(2));
  float* data = out.mutable_data();
  call([&](i2sb_error* error) {
    const py::gil_scoped_release release;
    return i2sb_fill_hole(channels, height, width, hole.data(), data, error);
  });
  return out;
}

std::vector<int32_t> tile_origins(int32_t size, int32_t tile, int32_t overlap) {
  int32_t count = 0;
  call([&](i2sb_error* error) { return i2sb_tile_origins(size, tile, overlap, nullptr, &count, error); });
  std::vector<int32_t> origins(static_cast<size_t>(count));
  call([&](i2sb_error* error) { return i2sb_tile_origins(size, tile, overlap, origins.data(), &count, error); });
  return origins;
}

}  // namespace

void bind_tables(py::module_& module) {
  using py::arg;
  module.def("schedule_compute", &schedule_compute, arg("interval"), arg("beta_max"), arg("t0"), arg("T"));
  module.def("plan_posterior", &plan_posterior, arg("interval"), arg("beta_max"), arg("t0"), arg("T"), arg("nfe"),
             arg("ot_ode"), arg("mean") = false);
  module.def("plan_dbim", &plan_dbim, arg("interval"), arg("beta_max"), arg("t0"), arg("T"), arg("nfe"), arg("order"),
             arg("eta"), arg("steps") = py::none(), arg("mean") = false);
  module.def("plan_i3sb", &plan_i3sb, arg("interval"), arg("beta_max"), arg("t0"), arg("T"), arg("nfe"), arg("eta"),
             arg("mean") = false);
  module.def("noise", &noise, arg("seed"), arg("first"), arg("count"), arg("row"), arg("purpose"));
  module.def("fill_hole", &fill_hole, arg("planes"), arg("mask"));
  module.def("tile_origins", &tile_origins, arg("size"), arg("tile"), arg("overlap"));
}

}  // namespace i2sb::python
