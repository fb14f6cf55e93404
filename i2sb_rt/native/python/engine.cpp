#include <pybind11/stl.h>

#include <optional>

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
  handle->engine = {sizeof(i2sb_engine), handle.get(), predict, nullptr};
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
      .def_property_readonly("precision",
                             [](const EngineHandle& handle) {
                               return handle.callback ? std::string("callback")
                                                      : i2sb_openvino_precision(&handle.engine);
                             })
      .def_property_readonly("release",
                             [](const EngineHandle& handle) { return i2sb_openvino_release(&handle.engine); });
}

}  // namespace i2sb::python
