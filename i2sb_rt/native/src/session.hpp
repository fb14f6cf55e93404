// A session: an engine, and what one thread needs to run plans on it.
#pragma once

#include <atomic>
#include <memory>

#include "loop.hpp"
#include "memory.hpp"
#include "model_file.hpp"

struct i2sb_session {
  explicit i2sb_session(const i2sb::Memory& from) : memory(from) {}
  ~i2sb_session();

  i2sb::Memory memory;
  const i2sb_model* model = nullptr;
  i2sb_engine engine{};
  bool owns_engine = false;
  int threads = 1;
  std::atomic<bool> at_work = false;
  std::atomic<bool> cancelled = false;
};

namespace i2sb {

// The session at work for the length of a call: no other thread may use it, and it can be cancelled.
class Work {
 public:
  explicit Work(i2sb_session& session);
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;
  ~Work() { session_.at_work = false; }

  // The caller's, once its parameters have been checked.
  void watch(i2sb_progress progress, void* user);

  // In place of the caller's progress function and its user: they ask it, and whether the session was cancelled.
  static int32_t ask(void* work, const i2sb_event* event);

 private:
  i2sb_session& session_;
  i2sb_progress progress_ = nullptr;
  void* user_ = nullptr;
};

}  // namespace i2sb
