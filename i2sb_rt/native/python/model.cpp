#include <pybind11/stl.h>

#include "bindings.hpp"

namespace i2sb::python {
namespace {

std::shared_ptr<ModelHandle> open(const std::string& path) {
  i2sb_model_params params;
  i2sb_model_params_init(&params, sizeof params);
  params.path = path.c_str();
  i2sb_model* model = nullptr;
  check(without_lock([&] { return i2sb_model_load(&params, &model); }));
  return std::make_shared<ModelHandle>(ModelHandle{{model, i2sb_model_free}});
}

py::dict metadata(const ModelHandle& handle) {
  py::dict out;
  for (int32_t i = 0; i < i2sb_model_metadata_count(handle.model.get()); ++i) {
    const char *key = nullptr, *value = nullptr;
    i2sb_model_metadata_at(handle.model.get(), i, &key, &value);
    out[py::str(key)] = py::str(value);
  }
  return out;
}

py::dict tensors(const ModelHandle& handle) {
  py::dict out;
  for (int32_t i = 0; i < i2sb_model_tensor_count(handle.model.get()); ++i) {
    i2sb_tensor view{};
    view.struct_size = sizeof view;
    check(i2sb_model_tensor_at(handle.model.get(), i, &view));
    py::tuple shape(view.rank);
    for (int32_t axis = 0; axis < view.rank; ++axis) shape[static_cast<size_t>(axis)] = view.dims[axis];
    out[py::str(view.name)] =
        py::make_tuple(view.onnx_type, shape, py::bytes(static_cast<const char*>(view.data), view.data_size));
  }
  return out;
}

py::dict layout(const ModelHandle& handle, int32_t width, int32_t height, int32_t tile, int32_t overlap) {
  i2sb_layout found{};
  found.struct_size = sizeof found;
  check(i2sb_model_layout(handle.model.get(), width, height, tile, overlap, &found));
  py::dict out;
  out["width"] = found.width;
  out["height"] = found.height;
  out["padded_width"] = found.padded_width;
  out["padded_height"] = found.padded_height;
  out["tile"] = found.tile;
  out["overlap"] = found.overlap;
  out["tile_count"] = found.tile_count;
  return out;
}

}  // namespace

void bind_model(py::module_& module) {
  using py::arg;
  py::class_<ModelHandle, std::shared_ptr<ModelHandle>>(module, "Model")
      .def(py::init(&open), arg("path"))
      .def_property_readonly("metadata", &metadata)
      .def("tensors", &tensors)
      .def("layout", &layout, arg("width"), arg("height"), arg("tile") = -1, arg("overlap") = -1);
}

}  // namespace i2sb::python
