#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "arrays.hpp"
#include "bindings.hpp"

namespace i2sb::python {
namespace {

std::shared_ptr<EngineHandle> make_openvino(const ModelHandle& model, int32_t threads, int32_t streams,
                                            const std::string& precision, const std::optional<std::string>& cache_dir,
                                            const std::optional<std::string>& library) {
  i2sb_openvino_options options;
  i2sb_openvino_options_init(&options, sizeof options);
  options.threads = threads;
  options.streams = streams;
  options.precision = precision.c_str();
  options.cache_dir = cache_dir ? cache_dir->c_str() : nullptr;
  options.library = library ? library->c_str() : nullptr;
  auto handle = std::make_shared<EngineHandle>();
  handle->model = model.model;
  check(without_lock([&] { return i2sb_openvino_engine(model.model.get(), &options, &handle->engine); }));
  return handle;
}

// A view of the loop's memory, for the time of the call.
Array<float> view(const float* data, const std::vector<py::ssize_t>& shape) {
  const py::capsule owner(data, [](void*) {});
  Array<float> array(shape, data, owner);
  array.attr("setflags")(py::arg("write") = false);
  return array;
}

// What a Python function raised, for the caller to see as it was, and as a failure of the engine.
i2sb_status failed(const std::exception& fault) {
  callback_exception() = std::current_exception();
  return i2sb_fail(I2SB_ERROR_ENGINE, fault.what());
}

i2sb_status predict(void* self, const i2sb_network_call* call) {
  auto* handle = static_cast<EngineHandle*>(self);
  const Lock lock;
  try {
    const py::object answer = call_python(
        handle->callback, py::make_tuple(view(call->x, {call->batch, call->in_channels, call->height, call->width}),
                                         view(call->t, {call->batch})));
    const auto values = expect<float>(answer, "what the network returns", 4);
    expect_shape(values, "what the network returns", {call->batch, call->out_channels, call->height, call->width});
    std::copy_n(values.data(), values.size(), call->out);
    return I2SB_OK;
  } catch (const std::exception& fault) {
    return failed(fault);
  }
}

std::shared_ptr<EngineHandle> make_callback(py::function callback) {
  auto handle = std::make_shared<EngineHandle>();
  handle->callback = std::move(callback);
  handle->engine.self = handle.get();
  handle->engine.predict = predict;
  return handle;
}

// Gives the whole plan to Python: sample(x, rows, **facts) -> x.
i2sb_status sample(void* self, const i2sb_plan* plan, const i2sb_sample_params* params, float* x) {
  auto* handle = static_cast<EngineHandle*>(self);
  const i2sb_sample_params& p = *params;
  const Lock lock;
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
      const int64_t now = std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
      const i2sb_event event{I2SB_PHASE_NETWORK, row, plan->row_count, 1, 1, now, now};
      return p.progress(p.progress_user, &event) != 0;
    };
    const py::dict facts(
        "x1"_a = view(p.x1, shape), "clip"_a = plan->clip != 0, "known"_a = known_name(plan->known),
        "cond"_a = given(p.cond, {p.batch, p.cond_channels, p.height, p.width}),
        "mask"_a = given(p.mask, {p.batch, 1, p.height, p.width}),
        "seeds"_a = p.seeds ? std::vector<uint64_t>(p.seeds, p.seeds + p.batch) : std::vector<uint64_t>(p.batch),
        "draws"_a = given(p.draws, draws), "trajectory"_a = p.trajectory != nullptr, "tile"_a = p.tile,
        "overlap"_a = p.overlap, "network_batch"_a = p.network_batch,
        "on_row"_a = is_watched() ? py::object(py::cpp_function(observe)) : py::none());
    const py::object answer = call_python(
        handle->callback, py::make_tuple(view(x, shape), view(plan->rows, {plan->row_count, I2SB_ROW_COLUMNS})), facts);
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
    return failed(fault);
  }
}

std::shared_ptr<EngineHandle> make_whole(py::function callback) {
  auto handle = std::make_shared<EngineHandle>();
  handle->callback = std::move(callback);
  handle->engine.self = handle.get();
  handle->engine.sample = sample;
  return handle;
}

}  // namespace

py::object call_python(const py::object& function, const py::tuple& arguments, const py::dict& named) {
  PyObject* answer = or_rest([&] { return PyObject_Call(function.ptr(), arguments.ptr(), named.ptr()); });
  if (!answer) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(answer);
}

std::exception_ptr& callback_exception() {
  thread_local std::exception_ptr raised;
  return raised;
}

bool& is_watched() {
  thread_local bool watched = false;
  return watched;
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
