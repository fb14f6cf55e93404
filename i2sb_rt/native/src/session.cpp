#include "session.hpp"

#include <algorithm>

#include "failure.hpp"

static_assert(std::atomic<bool>::is_always_lock_free, "i2sb_session_cancel may be called by a signal handler");

i2sb_session::~i2sb_session() {
  if (owns_engine) i2sb_engine_free(&engine);
}

namespace i2sb {

Work::Work(i2sb_session& session) : session_(session) {
  require(!session_.at_work.exchange(true),
          "this session is at work in another thread: give each thread one of its own");
  session_.cancelled = false;
}

void Work::watch(i2sb_progress progress, void* user) {
  progress_ = progress;
  user_ = user;
}

int32_t Work::ask(void* work, const i2sb_event* event) {
  auto* self = static_cast<Work*>(work);
  if (self->session_.cancelled) return 1;
  return self->progress_ ? self->progress_(self->user_, event) : 0;
}

namespace {

void check_engine(const i2sb_engine& engine) {
  require_struct(&engine, "engine");
  require(engine.predict != nullptr || engine.sample != nullptr, "engine.predict is NULL");
}

std::unique_ptr<i2sb_session, Released<i2sb_session>> make_session(const i2sb_model* model,
                                                                   const i2sb_session_params& p) {
  require(model || p.engine, "a session without an engine needs a model");
  require(p.threads >= 0, "threads must not be negative");
  if (p.engine) check_engine(*p.engine);
  auto session = make_in<i2sb_session>(Memory(p.allocator));
  session->model = model;
  session->threads = thread_count(p.threads);
  if (p.engine) {
    session->engine = *p.engine;
    session->engine.struct_size = sizeof session->engine;  // of the copy, also where the caller's is larger
  } else {
    session->engine.struct_size = sizeof session->engine;
    const i2sb_status status = i2sb_openvino_engine(model, p.openvino, &session->engine);
    if (status != I2SB_OK) fail(status, i2sb_last_error());
    session->owns_engine = true;
  }
  if (p.log) p.log(p.log_user, p.engine ? "session: the host's engine" : "session: an OpenVINO engine of its own");
  return session;
}

}  // namespace
}  // namespace i2sb

extern "C" {

void i2sb_engine_free(i2sb_engine* engine) {
  if (!engine) return;
  if (engine->free) engine->free(engine->self);
  engine->self = nullptr;
  engine->predict = nullptr;
  engine->sample = nullptr;
  engine->free = nullptr;
}

i2sb_status i2sb_session_create(const i2sb_model* model, const i2sb_session_params* params, i2sb_session** session) {
  return i2sb::guard([&] {
    i2sb_session_params defaults;
    i2sb_session_params_init(&defaults, sizeof defaults);
    if (params) i2sb::require_struct(params, "params");
    i2sb::require(session != nullptr, "session is NULL");
    *session = i2sb::make_session(model, params ? *params : defaults).release();
  });
}

void i2sb_session_free(i2sb_session* session) { i2sb::Released<i2sb_session>()(session); }

void i2sb_session_cancel(i2sb_session* session) {
  if (session) session->cancelled = true;
}

i2sb_status i2sb_sample(i2sb_session* session, const i2sb_plan* plan, const i2sb_sample_params* params) {
  return i2sb::guard([&] {
    i2sb::require(session && plan && params, "session, plan or params is NULL");
    i2sb::Work work(*session);  // from here on it can be cancelled
    i2sb::check_sample(session->engine, *plan, *params);
    i2sb::require(params->out != nullptr, "out is NULL");
    work.watch(params->progress, params->progress_user);
    i2sb_sample_params p = *params;
    p.struct_size = sizeof p;
    p.progress = i2sb::Work::ask;
    p.progress_user = &work;
    p.threads = session->threads;
    const size_t count = static_cast<size_t>(p.batch) * p.channels * p.height * p.width;
    const i2sb::Block<float> x(count, &session->memory);
    std::copy_n(p.start ? p.start : p.x1, count, x.data());
    i2sb::sample(session->engine, *plan, p, x.data(), &session->memory);
    std::copy_n(x.data(), count, p.out);
  });
}

}  // extern "C"
