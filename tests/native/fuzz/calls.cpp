// Any sequence of calls that keeps the one rule that C cannot check: a pointer is NULL, or to something that lives and
// is as large as was said. Every call succeeds, or fails with a sentence and leaves its outputs as they were.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "contract.hpp"
#include "host.hpp"
#include "input.hpp"

namespace {

using fuzz::Input;

constexpr size_t HEAP = size_t{32} << 20;
constexpr int OBJECTS = 3, MOST_CALLS = 60;

constexpr const char* DIRECTIONS[] = {"forward", "backward", "up", ""};
constexpr const char* NAMES[] = {"sde", "ode",   "dbim1", "dbim2", "dbim3", "i3sb",
                                 "dsb", "noise", "mean",  "drift", "",      nullptr};
constexpr double NUMBERS[] = {0.3, 1e-4, 1, 0, -1, 1e308, 1e-308, 0.5, INFINITY, -INFINITY, NAN};

// A struct's size as callers set it: right, or far from it, but never larger than the memory it lies in.
template <typename Struct>
void set_size(Struct& value, Input& input) {
  const int kind = input.range(0, 15);
  value.struct_size = kind == 0 ? input.take<uint8_t>() % sizeof value : kind == 1 ? 0xffffffffu : sizeof value;
}

// An allocator that is used up after a while.
struct Arena {
  int64_t left = 0, live = 0;

  static void* allocate(void* self, size_t size, size_t alignment) {
    auto* arena = static_cast<Arena*>(self);
    if (arena->left <= 0 || size > HEAP) return nullptr;
    void* memory = nullptr;
    if (posix_memalign(&memory, std::max(alignment, sizeof(void*)), size) != 0) return nullptr;
    --arena->left;
    ++arena->live;
    return memory;
  }
  static void release(void* self, void* memory, size_t) {
    --static_cast<Arena*>(self)->live;
    std::free(memory);
  }
};

// What the host's engine does in its next calls.
struct Network {
  uint32_t bits = 0;
  i2sb_session* session = nullptr;

  static i2sb_status predict(void* self, const i2sb_network_call* call) {
    auto* network = static_cast<Network*>(self);
    const uint32_t turn = network->bits & 15;
    network->bits >>= 4;
    CHECK(call->struct_size == sizeof *call && call->batch > 0 && call->x && call->t && call->out);
    tests::mix(nullptr, call);
    if (turn == 1) return i2sb_fail(I2SB_ERROR_ENGINE, "the engine's sentence");
    if (turn == 2) return I2SB_ERROR_MEMORY;
    if (turn == 3) i2sb_session_cancel(network->session);
    if (turn == 4) call->out[0] = NAN;
    if (turn == 5) i2sb_fail(I2SB_ERROR_ENGINE, "of something that went well after all");
    return I2SB_OK;
  }
  static i2sb_status sample(void* self, const i2sb_plan* plan, const struct i2sb_sample_params* params, float* x) {
    CHECK(plan->row_count > 0 && params->threads > 0);
    if ((static_cast<Network*>(self)->bits & 15) == 1) return i2sb_fail(I2SB_ERROR_ENGINE, "no");
    x[0] *= 0.5f;
    return I2SB_OK;
  }
};

struct World {
  Arena arena;
  Network network;
  i2sb_model* models[OBJECTS] = {};
  i2sb_session* sessions[OBJECTS] = {};
  int model_of[OBJECTS] = {-1, -1, -1};
  std::vector<float> rows;
  i2sb_plan plan{sizeof(i2sb_plan), 0, nullptr, 0, 0};

  ~World() {
    for (int k = 0; k < OBJECTS; ++k) free_model(k);
    for (i2sb_session* session : sessions) i2sb_session_free(session);
    CHECK(arena.live == 0);
  }
  void free_session(int which) {
    i2sb_session_free(sessions[which]);
    sessions[which] = nullptr;
    model_of[which] = -1;
  }
  void free_model(int which) {
    for (int k = 0; k < OBJECTS; ++k)
      if (model_of[k] == which) free_session(k);
    i2sb_model_free(models[which]);
    models[which] = nullptr;
  }
  const i2sb_model* model(Input& input) const { return models[input.range(0, OBJECTS - 1)]; }
};

int32_t stop_now_and_then(void* bits, const i2sb_event* event) {
  CHECK(event->row < event->row_count && event->tile <= event->tile_count && event->begin_ns <= event->end_ns);
  auto& left = *static_cast<uint64_t*>(bits);
  const bool stop = (left & 7) == 7;
  left >>= 3;
  return stop;
}

void load(World& world, Input& input) {
  static const std::string files[] = {
      tests::onnx_bytes({{"nfe", "2"}}),
      tests::onnx_bytes({{"task", "inpaint"}, {"fill", "smooth"}, {"cond_mask", "1"}}),
      tests::onnx_bytes({{"upscale", "2"}, {"add_x1_noise", "1"}, {"sampler", "dbim3"}}),
      tests::onnx_bytes({{"sampler", "dsb"}, {"gammas", "1,0.5"}, {"direction", "forward"}, {"prediction", "drift"}}),
      tests::onnx_bytes({{"channels", "1"}, {"interval", "10"}, {"ot_ode", "1"}, {"sampler", "ode"}})};
  const int which = input.range(0, OBJECTS - 1);
  const std::string& file = input.one_of(files);
  world.free_model(which);
  const i2sb_allocator allocator{Arena::allocate, input.range(0, 15) ? Arena::release : nullptr, &world.arena};
  i2sb_model_params params = i2sb_rt::model_params();
  set_size(params, input);
  const int sources = input.range(0, 15);
  if (sources != 1) params.data = file.data();
  if (sources == 2) params.path = "/nowhere";
  params.data_size = sources == 3 ? input.take<uint16_t>() % file.size() : file.size();
  if (input.flag()) params.allocator = &allocator;
  world.arena.left = input.range(0, 255);
  i2sb_model* model = nullptr;
  const i2sb_status status = FUZZED(i2sb_model_load(input.range(0, 31) ? &params : nullptr, &model));
  CHECK((status == I2SB_OK) == (model != nullptr));
  world.models[which] = model;
}

void ask_model(World& world, Input& input) {
  const i2sb_model* model = world.model(input);
  const char *key = nullptr, *value = nullptr;
  const int32_t index = input.number();
  i2sb_model_metadata_at(model, index, &key, &value);
  CHECK((key != nullptr) == (index >= 0 && index < i2sb_model_metadata_count(model)));
  if (key) CHECK(i2sb_model_metadata(model, key) == value);
  CHECK(i2sb_model_metadata(model, "i2sb.nothing") == nullptr);
  i2sb_tensor tensor{};
  set_size(tensor, input);
  if (FUZZED(i2sb_model_tensor_at(model, input.number(), &tensor)) == I2SB_OK) CHECK(tensor.data_size == 8);
}

void ask_layout(World& world, Input& input) {
  i2sb_layout layout{};
  set_size(layout, input);
  layout.width = 42;
  const int32_t width = input.number(), height = input.number(), tile = input.number(), overlap = input.number();
  const i2sb_status status = FUZZED(i2sb_model_layout(world.model(input), width, height, tile, overlap, &layout));
  if (status != I2SB_OK) CHECK(layout.width == 42);
  if (status == I2SB_OK) CHECK(layout.padded_width >= width && layout.tile_count >= 1 && layout.overlap >= 0);
}

i2sb_schedule schedule_of(Input& input) {
  i2sb_schedule schedule{};
  set_size(schedule, input);
  schedule.interval = input.flag() ? 2 * input.range(1, 100) : input.number();
  if (schedule.interval > 5000 && schedule.interval <= 1000000) schedule.interval %= 5000;  // as legal, and faster
  schedule.beta_max = input.one_of(NUMBERS);
  schedule.t0 = input.one_of(NUMBERS);
  schedule.T = input.flag() ? 2 : input.one_of(NUMBERS);
  return schedule;
}

void compute_schedule(Input& input) {
  const i2sb_schedule schedule = schedule_of(input);
  std::vector<double> arrays(7 * static_cast<size_t>(std::clamp(schedule.interval, 1, 5000)), 42.0);
  if (FUZZED(i2sb_schedule_compute(&schedule, arrays.data())) != I2SB_OK) CHECK(arrays[0] == 42 && arrays.back() == 42);
}

void make_plan(World& world, Input& input) {
  const i2sb_schedule schedule = schedule_of(input);
  i2sb_plan_params params;
  i2sb_plan_params_init(&params, sizeof params);
  set_size(params, input);
  params.model = world.model(input);
  if (input.flag()) params.schedule = &schedule;
  if (input.flag()) params.sampler = input.one_of(NAMES);
  if (input.range(0, 3) == 0) params.prediction = input.one_of(NAMES);
  if (input.flag()) params.eta = input.one_of(NUMBERS);
  params.nfe = input.number();
  params.clip = input.range(-1, 1);
  std::vector<double> gammas(input.take<uint8_t>() % 40, input.range(0, 7) ? 0.125 : input.one_of(NUMBERS));
  if (!gammas.empty() && input.flag()) gammas.back() = input.one_of({1e-12, 1e12, 1.0});
  if (input.range(0, 3) == 0) {
    params.gammas = gammas.data();
    params.gamma_count = static_cast<int32_t>(input.range(0, 15) ? gammas.size() : 0);
  }
  if (input.range(0, 3) == 0) params.direction = input.one_of(DIRECTIONS);
  i2sb_plan plan{};
  set_size(plan, input);
  plan.row_count = -42;
  if (FUZZED(i2sb_plan_make(&params, nullptr, nullptr, &plan)) != I2SB_OK) {
    CHECK(plan.row_count == -42);
    return;
  }
  const auto count = static_cast<size_t>(plan.row_count);
  std::vector<float> rows(count * I2SB_ROW_COLUMNS, 42.0f);
  std::vector<int32_t> steps(count + 1), own(count + 1);
  // Steps of the host's own, legal or nearly.
  for (size_t k = 0; k <= count; ++k) own[k] = static_cast<int32_t>(k);
  own.back() = (params.schedule ? schedule.interval : 1000) - 1;
  if (input.range(0, 7) == 0) own[input.take<uint8_t>() % own.size()] = input.number();
  if (input.range(0, 3) == 0) params.steps = own.data();
  if (FUZZED(i2sb_plan_make(&params, rows.data(), steps.data(), &plan)) != I2SB_OK) {
    CHECK(rows[0] == 42);
    return;
  }
  for (const float value : rows) CHECK(std::isfinite(value));
  CHECK(steps.front() == 0);
  if (count > 8) return;
  world.rows = rows;
  world.plan = plan;
  world.plan.rows = world.rows.data();
}

// A plan of no sampler's.
void invent_plan(World& world, Input& input) {
  world.rows.assign(static_cast<size_t>(input.range(1, 4)) * I2SB_ROW_COLUMNS, 0);
  for (float& value : world.rows)
    value = input.range(0, 31) ? static_cast<float>(input.take<int8_t>()) / 64.0f
                               : static_cast<float>(input.range(0, 1) ? NAN : 1e30f);
  const auto count = static_cast<int32_t>(world.rows.size() / I2SB_ROW_COLUMNS);
  world.plan = {sizeof(i2sb_plan), count, world.rows.data(), input.range(0, 1),
                input.range(0, 7) ? input.range(0, 1) : 7};
  set_size(world.plan, input);
}

void create_session(World& world, Input& input) {
  const int which = input.range(0, OBJECTS - 1), from = input.range(-1, OBJECTS - 1);
  world.free_session(which);
  i2sb_engine engine = tests::engine_of(Network::predict, &world.network);
  set_size(engine, input);
  const int kind = input.range(0, 15);
  if (kind <= 1) engine.predict = nullptr;
  if (kind == 1 || kind == 2) engine.sample = Network::sample;
  i2sb_openvino_options options = i2sb_rt::openvino_options();
  set_size(options, input);
  options.library = "/nowhere";
  options.streams = input.number();
  const i2sb_allocator allocator{Arena::allocate, Arena::release, &world.arena};
  i2sb_session_params params = i2sb_rt::session_params();
  set_size(params, input);
  if (input.range(0, 7)) params.engine = &engine;
  params.openvino = &options;
  params.threads = input.range(-1, 2);
  if (params.threads == 0) params.threads = 1;
  if (input.flag()) params.allocator = &allocator;
  const i2sb_model* model = from < 0 ? nullptr : world.models[from];
  i2sb_session* session = nullptr;
  const i2sb_status status = FUZZED(i2sb_session_create(model, &params, &session));
  CHECK((status == I2SB_OK) == (session != nullptr));
  CHECK(status != I2SB_OK || params.engine);
  world.sessions[which] = session;
  world.model_of[which] = session && model ? from : -1;
}

void restore(World& world, Input& input) {
  const int which = input.range(0, OBJECTS - 1), from = world.model_of[which];
  const bool twice = from >= 0 && std::strcmp(i2sb_model_metadata(world.models[from], "i2sb.upscale"), "2") == 0;
  const int width = input.range(1, 40), height = input.range(1, 40), channels = input.one_of({3, 1, 4, 2});
  const int up = twice || input.range(0, 7) == 0 ? 2 : 1;
  std::vector<uint8_t> pixels(static_cast<size_t>(width) * height * channels, input.take<uint8_t>());
  std::vector<uint8_t> hole(static_cast<size_t>(width) * height, input.flag());
  hole[0] ^= 1;
  std::vector<uint8_t> result(pixels.size() * up * up, 42);
  i2sb_image image = i2sb_rt::image(pixels.data(), width, height, channels);
  i2sb_image mask = i2sb_rt::image(hole.data(), width, height, 1);
  i2sb_image out = i2sb_rt::image(result.data(), width * up, height * up, channels);
  uint64_t stops = input.flag() ? input.take<uint64_t>() : 0;
  i2sb_restore_params params = i2sb_rt::restore_params();
  set_size(image, input);
  set_size(out, input);
  set_size(params, input);
  params.image = input.range(0, 31) ? &image : nullptr;
  params.out = input.range(0, 31) ? &out : nullptr;
  if (input.flag()) params.mask = &mask;
  if (input.flag()) params.plan = &world.plan;
  if (input.flag()) params.sampler = input.one_of(NAMES);
  if (input.range(0, 3) == 0) params.eta = input.one_of(NUMBERS);
  params.nfe = input.range(0, 3) ? input.range(0, 6) : input.number();
  if (params.nfe > 6 && params.nfe < 1000) params.nfe %= 6;  // as legal, and faster
  params.tile = input.range(0, 3) ? -1 : input.number();
  params.overlap = input.range(0, 3) ? -1 : input.number();
  params.progress = stop_now_and_then;
  params.progress_user = &stops;
  world.network.bits = input.flag() ? input.take<uint32_t>() : 0;
  world.network.session = world.sessions[which];
  world.arena.left = input.flag() ? 1000 : input.range(0, 255);
  const i2sb_status status = FUZZED(i2sb_restore(world.sessions[which], &params));
  if (status == I2SB_OK) return;
  for (const uint8_t value : result) CHECK(value == 42);
}

void sample(World& world, Input& input) {
  const int which = input.range(0, OBJECTS - 1), rows = static_cast<int>(world.rows.size() / I2SB_ROW_COLUMNS);
  const int batch = input.range(1, 3), channels = input.range(1, 3), cond_channels = input.range(0, 2);
  const int height = input.range(1, 24), width = input.range(1, 24);
  const size_t area = static_cast<size_t>(height) * width, count = area * channels * batch;
  std::vector<float> x1(count, 0.25f), cond(std::max<size_t>(1, area * cond_channels * batch), 0.5f);
  std::vector<float> mask(area * batch, input.range(0, 15) ? 1.0f : 0.5f), out(count, 42.0f);
  std::vector<float> trajectory(count * std::max(1, rows), 42.0f), draws;
  mask[0] = 0;
  std::vector<uint64_t> seeds(batch, input.take<uint8_t>());
  uint64_t stops = input.flag() ? input.take<uint64_t>() : 0;
  i2sb_sample_params params;
  i2sb_sample_params_init(&params, sizeof params);
  set_size(params, input);
  params.batch = batch;
  params.channels = channels;
  params.height = height;
  params.width = width;
  params.x1 = params.start = x1.data();
  if (input.flag()) params.start = nullptr;
  if (cond_channels > 0 || input.range(0, 15) == 0) params.cond = cond.data();
  params.cond_channels = cond_channels;
  if (input.flag()) params.mask = mask.data();
  if (input.flag()) params.seeds = seeds.data();
  params.out = out.data();
  if (input.flag()) params.trajectory = trajectory.data();
  if (input.flag()) {
    params.draw_count = input.range(0, 8);
    draws.assign(params.draw_count * count + 1, 0.5f);
    params.draws = draws.data();
  }
  if (input.flag()) params.network_batch = input.number();
  if (input.flag()) params.tile = input.number();
  if (input.flag()) params.overlap = input.number();
  // Sizes that must be refused before anything of theirs is read.
  if (input.range(0, 15) == 0) params.height = params.width = INT32_MAX - input.range(0, 9);
  if (input.range(0, 15) == 0) params.batch = -input.range(0, 9);
  if (input.range(0, 15) == 0 && !params.mask) params.channels = params.cond_channels = INT32_MAX - input.range(0, 9);
  params.progress = stop_now_and_then;
  params.progress_user = &stops;
  world.network.bits = input.flag() ? input.take<uint32_t>() : 0;
  world.network.session = world.sessions[which];
  world.arena.left = input.flag() ? 1000 : input.range(0, 255);
  const i2sb_plan* plan = input.range(0, 31) ? &world.plan : nullptr;
  const i2sb_status status = FUZZED(i2sb_sample(world.sessions[which], plan, &params));
  for (const float value : out) CHECK(status == I2SB_OK ? std::isfinite(value) : value == 42);
  if (status != I2SB_OK)
    for (const float value : trajectory) CHECK(value == 42);
}

void parts(Input& input) {
  std::vector<float> values(static_cast<size_t>(input.range(1, 100)), 42.0f);
  const uint32_t purpose = input.range(0, 5);
  const i2sb_status noise = FUZZED(i2sb_noise(input.take<uint64_t>(), input.take<uint64_t>(), values.size(),
                                              input.take<uint32_t>(), purpose, values.data()));
  CHECK((noise == I2SB_OK) == (purpose <= 3) && std::isfinite(values.back()));

  const int channels = input.range(0, 3), height = input.range(0, 20), width = input.range(0, 20);
  const size_t area = std::max(1, height * width);
  std::vector<float> planes(std::max(1, channels) * area, 0.5f), mask(area);
  for (float& value : mask) value = input.flag();
  const i2sb_status fill = FUZZED(i2sb_fill_hole(channels, height, width, mask.data(), planes.data()));
  CHECK((fill == I2SB_OK) == (channels > 0 && height > 0 && width > 0));

  const int32_t size = input.number(), tile = input.number(), overlap = input.number();
  int32_t needed = -42;
  if (FUZZED(i2sb_tile_origins(size, tile, overlap, nullptr, &needed)) != I2SB_OK) {
    CHECK(needed == -42);
    return;
  }
  CHECK(needed >= 1);
  if (needed > 10000) return;
  std::vector<int32_t> origins(static_cast<size_t>(needed), -1);
  int32_t room = needed - 1;
  CHECK(FUZZED(i2sb_tile_origins(size, tile, overlap, origins.data(), &room)) == I2SB_ERROR_ARGUMENT &&
        origins[0] == -1);
  CHECK(FUZZED(i2sb_tile_origins(size, tile, overlap, origins.data(), &needed)) == I2SB_OK);
  CHECK(origins[0] == 0 && origins.back() >= 0 && origins.back() < size && origins.back() >= size - tile);
}

void openvino(World& world, Input& input) {
  i2sb_engine engine{};
  set_size(engine, input);
  i2sb_openvino_options options = i2sb_rt::openvino_options();
  set_size(options, input);
  options.library = "/nowhere";
  options.threads = input.number();
  CHECK(FUZZED(i2sb_openvino_engine(world.model(input), &options, &engine)) != I2SB_OK);
  CHECK(engine.predict == nullptr && *i2sb_openvino_precision(&engine) == '\0');
  i2sb_engine_free(&engine);
}

void call(World& world, Input& input) {
  switch (input.range(0, 15)) {
    case 0:
    case 1:
      return load(world, input);
    case 2:
      return world.free_model(input.range(0, OBJECTS - 1));
    case 3:
      return ask_model(world, input);
    case 4:
      return ask_layout(world, input);
    case 5:
      return compute_schedule(input);
    case 6:
      return make_plan(world, input);
    case 7:
      return invent_plan(world, input);
    case 8:
    case 9:
      return create_session(world, input);
    case 10:
      return world.free_session(input.range(0, OBJECTS - 1));
    case 11:
      return i2sb_session_cancel(world.sessions[input.range(0, OBJECTS - 1)]);
    case 12:
      return parts(input);
    case 13:
      return input.range(0, 7) ? restore(world, input) : openvino(world, input);
    case 14:
      return restore(world, input);
    default:
      return sample(world, input);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const bool made = (load(*std::make_unique<World>(), *std::make_unique<Input>(data, 0)), true);
  static_cast<void>(made);  // what is made once is not of one input's
  const fuzz::SmallHeap heap(HEAP);
  World world;
  Input input(data, size);
  for (int k = 0; k < MOST_CALLS && !input.empty(); ++k) call(world, input);
  return 0;
}
