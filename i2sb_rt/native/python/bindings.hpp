// What the module's parts share.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "i2sb_rt.h"

namespace i2sb::python {

namespace py = pybind11;

// Throws the Python exception of a failed status.
void raise(i2sb_status status, const i2sb_error& error);

// Calls `body(error)` and raises if it fails.
template <typename Body>
void call(Body&& body) {
  i2sb_error error{};
  const i2sb_status status = body(&error);
  if (status != I2SB_OK) raise(status, error);
}

struct ModelHandle {
  std::shared_ptr<i2sb_model> model;
};

// An engine and what it needs to stay alive.
struct EngineHandle {
  i2sb_engine engine{};
  std::shared_ptr<i2sb_model> model;
  py::object callback;

  EngineHandle() = default;
  EngineHandle(const EngineHandle&) = delete;
  EngineHandle& operator=(const EngineHandle&) = delete;
  ~EngineHandle() {
    if (engine.free) engine.free(engine.self);
  }
};

// What a callback engine's function raised in this thread, kept so that the caller sees it as it was.
std::exception_ptr& callback_exception();

void bind_errors(py::module_& module);
void bind_tables(py::module_& module);
void bind_model(py::module_& module);
void bind_engine(py::module_& module);
void bind_sampling(py::module_& module);

}  // namespace i2sb::python
