#include <pybind11/stl.h>

#include <optional>

#include "../src/session.hpp"
#include "arrays.hpp"
#include "bindings.hpp"

namespace i2sb::python {
namespace {

std::shared_ptr<EngineHandle> make_openvino(const ModelHandle& model, int32_t threads, int32_t streams,
                                            const std::string& precision, const std::optional<std::string>& cache_dir,
                                            const std::optional<std::string>& library) {
  const i2sb_openvino_options options{sizeof(i2sb_openvino_options),
                                      threads,
                                      streams,
                                      precision.c_str(),
                                      cache_dir ? cache_dir->c_str() : nullptr,
                                      library ? library->c_str() : nullptr};
  auto handle = std::make_shared<EngineHandle>();
  handle->model = model.model;
  call([&](i2sb_error* error) {
    const py::gil_scoped_release release;
    return i2sb_openvino_engine(model.model.get(), &options, &handle->engine, error);
  });
  return handle;
}

// A view of the loop's memory, for the time of the call.
Array<float> view(const float* data, const std::vector<py::ssize_t>& shape) {
  const py::capsule owner(data, [](void*) {});
  Array<float> array(shape, data, owner);
  array.attr("setflags")(py::arg("write") = false);
  return array;
}

i2sb_status predict(void* self, int32_t batch, int32_t in_channels, int32_t out_channels, int32_t height, int32_t width,
                    const float* x, const float* t, float* out, i2sb_error* error) {
  auto* handle = static_cast<EngineHandle*>(self);
  const py::gil_scoped_acquire acquire;
  try {
    const py::object answer = handle->callback(view(x, {batch, in_channels, height, width}), view(t, {batch}));
    const auto values = expect<float>(answer, "what the network returns", 4);
    expect_shape(values, "what the network returns", {batch, out_channels, height, width});
    std::copy_n(values.data(), values.size(), out);
    return I2SB_OK;
  } catch (const std::exception& fault) {
    callback_exception() = std::current_exception();
    std::snprintf(error->message, sizeof error->message, "%s", fault.what());
    return I2SB_ERROR_ENGINE;
  }
}

std::shared_ptr<EngineHandle> make_callback(py::function callback) {
  auto handle = std::make_shared<EngineHandle>();
  handle->callback = std::move(callback);
  handle->engine = {sizeof(i2sb_engine), handle.get(), predict, nullptr, nullptr};
  return handle;
}

// Gives the whole plan to Python: sample(x, rows, **facts) -> x.
i2sb_status sample(void* self, const i2sb_plan* plan, const i2sb_sample_params* params, float* x, i2sb_error* error) {
  auto* handle = static_cast<EngineHandle*>(self);
  const i2sb_sample_params& p = *params;
  const py::gil_scoped_acquire acquire;
  try {
    using namespace py::literals;
    const std::vector<py::ssize_t> shape{p.batch, p.channels, p.height, p.width};
    const auto given = [](const float* data, const std::vector<py::ssize_t>& dims) {
      return data ? py::object(view(data, dims)) : py::none();
    };
    std::vector<py::ssize_t> draws = shape, states = shape;
    draws.insert(draws.begin(), p.draw_count);
    states.insert(states.begin() + 1, plan->row_count);
    const auto observe = [&](int row) {
      const int64_t now = now_ns();
      const i2sb_event event{I2SB_PHASE_NETWORK, row, plan->row_count, 1, 1, now, now};
      return p.observer(p.observer_user, &event) != 0;
    };
    const py::object answer = handle->callback(
        view(x, shape), view(plan->rows, {plan->row_count, I2SB_ROW_COLUMNS}), "x1"_a = view(p.x1, shape),
        "clip"_a = plan->clip != 0, "known"_a = plan->known == I2SB_KNOWN_IS_X0 ? "x0" : "renew",
        "cond"_a = given(p.cond, {p.batch, p.cond_channels, p.height, p.width}),
        "mask"_a = given(p.mask, {p.batch, 1, p.height, p.width}),
        "seeds"_a = p.seeds ? std::vector<uint64_t>(p.seeds, p.seeds + p.batch) : std::vector<uint64_t>(p.batch),
        "draws"_a = given(p.draws, draws), "trajectory"_a = p.trajectory != nullptr, "tile"_a = p.tile,
        "overlap"_a = p.overlap, "network_batch"_a = p.network_batch,
        "on_row"_a = p.observer ? py::object(py::cpp_function(observe)) : py::none());
    const auto [result, path] = py::cast<std::pair<py::object, py::object>>(answer);
    const auto values = expect<float>(result, "what the engine returns", 4);
    expect_shape(values, "what the engine returns", shape);
    if (p.trajectory) {
      const auto all = expect<float>(path, "the trajectory that the engine returns", 5);
      expect_shape(all, "the trajectory that the engine returns", states);
      std::copy_n(all.data(), all.size(), p.trajectory);
    }
    std::copy_n(values.data(), values.size(), x);
    return I2SB_OK;
  } catch (const std::exception& fault) {
    callback_exception() = std::current_exception();
    std::snprintf(error->message, sizeof error->message, "%s", fault.what());
    return I2SB_ERROR_ENGINE;
  }
}

std::shared_ptr<EngineHandle> make_whole(py::function callback) {
  auto handle = std::make_shared<EngineHandle>();
  handle->callback = std::move(callback);
  handle->engine = {sizeof(i2sb_engine), handle.get(), nullptr, nullptr, sample};
  return handle;
}

}  // namespace

std::exception_ptr& callback_exception() {
  thread_local std::exception_ptr raised;
  return raised;
}

void bind_engine(py::module_& module) {
  using py::arg;
  py::class_<EngineHandle, std::shared_ptr<EngineHandle>>(module, "Engine")
      .def_static("openvino", &make_openvino, arg("model"), arg("threads") = 0, arg("streams") = 1,
                  arg("precision") = "auto", arg("cache_dir") = py::none(), arg("library") = py::none())
      .def_static("callback", &make_callback, arg("predict"))
      .def_static("whole", &make_whole, arg("sample"))
      .def_property_readonly("precision",
                             [](const EngineHandle& handle) {
                               return handle.callback ? std::string("callback")
                                                      : i2sb_openvino_precision(&handle.engine);
                             })
      .def_property_readonly("release",
                             [](const EngineHandle& handle) { return i2sb_openvino_release(&handle.engine); });
}

}  // namespace i2sb::python
