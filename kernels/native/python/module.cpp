// i2sb_kernels._native: the C interface on NumPy arrays. Checks types, shapes and layout; computes nothing.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "i2sb_kernels.h"

namespace py = pybind11;
using namespace py::literals;

namespace {

using Shape = std::vector<py::ssize_t>;
using MaybeArray = std::optional<py::array>;

constexpr std::array<const char*, 3> kIsaNames = {"scalar", "avx2", "avx512"};

std::string isa_best() { return kIsaNames.at(static_cast<size_t>(i2sb_isa_best())); }

int32_t isa_of(const std::string& name) {
  if (name == "auto") return I2SB_ISA_AUTO;
  for (int32_t isa = 0; isa <= i2sb_isa_best(); ++isa) {
    if (name == kIsaNames.at(static_cast<size_t>(isa))) return isa;
  }
  throw py::value_error("isa is '" + name + "'; this build on this CPU has 'auto' and 'scalar' up to '" + isa_best() +
                        "'");
}

int32_t known_of(const std::string& name) {
  if (name == "x0") return I2SB_KNOWN_X0;
  if (name == "renew") return I2SB_KNOWN_RENEW;
  throw py::value_error("known is '" + name + "'; it must be 'x0' or 'renew'");
}

int32_t checked_threads(int32_t threads) {
  if (threads < 1) throw py::value_error("threads is " + std::to_string(threads) + "; it must be at least 1");
  return threads;
}

std::string text(const Shape& shape) { return py::str(py::tuple(py::cast(shape))); }

Shape shape_of(const py::array& array) { return {array.shape(), array.shape() + array.ndim()}; }

// The data of an array that must be contiguous and of type T; shape: what it must have, where that is fixed.
template <class T>
T* data_of(const char* name, const py::array& array, const Shape* shape, bool written) {
  const std::string start = std::string(name) + " ";
  if (!array.dtype().is(py::dtype::of<T>())) {
    throw py::type_error(start + "is " + std::string(py::str(array.dtype())) + "; it must be " +
                         std::string(py::str(py::dtype::of<T>())));
  }
  if ((array.flags() & py::array::c_style) == 0) throw py::value_error(start + "must be contiguous, in C order");
  if (shape != nullptr && shape_of(array) != *shape) {
    throw py::value_error(start + "has shape " + text(shape_of(array)) + "; it must be " + text(*shape));
  }
  if (written && !array.writeable()) throw py::value_error(start + "is read-only and would be written");
  return static_cast<T*>(const_cast<void*>(array.data()));
}

const float* read(const char* name, const MaybeArray& array, const Shape& shape) {
  return array ? data_of<float>(name, *array, &shape, false) : nullptr;
}

void require(bool there, const char* sentence) {
  if (!there) throw py::value_error(sentence);
}

void check_needs(const i2sb_bridge_step_args& args) {
  const float* row = args.row;
  const bool renews = args.mask != nullptr && args.known == I2SB_KNOWN_RENEW && row[I2SB_COL_R] != 0;
  const bool draws = (row[I2SB_COL_S] != 0 && args.z == nullptr) || (renews && args.z_known == nullptr);
  require(args.x1 != nullptr || row[I2SB_COL_C] == 0, "x1 is missing, and the row's c is not zero");
  require(args.x1 != nullptr || args.mask == nullptr, "x1 is missing, and there is a mask");
  require(args.h1 != nullptr || row[I2SB_COL_D] == 0, "h1 is missing, and the row's d is not zero");
  require(args.h2 != nullptr || row[I2SB_COL_E] == 0, "h2 is missing, and the row's e is not zero");
  require(args.seeds != nullptr || !draws, "seeds are missing, and the row draws noise");
  const float* others[] = {args.o, args.x1, args.h1, args.h2, args.x0, args.z, args.z_known, args.mask};
  for (const float* other : others) require(other != args.x, "x is overwritten; it cannot be another array too");
  const float* inputs[] = {args.o, args.x1, args.z, args.z_known, args.mask};
  for (const float* input : inputs) {
    require(args.x0 == nullptr || input != args.x0, "x0 is overwritten; of the inputs it may be h1 or h2 alone");
  }
}

void bridge_step(const py::array& x, const py::array& o, const py::array& row, uint32_t row_index, bool clip,
                 const std::string& known, const MaybeArray& x1, const MaybeArray& mask, const MaybeArray& h1,
                 const MaybeArray& h2, const MaybeArray& x0, const MaybeArray& z, const MaybeArray& z_known,
                 const MaybeArray& seeds, int32_t threads, const std::string& isa) {
  const Shape shape = shape_of(x);
  if (shape.size() < 2) throw py::value_error("x has shape " + text(shape) + "; it must be [batch, channels, ...]");
  Shape mask_shape = shape;
  mask_shape[1] = 1;
  const Shape row_shape = {I2SB_PLAN_COLUMNS}, batch_shape = {shape[0]};

  i2sb_bridge_step_args args = {};
  args.batch = shape[0];
  args.channels = shape[1];
  args.pixels = 1;
  for (size_t i = 2; i < shape.size(); ++i) args.pixels *= shape[i];
  args.row = data_of<float>("row", row, &row_shape, false);
  args.row_index = row_index;
  args.clip = clip;
  args.known = known_of(known);
  args.x = data_of<float>("x", x, nullptr, true);
  args.o = data_of<float>("o", o, &shape, false);
  args.x1 = read("x1", x1, shape);
  args.mask = read("mask", mask, mask_shape);
  args.h1 = read("h1", h1, shape);
  args.h2 = read("h2", h2, shape);
  args.x0 = x0 ? data_of<float>("x0", *x0, &shape, true) : nullptr;
  args.z = read("z", z, shape);
  args.z_known = read("z_known", z_known, shape);
  args.seeds = seeds ? data_of<uint64_t>("seeds", *seeds, &batch_shape, false) : nullptr;
  args.threads = checked_threads(threads);
  args.isa = isa_of(isa);
  check_needs(args);
  const py::gil_scoped_release released;
  i2sb_bridge_step(&args);
}

void noise_fill(const py::array& out, uint64_t seed, uint64_t first, uint32_t row, uint32_t purpose, int32_t threads,
                const std::string& isa) {
  float* data = data_of<float>("out", out, nullptr, true);
  const auto count = static_cast<uint64_t>(out.size());
  checked_threads(threads);
  const int32_t which = isa_of(isa);
  const py::gil_scoped_release released;
  i2sb_noise_fill(seed, first, count, row, purpose, data, threads, which);
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "The CPU kernels of i2sb_kernels.";
  m.def("isa_best", &isa_best);
  m.def("bridge_step", &bridge_step, "x"_a, "o"_a, "row"_a, "row_index"_a, py::kw_only(), "clip"_a = false,
        "known"_a = "renew", "x1"_a = py::none(), "mask"_a = py::none(), "h1"_a = py::none(), "h2"_a = py::none(),
        "x0"_a = py::none(), "z"_a = py::none(), "z_known"_a = py::none(), "seeds"_a = py::none(), "threads"_a = 1,
        "isa"_a = "auto");
  m.def("noise_fill", &noise_fill, "out"_a, "seed"_a, "first"_a = 0, "row"_a = 0, "purpose"_a = 0, py::kw_only(),
        "threads"_a = 1, "isa"_a = "auto");
}
