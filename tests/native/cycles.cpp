// Loading, restoring and freeing a thousand times takes no more memory than doing so a hundred times.
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <vector>

#include "host.hpp"

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool SANITIZED = true;  // which keeps what was freed for a while
#elif defined(__has_feature)
constexpr bool SANITIZED = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
constexpr bool SANITIZED = false;
#endif

long resident_bytes() {
  long size = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> size >> resident;
  CHECK(resident > 0);
  return resident * sysconf(_SC_PAGESIZE);
}

void cycle(const std::string& bytes, std::vector<uint8_t>& pixels, uint64_t seed) {
  constexpr int width = 256, height = 100;  // more values than one thread takes
  i2sb_model* model = nullptr;
  CHECK(tests::load(bytes, &model) == I2SB_OK);
  const i2sb_engine engine = tests::engine_of(tests::mix);
  i2sb_session_params params = i2sb_rt::session_params();
  params.engine = &engine;
  params.threads = 2;
  i2sb_session* session = nullptr;
  CHECK(i2sb_session_create(model, &params, &session) == I2SB_OK);
  pixels.resize(width * height * 3);
  const i2sb_image image = i2sb_rt::image(pixels.data(), width, height, 3);
  i2sb_restore_params restoring = i2sb_rt::restore_params();
  restoring.image = restoring.out = &image;
  restoring.seed = seed;
  restoring.tile = 0;
  CHECK(i2sb_restore(session, &restoring) == I2SB_OK);
  restoring.nfe = -1;
  CHECK(i2sb_restore(session, &restoring) == I2SB_ERROR_ARGUMENT);  // a failure leaves nothing behind either
  i2sb_session_free(session);
  i2sb_model_free(model);
}

}  // namespace

int main() {
  const std::string bytes = tests::onnx_bytes({{"nfe", "2"}});
  std::vector<uint8_t> pixels;
  long after_100 = 0;
  for (int k = 1; k <= 1000; ++k) {
    cycle(bytes, pixels, static_cast<uint64_t>(k));
    if (k == 100) after_100 = resident_bytes();
  }
  const long growth = resident_bytes() - after_100;
  std::printf("%ld bytes more after 1000 cycles than after 100\n", growth);
  CHECK(SANITIZED || std::labs(growth) < 1 << 20);
}
