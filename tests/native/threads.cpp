// One model and one engine under many threads; cancelling from another one; errors that stay where they happened.
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
  tests::errors_stay_in_their_threads();
}
