#include <exception>
#include <memory>
#include <optional>
#include <utility>

#include "arrays.hpp"
#include "bindings.hpp"

namespace i2sb::python {
namespace {

// Whether signals come to this thread: Python's first one alone runs their handlers.
bool hears_signals() {
  const py::module_ threading = py::module_::import("threading");
  return threading.attr("get_ident")().equal(threading.attr("main_thread")().attr("ident"));
}

// A Python observer, which may be None, and Ctrl-C behind the C callback; the exception of either stops the loop and is
// raised again.
struct Observer {
  explicit Observer(py::object function) : function(std::move(function)) {}

  py::object function;
  std::exception_ptr raised;

  // NULL where there is nothing to ask.
  i2sb_progress progress() const { return !function.is_none() || hears_signals() ? &call : nullptr; }

  static int32_t call(void* user, const i2sb_event* event) {
    constexpr const char* PHASES[] = {"network", "step", "prepare", "finish"};
    auto* observer = static_cast<Observer*>(user);
    const Lock lock;
    try {
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
      if (observer->function.is_none()) return 0;
      const py::object stop = call_python(
          observer->function, py::make_tuple(PHASES[event->phase], event->row, event->row_count, event->tile,
                                             event->tile_count, event->begin_ns, event->end_ns));
      return !stop.is_none() && py::cast<bool>(stop);
    } catch (...) {
      observer->raised = std::current_exception();
      return 1;
    }
  }
};

i2sb_plan make_plan(const Array<float>& rows, bool clip, const std::string& known) {
  if (rows.shape(1) != I2SB_ROW_COLUMNS)
    throw py::value_error("rows must be [nfe," + std::to_string(I2SB_ROW_COLUMNS) + "]");
  if (known != "renew" && known != "x0") throw py::value_error("known must be 'renew' or 'x0', not '" + known + "'");
  return {sizeof(i2sb_plan), side(rows.shape(0)), rows.data(), clip, known == "renew"};
}

// Runs `body(session)` without the interpreter's lock; exceptions of Python callbacks come before the core's own error.
template <typename Body>
void run(const i2sb_model* model, const EngineHandle& engine, int32_t threads, Observer& observer, Body&& body) {
  i2sb_session_params params;
  i2sb_session_params_init(&params, sizeof params);
  params.engine = &engine.engine;
  params.threads = threads;
  i2sb_session* made = nullptr;
  check(i2sb_session_create(model, &params, &made));
  const std::unique_ptr<i2sb_session, void (*)(i2sb_session*)> session(made, i2sb_session_free);
  callback_exception() = nullptr;
  is_watched() = !observer.function.is_none();
  const i2sb_status status = without_lock([&] { return body(session.get()); });
  // Taken in any case: nothing that Python raised may outlive the call in this thread.
  const std::exception_ptr raised = std::exchange(callback_exception(), nullptr);
  if (observer.raised) std::rethrow_exception(observer.raised);
  if (status == I2SB_OK) return;
  if (raised) std::rethrow_exception(raised);
  check(status);
}

std::vector<uint64_t> seed_list(const py::handle& seeds, py::ssize_t batch) {
  std::vector<uint64_t> list;
  if (seeds.is_none()) return list;
  for (const py::handle seed : seeds) list.push_back(py::cast<uint64_t>(seed));
  if (list.size() != static_cast<size_t>(batch))
    throw py::value_error("seeds must hold one for each image: " + std::to_string(batch) + ", not " +
                          std::to_string(list.size()));
  return list;
}

Array<float> sample(EngineHandle& engine, const py::object& rows_in, const py::object& x1_in, bool clip,
                    const std::string& known, const py::object& start_in, const py::object& cond_in,
                    const py::object& mask_in, const py::object& seeds_in, const py::object& draws_in, bool trajectory,
                    int32_t tile, int32_t overlap, int32_t network_batch, int32_t threads, py::object observer_in) {
  const auto rows = expect<float>(rows_in, "rows", 2), x1 = expect<float>(x1_in, "x1", 4);
  const i2sb_plan plan = make_plan(rows, clip, known);
  const py::ssize_t B = x1.shape(0), C = x1.shape(1), H = x1.shape(2), W = x1.shape(3);
  const auto start = expect_or_none<float>(start_in, "start", 4), cond = expect_or_none<float>(cond_in, "cond", 4),
             mask = expect_or_none<float>(mask_in, "mask", 4), draws = expect_or_none<float>(draws_in, "noise", 5);
  if (start) expect_shape(*start, "start", {B, C, H, W});
  if (cond) expect_shape(*cond, "cond", {B, cond->shape(1), H, W});
  if (mask) expect_shape(*mask, "mask", {B, 1, H, W});
  if (draws) expect_shape(*draws, "noise", {draws->shape(0), B, C, H, W});
  const std::vector<uint64_t> seeds = seed_list(seeds_in, B);

  Array<float> out({B, C, H, W});
  std::optional<Array<float>> states;
  if (trajectory) states.emplace(std::vector<py::ssize_t>{B, rows.shape(0), C, H, W});
  Observer observer(std::move(observer_in));
  i2sb_sample_params params{};
  params.struct_size = sizeof params;
  params.batch = side(B);
  params.channels = side(C);
  params.height = side(H);
  params.width = side(W);
  params.x1 = x1.data();
  params.start = data_or_null(start);
  params.cond = data_or_null(cond);
  params.cond_channels = cond ? side(cond->shape(1)) : 0;
  params.mask = data_or_null(mask);
  params.seeds = seeds.empty() ? nullptr : seeds.data();
  params.draws = data_or_null(draws);
  params.draw_count = draws ? side(draws->shape(0)) : 0;
  params.out = out.mutable_data();
  params.trajectory = states ? states->mutable_data() : nullptr;
  params.tile = tile;
  params.overlap = overlap;
  params.network_batch = network_batch;
  params.progress = observer.progress();
  params.progress_user = &observer;
  run(nullptr, engine, threads, observer, [&](i2sb_session* session) { return i2sb_sample(session, &plan, &params); });
  return states ? *states : out;
}

// An image of bytes without gaps; what is only read is not written to.
i2sb_image image_of(const uint8_t* data, py::ssize_t width, py::ssize_t height, py::ssize_t channels) {
  return {sizeof(i2sb_image), side(width), side(height), side(channels), I2SB_U8, const_cast<uint8_t*>(data), 0};
}

Array<uint8_t> restore(const ModelHandle& model, EngineHandle& engine, const py::object& rows_in,
                       const py::object& image_in, bool clip, const std::string& known, const py::object& mask_in,
                       uint64_t seed, int32_t tile, int32_t overlap, int32_t ensemble, int32_t threads,
                       py::object observer_in) {
  const auto rows = expect<float>(rows_in, "rows", 2);
  const auto image = expect<uint8_t>(image_in, "image", 3);
  const auto mask = expect_or_none<uint8_t>(mask_in, "mask", 2);
  if (mask) expect_shape(*mask, "mask", {image.shape(0), image.shape(1)});
  const i2sb_plan plan = make_plan(rows, clip, known);
  i2sb_layout layout{};
  layout.struct_size = sizeof layout;
  check(i2sb_model_layout(model.model.get(), side(image.shape(1)), side(image.shape(0)), tile, overlap, &layout));
  Array<uint8_t> out({static_cast<py::ssize_t>(layout.height), static_cast<py::ssize_t>(layout.width), image.shape(2)});
  Observer observer(std::move(observer_in));
  const i2sb_image given = image_of(image.data(), image.shape(1), image.shape(0), image.shape(2));
  const i2sb_image result = image_of(out.mutable_data(), out.shape(1), out.shape(0), out.shape(2));
  i2sb_image hole{};
  if (mask) hole = image_of(mask->data(), mask->shape(1), mask->shape(0), 1);
  i2sb_restore_params params;
  i2sb_restore_params_init(&params, sizeof params);
  params.plan = &plan;
  params.image = &given;
  params.mask = mask ? &hole : nullptr;
  params.out = &result;
  params.seed = seed;
  params.tile = tile;
  params.overlap = overlap;
  params.ensemble = ensemble;
  params.progress = observer.progress();
  params.progress_user = &observer;
  run(model.model.get(), engine, threads, observer,
      [&](i2sb_session* session) { return i2sb_restore(session, &params); });
  return out;
}

}  // namespace

void bind_sampling(py::module_& module) {
  using py::arg;
  module.def("sample", &sample, arg("engine"), arg("rows"), arg("x1"), py::kw_only(), arg("clip") = false,
             arg("known") = "renew", arg("start") = py::none(), arg("cond") = py::none(), arg("mask") = py::none(),
             arg("seeds") = py::none(), arg("draws") = py::none(), arg("trajectory") = false, arg("tile") = 0,
             arg("overlap") = 0, arg("network_batch") = 0, arg("threads") = 0, arg("observer") = py::none());
  module.def("restore", &restore, arg("model"), arg("engine"), arg("rows"), arg("image"), py::kw_only(),
             arg("clip") = false, arg("known") = "renew", arg("mask") = py::none(), arg("seed") = 0, arg("tile") = -1,
             arg("overlap") = -1, arg("ensemble") = 1, arg("threads") = 0, arg("observer") = py::none());
}

}  // namespace i2sb::python
