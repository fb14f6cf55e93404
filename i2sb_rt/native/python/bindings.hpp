// What the module's parts share.
#pragma once

#include <cxxabi.h>
#include <pybind11/pybind11.h>
#include <unistd.h>

#include <memory>
#include <optional>

#include "i2sb_rt.h"

namespace i2sb::python {

namespace py = pybind11;

// Throws the Python exception of a status, unless that is I2SB_OK, with what i2sb_last_error says in this thread.
void check(i2sb_status status);

// Before Python 3.14 a thread that asks for the interpreter's lock while Python shuts down is ended there, by unwinding
// its stack. Through the core's frames that aborts the process: the thread rests instead, until the process is gone.
// `body` makes no C++ objects: they would be destroyed without the lock.
template <typename Body>
auto or_rest(Body&& body) {
  try {
    return body();
  } catch (const abi::__forced_unwind&) {
    for (;;) pause();
  }
}

// Holds the interpreter's lock, in a callback of the core's.
class Lock {
 public:
  Lock() {
    or_rest([&] { lock_.emplace(); });
  }

 private:
  std::optional<py::gil_scoped_acquire> lock_;
};

// Gives the interpreter's lock away, and takes it back.
class Unlocked {
 public:
  Unlocked() : state_(PyEval_SaveThread()) {}
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;
  ~Unlocked() {
    or_rest([&] { PyEval_RestoreThread(state_); });
  }

 private:
  PyThreadState* state_;
};

// Calls into the core without the interpreter's lock.
template <typename Body>
i2sb_status without_lock(Body&& body) {
  const Unlocked unlocked;
  return body();
}

// function(*arguments, **named), in a callback of the core's.
py::object call_python(const py::object& function, const py::tuple& arguments, const py::dict& named = {});

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
