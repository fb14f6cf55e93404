#include "bindings.hpp"

namespace i2sb::python {
namespace {

struct Kind {
  i2sb_status status;
  const char *name, *doc;
};

constexpr Kind KINDS[] = {
    {I2SB_ERROR_MODEL, "ModelError", "The model file is missing, broken or not a bridge."},
    {I2SB_ERROR_ENGINE, "EngineError", "The inference engine is missing or failed."},
    {I2SB_ERROR_NONFINITE, "NonFiniteError", "The result holds NaN or infinity."},
    {I2SB_ERROR_CANCELLED, "CancelledError", "An observer asked to stop."},
};

}  // namespace

void bind_errors(py::module_& module) {
  const py::object base = py::reinterpret_steal<py::object>(
      PyErr_NewExceptionWithDoc("i2sb_rt._core.CoreError", "A failure inside the core.", PyExc_RuntimeError, nullptr));
  module.attr("CoreError") = base;
  for (const Kind& kind : KINDS)
    module.attr(kind.name) = py::reinterpret_steal<py::object>(
        PyErr_NewExceptionWithDoc((std::string("i2sb_rt._core.") + kind.name).c_str(), kind.doc, base.ptr(), nullptr));
}

void check(i2sb_status status) {
  if (status == I2SB_OK) return;
  const std::string sentence = i2sb_last_error();
  if (status == I2SB_ERROR_ARGUMENT) throw py::value_error(sentence);
  const py::module_ module = py::module_::import("i2sb_rt._core");
  PyObject* type = status == I2SB_ERROR_MEMORY ? PyExc_MemoryError : module.attr("CoreError").ptr();
  for (const Kind& kind : KINDS)
    if (kind.status == status) type = module.attr(kind.name).ptr();
  PyErr_SetString(type, sentence.c_str());
  throw py::error_already_set();
}

}  // namespace i2sb::python
