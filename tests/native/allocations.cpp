// Memory that runs out: at every single allocation in turn, from the host's allocator and from the C++ heap. Each time
// it is I2SB_ERROR_MEMORY, nothing is lost and nothing was written.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "heap.hpp"
#include "host.hpp"

namespace tests {
namespace {

constexpr int SIDE = 40, ROWS = 5, INTERVAL = 20;
constexpr float UNTOUCHED = 42;

// An allocator that fails as the heap does, and checks that what comes back is what was given.
struct Arena {
  int64_t live = 0, bytes = 0, count = 0, first_failure = -1;
  bool all_after = false, failed = false;

  static void* allocate(void* self, size_t size, size_t alignment) {
    auto* arena = static_cast<Arena*>(self);
    const int64_t number = arena->count++;
    if (number == arena->first_failure || (arena->all_after && number > arena->first_failure)) {
      arena->failed = true;
      return nullptr;
    }
    void* memory = nullptr;
    CHECK(posix_memalign(&memory, std::max(alignment, sizeof(void*)), size) == 0);
    ++arena->live;
    arena->bytes += static_cast<int64_t>(size);
    return memory;
  }
  static void release(void* self, void* memory, size_t size) {
    auto* arena = static_cast<Arena*>(self);
    CHECK(memory != nullptr);
    --arena->live;
    arena->bytes -= static_cast<int64_t>(size);
    std::free(memory);
  }

  void fail_at(int64_t first, bool all) {
    count = 0;
    first_failure = first;
    all_after = all;
    failed = false;
  }
  bool recover() {
    first_failure = -1;
    all_after = false;
    return failed;
  }
  i2sb_allocator table() { return {allocate, release, this}; }
};

// Where allocations are made to fail.
struct Source {
  std::function<void(int64_t, bool)> fail_at;
  std::function<bool()> recover;
  std::function<int64_t()> live;
};

const Source HEAP{heap::fail_at, heap::recover, heap::live};

// Runs body() with allocation 0, 1, 2 ... failing, alone and with all behind it, until none is left to fail.
// `survives`: what is short of memory may go on without it, as where a further thread is not to be had.
void each_fails(const char* what, const Source& source, const std::function<i2sb_status()>& body,
                const std::function<void()>& check_untouched, bool survives = false) {
  CHECK(body() == I2SB_OK);  // what is made once a process is made here
  for (const bool all_after : {false, true}) {
    int64_t k = 0;
    for (bool failed = true; failed; ++k) {
      const int64_t before = source.live();
      i2sb_fail(I2SB_OK, "");
      source.fail_at(k, all_after);
      const i2sb_status status = body();
      failed = source.recover();
      if (source.live() != before) std::fprintf(stderr, "%s: allocation %d\n", what, static_cast<int>(k));
      CHECK(source.live() == before);
      if (status == I2SB_OK) {
        if (failed && !survives) std::fprintf(stderr, "%s: allocation %d\n", what, static_cast<int>(k));
        CHECK(!failed || survives);
        continue;
      }
      if (status != I2SB_ERROR_MEMORY) std::fprintf(stderr, "%s: allocation %d\n", what, static_cast<int>(k));
      CHECK(failed);
      CHECK(status == I2SB_ERROR_MEMORY);
      CHECK(i2sb_last_error()[0] != '\0');
      check_untouched();
    }
    std::printf("%s: %d allocations\n", what, static_cast<int>(k) - 1);
  }
}

// An array of results that are to stay as they are.
struct Result {
  explicit Result(size_t count) : values(count, UNTOUCHED) {}
  void check_untouched() const {
    CHECK(std::all_of(values.begin(), values.end(), [](float value) { return value == UNTOUCHED; }));
  }
  // After a run that succeeded.
  i2sb_status spoil(i2sb_status status) {
    if (status != I2SB_OK) return status;
    CHECK(std::any_of(values.begin(), values.end(), [](float value) { return value != UNTOUCHED; }));
    std::fill(values.begin(), values.end(), UNTOUCHED);
    return status;
  }
  std::vector<float> values;
};

const Metadata MODEL{{"fill", "smooth"}, {"cond_mask", "1"},   {"cond_x1", "1"},   {"add_x1_noise", "1"},
                     {"nfe", "5"},       {"sampler", "dbim3"}, {"interval", "20"}, {"task", "inpaint"}};

i2sb_status make_session(const i2sb_model* model, i2sb_session** session, const i2sb_allocator* allocator = nullptr,
                         int threads = 1) {
  static const i2sb_engine engine = engine_of(mix);
  i2sb_session_params params = i2sb_rt::session_params();
  params.engine = &engine;
  params.threads = threads;
  params.allocator = allocator;
  return i2sb_session_create(model, &params, session);
}

void loading(const Source& source, const i2sb_allocator* allocator, const std::string& path) {
  const std::string bytes = onnx_bytes(MODEL);
  i2sb_model* model = nullptr;
  const auto untouched = [&] { CHECK(model == nullptr); };
  const auto freed = [&](i2sb_status status) {
    i2sb_model_free(model);
    model = nullptr;
    return status;
  };
  const auto from_memory = [&] { return freed(load(bytes, &model, allocator)); };
  const auto from_path = [&] {
    i2sb_model_params params = i2sb_rt::model_params();
    params.path = path.c_str();
    params.allocator = allocator;
    return freed(i2sb_model_load(&params, &model));
  };
  each_fails("load from memory", source, from_memory, untouched);
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  each_fails("load from a file", source, from_path, untouched);
  std::remove(path.c_str());
}

void creating(const Source& source, const i2sb_model* model, const i2sb_allocator* allocator) {
  i2sb_session* session = nullptr;
  const auto create = [&] {
    const i2sb_status status = make_session(model, &session, allocator);
    i2sb_session_free(session);
    session = nullptr;
    return status;
  };
  each_fails("session", source, create, [&] { CHECK(session == nullptr); });
}

// With a mask, a smooth fill, tiles and both histories.
void restoring(const Source& source, i2sb_session* session) {
  Result pixels(SIDE * SIDE * 3);
  const std::vector<float> degraded(SIDE * SIDE * 3, 0.25f);
  std::vector<uint8_t> hole(SIDE * SIDE);
  std::fill(hole.begin() + 300, hole.begin() + 900, 1);
  const i2sb_image image = i2sb_rt::image(degraded.data(), SIDE, SIDE, 3);
  const i2sb_image out = i2sb_rt::image(pixels.values.data(), SIDE, SIDE, 3);
  const i2sb_image mask = i2sb_rt::image(hole.data(), SIDE, SIDE, 1);
  i2sb_restore_params params = i2sb_rt::restore_params();
  params.image = &image;
  params.out = &out;
  params.mask = &mask;
  each_fails(
      "restore", source, [&] { return pixels.spoil(i2sb_restore(session, &params)); },
      [&] { pixels.check_untouched(); });
}

i2sb_plan plan_of(const i2sb_model* model, std::vector<float>& rows) {
  i2sb_plan_params params;
  i2sb_plan_params_init(&params, sizeof params);
  params.model = model;
  i2sb_plan plan{};
  plan.struct_size = sizeof plan;
  CHECK(i2sb_plan_make(&params, rows.data(), nullptr, &plan) == I2SB_OK);
  return plan;
}

// With all that can be asked for: a start, conditions, a mask, a batch that does not fill its groups, a trajectory.
void sampling(const Source& source, i2sb_session* session, const i2sb_model* model, int side, bool survives = false) {
  const size_t count = static_cast<size_t>(2) * 3 * side * side;
  std::vector<float> rows(ROWS * I2SB_ROW_COLUMNS);
  const i2sb_plan plan = plan_of(model, rows);
  const std::vector<float> x1(count, 0.5f), mask(count / 3, 1.0f);
  Result out(count), trajectory(ROWS * count);
  i2sb_sample_params params;
  i2sb_sample_params_init(&params, sizeof params);
  params.batch = 2;
  params.channels = 3;
  params.height = params.width = side;
  params.x1 = params.start = params.cond = x1.data();
  params.cond_channels = 3;
  params.mask = mask.data();
  params.network_batch = 3;
  params.tile = 32;
  params.overlap = 16;
  params.out = out.values.data();
  params.trajectory = trajectory.values.data();
  const auto run = [&] { return trajectory.spoil(out.spoil(i2sb_sample(session, &plan, &params))); };
  each_fails(
      survives ? "sample with threads" : "sample", source, run,
      [&] {
        out.check_untouched();
        trajectory.check_untouched();
      },
      survives);
}

// With threads a run may go on with fewer of them: then its result is the same.
void fewer_threads(const i2sb_model* model) {
  i2sb_session *one = nullptr, *four = nullptr;
  CHECK(make_session(model, &one) == I2SB_OK && make_session(model, &four, nullptr, 4) == I2SB_OK);
  constexpr int side = 160;  // more values than one thread takes
  std::vector<float> rows(ROWS * I2SB_ROW_COLUMNS), x1(3 * side * side, 0.5f), expected(x1.size()), out(x1.size());
  const i2sb_plan plan = plan_of(model, rows);
  i2sb_sample_params params;
  i2sb_sample_params_init(&params, sizeof params);
  params.batch = 1;
  params.channels = 3;
  params.height = params.width = side;
  params.x1 = x1.data();
  params.out = expected.data();
  CHECK(i2sb_sample(one, &plan, &params) == I2SB_OK);
  params.out = out.data();
  int survived = 0;
  bool failed = true;
  for (int64_t k = 0; failed; ++k) {
    std::fill(out.begin(), out.end(), UNTOUCHED);
    heap::fail_at(k, false);
    const i2sb_status status = i2sb_sample(four, &plan, &params);
    failed = heap::recover();
    if (status == I2SB_OK) {
      CHECK(out == expected);
      survived += failed;
    } else {
      CHECK(failed && status == I2SB_ERROR_MEMORY && out[0] == UNTOUCHED);
    }
  }
  CHECK(survived > 0);
  i2sb_session_free(one);
  i2sb_session_free(four);
}

void parts(const i2sb_model* model) {
  const i2sb_schedule schedule{sizeof schedule, INTERVAL, 0.3, 1e-4, 1.0};
  std::vector<double> arrays(7 * INTERVAL, UNTOUCHED);
  const auto clean = [&] { return std::all_of(arrays.begin(), arrays.end(), [](double v) { return v == UNTOUCHED; }); };
  each_fails(
      "schedule", HEAP,
      [&] {
        const i2sb_status status = i2sb_schedule_compute(&schedule, arrays.data());
        if (status == I2SB_OK) std::fill(arrays.begin(), arrays.end(), UNTOUCHED);
        return status;
      },
      [&] { CHECK(clean()); });

  Result rows(ROWS * I2SB_ROW_COLUMNS);
  i2sb_plan plan{};
  plan.struct_size = sizeof plan;
  const std::vector<double> gammas(ROWS, 0.1);
  for (const char* sampler : {"sde", "dbim3", "i3sb", "dsb"})
    for (const i2sb_model* from : {model, static_cast<const i2sb_model*>(nullptr)}) {
      const bool dsb = sampler == std::string_view("dsb");
      if (dsb && from) continue;
      i2sb_plan_params params;
      i2sb_plan_params_init(&params, sizeof params);
      params.model = from;
      params.schedule = from || dsb ? nullptr : &schedule;
      if (dsb) {
        params.gammas = gammas.data();
        params.gamma_count = ROWS;
        params.direction = "backward";
      }
      params.sampler = sampler;
      params.nfe = ROWS;
      each_fails(
          "plan", HEAP,
          [&] {
            const i2sb_status status = rows.spoil(i2sb_plan_make(&params, rows.values.data(), nullptr, &plan));
            if (status == I2SB_OK) plan.row_count = 0;
            return status;
          },
          [&] {
            rows.check_untouched();
            CHECK(plan.row_count == 0);
          });
    }

  std::vector<float> hole(SIDE * SIDE, 0.0f);
  std::fill(hole.begin() + 300, hole.begin() + 900, 1.0f);
  std::vector<float> holed(3 * SIDE * SIDE, 1.0f);
  for (size_t i = 0; i < holed.size(); ++i)
    if (hole[i % hole.size()] != 0) holed[i] = UNTOUCHED;
  std::vector<float> planes = holed;
  each_fails(
      "fill_hole", HEAP,
      [&] {
        const i2sb_status status = i2sb_fill_hole(3, SIDE, SIDE, hole.data(), planes.data());
        if (status != I2SB_OK) return status;
        CHECK(planes != holed);
        std::copy(holed.begin(), holed.end(), planes.begin());
        return status;
      },
      [&] { CHECK(planes == holed); });

  int32_t origins[8], count = 8;
  std::fill(std::begin(origins), std::end(origins), -1);
  each_fails(
      "tile_origins", HEAP,
      [&] {
        count = 8;
        const i2sb_status status = i2sb_tile_origins(100, 32, 16, origins, &count);
        if (status == I2SB_OK) std::fill(std::begin(origins), std::end(origins), -1);
        return status;
      },
      [&] { CHECK(origins[0] == -1 && count == 8); });
}

void run(const std::string& path) {
  i2sb_model* model = nullptr;
  i2sb_session* session = nullptr;
  CHECK(load(onnx_bytes(MODEL), &model) == I2SB_OK && make_session(model, &session) == I2SB_OK);
  loading(HEAP, nullptr, path);
  creating(HEAP, model, nullptr);
  restoring(HEAP, session);
  sampling(HEAP, session, model, SIDE);
  fewer_threads(model);
  parts(model);
  i2sb_session_free(session);
  i2sb_model_free(model);

  Arena arena;
  const i2sb_allocator allocator = arena.table();
  const Source host{[&](int64_t first, bool all) { arena.fail_at(first, all); }, [&] { return arena.recover(); },
                    [&] { return arena.live; }};
  loading(host, &allocator, path);
  CHECK(load(onnx_bytes(MODEL), &model, &allocator) == I2SB_OK && arena.live > 0);
  creating(host, model, &allocator);
  CHECK(make_session(model, &session, &allocator) == I2SB_OK);
  const int64_t idle = arena.live;
  restoring(host, session);
  sampling(host, session, model, SIDE);
  CHECK(arena.live == idle);
  i2sb_session_free(session);
  i2sb_model_free(model);
  CHECK(arena.live == 0 && arena.bytes == 0);
}

}  // namespace
}  // namespace tests

int main(int, char** arguments) { tests::run(std::string(arguments[0]) + ".onnx"); }
