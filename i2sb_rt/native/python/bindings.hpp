// What the module's parts share.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "i2sb_rt.h"

namespace i2sb::python {

namespace py = pybind11;

// Throws the Python exception of a status, unless that is I2SB_OK, with what i2sb_last_error says in this thread.
void check(i2sb_status status);

// Calls into the core without the interpreter's lock.
template <typename Body>
i2sb_status without_lock(Body&& body) {
  const py::gil_scoped_release release;
  return body();
}

// What a mask does outside the hole, in Python's words: i2sb_plan.known.
inline const char* known_name(int32_t known) { return known == 0 ? "x0" : "renew"; }

struct ModelHandle {
  std::shared_ptr<i2sb_model> model;
};

// An engine and what it needs to stay alive.
struct EngineHandle {
  i2sb_engine engine{sizeof(i2sb_engine), nullptr, nullptr, nullptr, nullptr};
  std::shared_ptr<i2sb_model> model;
  py::object callback;

  EngineHandle() = default;
  EngineHandle(const EngineHandle&) = delete;
  EngineHandle& operator=(const EngineHandle&) = delete;
  ~EngineHandle() { i2sb_engine_free(&engine); }
};

// Whether Python watches what this thread runs: else an engine for whole plans need not tell of its rows.
bool& is_watched();

// What a callback engine's function raised in this thread, kept so that the caller sees it as it was.
std::exception_ptr& callback_exception();

void bind_errors(py::module_& module);
void bind_tables(py::module_& module);
void bind_model(py::module_& module);
void bind_engine(py::module_& module);
void bind_sampling(py::module_& module);

}  // namespace i2sb::python
