// One model and one engine under many threads; cancelling from another one; errors that stay where they happened.
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>

#include <atomic>
#include <barrier>
#include <string>
#include <thread>
#include <vector>

#include "host.hpp"

namespace tests {
namespace {

constexpr int THREADS = 8, SIDE = 40, IMAGES = 4;

using Pixels = std::vector<uint8_t>;

Pixels picture(int which) {
  Pixels pixels(SIDE * SIDE * 3);
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<uint8_t>(i * 7 + which * 31);
  return pixels;
}

i2sb_status restore(i2sb_session* session, Pixels& pixels, uint64_t seed) {
  const i2sb_image image = i2sb_rt::image(pixels.data(), SIDE, SIDE, 3);
  i2sb_restore_params params = i2sb_rt::restore_params();
  params.image = params.out = &image;
  params.seed = seed;
  return i2sb_restore(session, &params);
}

void many_threads_give_the_bytes_of_one() {
  const i2sb_rt::Model model = load({{"task", "jpeg"}, {"add_x1_noise", "1"}});
  const i2sb_rt::Engine engine(model, engine_of(mix));
  std::vector<Pixels> expected;
  for (int which = 0; which < IMAGES; ++which) {
    expected.push_back(picture(which));
    CHECK(restore(i2sb_rt::Session(model, engine).get(), expected.back(), which) == I2SB_OK);
    CHECK(expected.back() != picture(which));
  }
  std::barrier start(THREADS);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < THREADS; ++thread)
    threads.emplace_back([&, thread] {
      const i2sb_rt::Session session(model, engine);
      start.arrive_and_wait();
      for (int k = 0; k < 2 * IMAGES; ++k) {
        const int which = (thread + k) % IMAGES;
        Pixels pixels = picture(which);
        CHECK(restore(session.get(), pixels, which) == I2SB_OK);
        CHECK(pixels == expected[which]);
      }
    });
  for (std::thread& thread : threads) thread.join();
}

// A network that waits, in its call number `holds_at`, until it is let go.
struct Gate {
  const int holds_at;
  std::atomic<int> calls = 0;
  std::atomic<bool> reached = false, open = false;

  static i2sb_status predict(void* self, const i2sb_network_call* call) {
    auto* gate = static_cast<Gate*>(self);
    if (++gate->calls == gate->holds_at) {
      gate->reached = true;
      gate->reached.notify_all();
      gate->open.wait(false);
    }
    return mix(nullptr, call);
  }
};

void cancel_ends_within_one_network_call() {
  const i2sb_rt::Model model = load({{"nfe", "50"}});
  Gate gate{3};
  const i2sb_rt::Session session = session_of(model, engine_of(Gate::predict, &gate));
  Pixels pixels = picture(0);
  i2sb_status status = I2SB_OK;
  std::string sentence;
  std::thread worker([&] {
    status = restore(session.get(), pixels, 0);
    sentence = i2sb_last_error();
  });
  gate.reached.wait(false);
  // While it is at work no other thread may use it, and is told so.
  Pixels others = picture(1);
  REFUSED(I2SB_ERROR_ARGUMENT, restore(session.get(), others, 0));
  CHECK(others == picture(1));
  session.cancel();
  gate.open = true;
  gate.open.notify_all();
  worker.join();
  CHECK(status == I2SB_ERROR_CANCELLED);
  CHECK(!sentence.empty());
  CHECK(gate.calls == 3);
  CHECK(pixels == picture(0));
  // It is usable as before.
  CHECK(restore(session.get(), pixels, 0) == I2SB_OK);
  CHECK(gate.calls == 3 + 50 * 4);  // four tiles a row
  Pixels expected = picture(0);
  CHECK(restore(session_of(model).get(), expected, 0) == I2SB_OK);
  CHECK(pixels == expected);
}

// Memory whose first touch cancels a session: its reader is at work by then.
struct Tripwire {
  explicit Tripwire(i2sb_session* session) {
    cancelled = session;
    CHECK(values != MAP_FAILED);
    struct sigaction action{};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = [](int, siginfo_t*, void*) {
      mprotect(values, SIZE, PROT_READ);
      i2sb_session_cancel(cancelled);
    };
    CHECK(sigaction(SIGSEGV, &action, &before) == 0);
  }
  ~Tripwire() {
    CHECK(sigaction(SIGSEGV, &before, nullptr) == 0);
    CHECK(munmap(values, SIZE) == 0);
  }

  static constexpr size_t SIZE = 1 << 16;
  static inline i2sb_session* cancelled = nullptr;
  static inline void* values = mmap(nullptr, SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  struct sigaction before;
};

// A cancel is not lost where it comes while the arguments are still being looked at.
void cancel_is_heard_from_the_beginning() {
  const i2sb_rt::Session session = session_of(load());
  const Tripwire tripwire(session.get());
  std::vector<float> x(64, 1.0f), out(64, 42.0f);
  float rows[2 * I2SB_ROW_COLUMNS] = {};
  const i2sb_plan plan{sizeof plan, 2, rows, 0, 0};
  i2sb_sample_params params = i2sb_rt::sample_params();
  params.batch = params.channels = 1;
  params.height = params.width = 8;
  params.x1 = x.data();
  params.out = out.data();
  params.mask = static_cast<const float*>(tripwire.values);
  REFUSED(I2SB_ERROR_CANCELLED, i2sb_sample(session.get(), &plan, &params));
  CHECK(out[0] == 42);
  CHECK(i2sb_sample(session.get(), &plan, &params) == I2SB_OK);
}

#ifdef __linux__
i2sb_status count_threads(void* self, const i2sb_plan*, const i2sb_sample_params* params, float*) {
  *static_cast<int*>(self) = params->threads;
  return I2SB_OK;
}

// No more threads than the process may use cores.
void threads_are_as_many_as_cores() {
  cpu_set_t before, one;
  CHECK(sched_getaffinity(0, sizeof before, &before) == 0);
  int first = 0, threads = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  const i2sb_engine engine{sizeof engine, &threads, nullptr, count_threads, nullptr};
  i2sb_session_params opening = i2sb_rt::session_params();
  opening.engine = &engine;
  float x = 0, row[I2SB_ROW_COLUMNS] = {};
  const i2sb_plan plan{sizeof plan, 1, row, 0, 0};
  i2sb_sample_params params = i2sb_rt::sample_params();
  params.batch = params.channels = params.height = params.width = 1;
  params.x1 = params.out = &x;
  for (const cpu_set_t* cores : {&one, &before}) {
    i2sb_session* session = nullptr;
    CHECK(sched_setaffinity(0, sizeof *cores, cores) == 0);
    CHECK(i2sb_session_create(nullptr, &opening, &session) == I2SB_OK);
    CHECK(i2sb_sample(session, &plan, &params) == I2SB_OK);
    CHECK(threads == CPU_COUNT(cores));
    i2sb_session_free(session);
  }
}
#endif

i2sb_status named_failure(void* self, const i2sb_network_call*) {
  return i2sb_fail(I2SB_ERROR_ENGINE, static_cast<const char*>(self));
}

void errors_stay_in_their_threads() {
  const i2sb_rt::Model model = load();
  std::barrier step(THREADS);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < THREADS; ++thread)
    threads.emplace_back([&, thread] {
      std::string name = "the device " + std::to_string(thread) + " is gone";
      const bool fails = thread % 2 == 0;
      const i2sb_engine engine = fails ? engine_of(named_failure, name.data()) : engine_of(mix);
      const i2sb_rt::Session session = session_of(model, engine);
      Pixels pixels = picture(thread);
      step.arrive_and_wait();
      CHECK(restore(session.get(), pixels, 0) == (fails ? I2SB_ERROR_ENGINE : I2SB_OK));
      step.arrive_and_wait();
      CHECK(i2sb_last_error() == (fails ? name : std::string()));
    });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace tests

int main() {
  tests::many_threads_give_the_bytes_of_one();
  tests::cancel_ends_within_one_network_call();
  tests::cancel_is_heard_from_the_beginning();
#ifdef __linux__
  tests::threads_are_as_many_as_cores();
#endif
  tests::errors_stay_in_their_threads();
}
