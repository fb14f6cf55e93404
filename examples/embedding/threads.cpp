// Restores several images at once: threads MODEL.onnx THREADS SECONDS FOLDER IN.ppm...
//
// The threads share one model and one engine, and each has a session. Ctrl-C, or SECONDS (0: no limit), ends all of
// them after the network calls that are running; FOLDER then holds what was done, whole, under the inputs' names.
// Exit codes: 0 done, 1 an image failed, 2 wrong arguments, 3 the model or its engine, 130 Ctrl-C, 142 out of time.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <i2sb_rt.hpp>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "ppm.h"

namespace {

constexpr int FAILED = 1, USAGE = 2, LIBRARY = 3, SIGNALLED = 128, MOST_THREADS = 64;

std::vector<i2sb_rt::Session> sessions;  // as it is while signals may come
std::atomic<int> stopped_by = 0;

// A session that is not at work has nothing to cancel, hence the flag. A second signal ends the process at once.
void stop(int signal) {
  std::signal(signal, SIG_DFL);
  stopped_by = signal;
  for (const i2sb_rt::Session& session : sessions) session.cancel();
}

struct Pixels : ppm {
  Pixels() : ppm{} {}
  Pixels(const Pixels&) = delete;
  Pixels& operator=(const Pixels&) = delete;
  ~Pixels() { std::free(pixels); }
};

void require_no(const char* wrong, const std::string& path) {
  if (wrong) throw std::runtime_error(path + " " + wrong);
}

void restore(const i2sb_rt::Model& model, const i2sb_rt::Session& session, const std::string& from,
             const std::string& to) {
  Pixels in, out;
  require_no(ppm_read(from.c_str(), &in), from);
  const i2sb_layout layout = model.layout(in.width, in.height);
  if (!ppm_make(&out, layout.width, layout.height, in.channels)) throw std::bad_alloc();
  session.restore(ppm_view(&in), ppm_view(&out), i2sb_rt::restore_params(), [&](const i2sb_event& event) {
    const bool stepped = event.phase == I2SB_PHASE_STEP;
    if (stepped || event.phase == I2SB_PHASE_PREPARE)
      std::fprintf(stderr, "%s: %d of %d steps\n", from.c_str(), event.row + stepped, event.row_count);
    return stopped_by != 0;
  });
  require_no(ppm_write(to.c_str(), &out), to);
}

int run(const std::string& path, int threads, unsigned seconds, const std::filesystem::path& folder,
        const std::vector<std::string>& files) {
  const i2sb_rt::Model model(path);
  i2sb_openvino_options options = i2sb_rt::openvino_options();
  options.streams = threads;  // so many network calls run at once, on the cores that they share
  const i2sb_rt::Engine engine(model, options);
  i2sb_session_params params = i2sb_rt::session_params();
  params.threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / threads);
  for (int i = 0; i < threads; ++i) sessions.emplace_back(model, engine, params);
  std::signal(SIGINT, stop);
  std::signal(SIGALRM, stop);
  alarm(seconds);

  std::atomic<size_t> next = 0;
  std::atomic<bool> failed = false;
  std::vector<std::thread> workers;
  for (const i2sb_rt::Session& session : sessions) {
    workers.emplace_back([&] {
      for (size_t i = next++; i < files.size() && stopped_by == 0; i = next++) {
        try {
          restore(model, session, files[i], (folder / std::filesystem::path(files[i]).filename()).string());
        } catch (const std::exception& error) {
          failed = true;
          std::fprintf(stderr, "threads: %s: %s\n", files[i].c_str(), error.what());
        }
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
  std::signal(SIGALRM, SIG_IGN);
  std::signal(SIGINT, SIG_DFL);
  sessions.clear();
  return stopped_by ? SIGNALLED + stopped_by : failed ? FAILED : 0;
}

int usage(const char* wrong) {
  std::fprintf(stderr, "threads: %s\nusage: threads MODEL.onnx THREADS SECONDS FOLDER IN.ppm...\n", wrong);
  return USAGE;
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 6) return usage("too few arguments");
  const int threads = std::atoi(arguments[2]), seconds = std::atoi(arguments[3]);
  if (threads < 1 || threads > MOST_THREADS) return usage("THREADS is 1 to 64");
  if (seconds < 0) return usage("SECONDS is 0 or more");
  const std::vector<std::string> files(arguments + 5, arguments + count);
  std::set<std::filesystem::path> names;
  for (const std::string& file : files)
    if (!names.insert(std::filesystem::path(file).filename()).second) return usage("two inputs have one name");
  try {
    return run(arguments[1], threads, static_cast<unsigned>(seconds), arguments[4], files);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "threads: %s\n", error.what());
    return LIBRARY;
  }
}
