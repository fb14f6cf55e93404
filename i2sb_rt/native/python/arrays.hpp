// NumPy arrays at the seam: checked once, here.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

namespace i2sb::python {

namespace py = pybind11;

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

// An argument that must be a contiguous array of T with this many axes; nothing is converted.
template <typename T>
Array<T> expect(const py::handle& value, const char* name, py::ssize_t axes) {
  if (!py::isinstance<Array<T>>(value))
    throw py::type_error(std::string(name) + " must be a C-contiguous array of " +
                         std::string(py::str(py::dtype::of<T>())));
  auto array = py::reinterpret_borrow<Array<T>>(value);
  if (array.ndim() != axes)
    throw py::value_error(std::string(name) + " must have " + std::to_string(axes) + " axes, not " +
                          std::to_string(array.ndim()));
  return array;
}

template <typename T>
std::optional<Array<T>> expect_or_none(const py::handle& value, const char* name, py::ssize_t axes) {
  if (value.is_none()) return std::nullopt;
  return expect<T>(value, name, axes);
}

template <typename T>
void expect_shape(const Array<T>& array, const char* name, const std::vector<py::ssize_t>& shape) {
  if (std::equal(shape.begin(), shape.end(), array.shape(), array.shape() + array.ndim())) return;
  const auto text = [](const auto* first, const auto* last) {
    std::string out = "[";
    for (; first != last; ++first) out += (out.size() > 1 ? "," : "") + std::to_string(*first);
    return out + "]";
  };
  throw py::value_error(std::string(name) + " must be " + text(shape.data(), shape.data() + shape.size()) + ", not " +
                        text(array.shape(), array.shape() + array.ndim()));
}

template <typename T>
const T* data_or_null(const std::optional<Array<T>>& array) {
  return array ? array->data() : nullptr;
}

inline int32_t side(py::ssize_t value) {
  if (value < 0 || value > INT32_MAX) throw py::value_error("an axis is longer than 2^31 - 1");
  return static_cast<int32_t>(value);
}

}  // namespace i2sb::python
