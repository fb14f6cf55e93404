#include "bindings.hpp"

PYBIND11_MODULE(_core, module) {
  using namespace i2sb::python;
  module.doc() = "The native core of i2sb_rt, bound through i2sb_rt.h.";
  module.def("version", &i2sb_version_string);
  bind_errors(module);
  bind_tables(module);
  bind_model(module);
  bind_engine(module);
  bind_sampling(module);
}
