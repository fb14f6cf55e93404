// Image in, image out, with the host's own engine: every way that pixels can lie in memory, and every way to load.
#include <algorithm>
#include <cfenv>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "canvas.hpp"
#include "host.hpp"

namespace tests {
namespace {

constexpr int WIDTH = 45, HEIGHT = 30;  // wider than a tile, no multiple of what the model takes

uint8_t picture(int y, int x, int c) { return static_cast<uint8_t>(x * 5 + y * 3 + c * 60 + (x * y) % 17); }

void paint(Canvas& canvas) {
  for (int y = 0; y < canvas.image.height; ++y)
    for (size_t i = 0; i < canvas.row_values(); ++i) {
      const int x = static_cast<int>(i) / canvas.image.channels, c = static_cast<int>(i) % canvas.image.channels;
      canvas.set_level(y, i, picture(y, x, c));
    }
}

bool in_hole(int y, int x) { return x > 10 && x < 20 && y > 5 && y < 25; }

// Anything but zero is a hole, so no value of it is like the next one.
void paint_hole(Canvas& canvas) {
  for (int y = 0; y < canvas.image.height; ++y)
    for (int x = 0; x < canvas.image.width; ++x) {
      if (canvas.image.type == I2SB_U8)
        canvas.set<uint8_t>(y, x, in_hole(y, x) ? static_cast<uint8_t>(1 + (x + y) % 255) : 0);
      else
        canvas.set<float>(y, x, in_hole(y, x) ? 0.001f * static_cast<float>(x - 15) + 0.1f : (x % 2 ? 0.0f : -0.0f));
    }
}

std::vector<unsigned char> restored(const i2sb_rt::Session& session, const Canvas& from, Canvas& to,
                                    const Canvas* mask = nullptr) {
  const std::vector<unsigned char> before = from.pixels();
  i2sb_restore_params params = i2sb_rt::restore_params();
  params.mask = mask ? &mask->image : nullptr;
  params.seed = 7;
  session.restore(from.image, to.image, params);
  if (from.image.data != to.image.data) CHECK(from.pixels() == before);
  from.check_guards();
  to.check_guards();
  if (mask) mask->check_guards();
  return to.pixels();
}

std::vector<unsigned char> restored(const i2sb_rt::Session& session, const Canvas& from, const Canvas* mask = nullptr) {
  Canvas to(from.image.width, from.image.height, from.image.channels, from.image.type);
  return restored(session, from, to, mask);
}

const Lie LIES[] = {{0, false}, {5, false}, {0, true}, {7, true}};

// The result does not depend on how the input, the result and the mask lie.
void check_strides(const i2sb_rt::Session& session, int channels, int type, bool masked) {
  Canvas packed(WIDTH, HEIGHT, channels, type), hole(WIDTH, HEIGHT, 1, I2SB_U8);
  paint(packed);
  paint_hole(hole);
  const std::vector<unsigned char> expected = restored(session, packed, masked ? &hole : nullptr);
  CHECK(expected != packed.pixels());
  for (const Lie& from_lie : LIES)
    for (const Lie& to_lie : LIES) {
      Canvas from(WIDTH, HEIGHT, channels, type, from_lie), to(WIDTH, HEIGHT, channels, type, to_lie);
      Canvas mask(WIDTH, HEIGHT, 1, from_lie.gap > 0 ? I2SB_F32 : I2SB_U8, to_lie);
      paint(from);
      paint_hole(mask);
      CHECK(restored(session, from, to, masked ? &mask : nullptr) == expected);
    }
  for (const Lie& lie : LIES) {
    Canvas both(WIDTH, HEIGHT, channels, type, lie), mask(WIDTH, HEIGHT, 1, I2SB_F32, lie);
    paint(both);
    paint_hole(mask);
    CHECK(restored(session, both, both, masked ? &mask : nullptr) == expected);
  }
}

// Floats are the bytes' pictures, less their rounding.
void check_floats(const i2sb_rt::Session& session, int channels) {
  Canvas bytes(WIDTH, HEIGHT, channels, I2SB_U8), floats(WIDTH, HEIGHT, channels, I2SB_F32);
  paint(bytes);
  paint(floats);
  restored(session, bytes, bytes);
  restored(session, floats, floats);
  // Grey is made of three rounded bytes, and rounded once more.
  const double most = channels == 1 ? 1.01 : 0.51;
  for (int y = 0; y < HEIGHT; ++y)
    for (size_t i = 0; i < bytes.row_values(); ++i) CHECK(std::abs(bytes.level(y, i) - floats.level(y, i)) < most);
}

// Grey is shown to a model of three channels as three that are alike; a fourth one is kept.
void check_channels(const i2sb_rt::Session& session, int type) {
  Canvas rgb(WIDTH, HEIGHT, 3, type), more(WIDTH, HEIGHT, 4, type), grey(WIDTH, HEIGHT, 1, type);
  Canvas alike(WIDTH, HEIGHT, 3, type);
  paint(rgb);
  paint(more);
  paint(grey);
  for (int y = 0; y < HEIGHT; ++y)
    for (size_t i = 0; i < alike.row_values(); ++i) alike.set_level(y, i, picture(y, static_cast<int>(i / 3), 0));
  for (Canvas* canvas : {&rgb, &more, &grey, &alike}) restored(session, *canvas, *canvas);
  for (int y = 0; y < HEIGHT; ++y)
    for (int x = 0; x < WIDTH; ++x) {
      for (int c = 0; c < 3; ++c) CHECK(more.level(y, 4 * x + c) == rgb.level(y, 3 * x + c));
      CHECK(std::abs(more.level(y, 4 * x + 3) - picture(y, x, 3)) < 1e-4);
      const double luma =
          0.299 * alike.level(y, 3 * x) + 0.587 * alike.level(y, 3 * x + 1) + 0.114 * alike.level(y, 3 * x + 2);
      CHECK(std::abs(grey.level(y, x) - luma) < (type == I2SB_U8 ? 0.51 : 1e-3));
    }
}

// More copies give another mean; what is known stays as it is; other numbers of them are refused.
void check_ensemble(const i2sb_rt::Session& session, int channels, bool masked) {
  Canvas from(WIDTH, HEIGHT, channels, I2SB_F32), hole(WIDTH, HEIGHT, 1, I2SB_U8);
  paint(from);
  paint_hole(hole);
  std::vector<std::vector<unsigned char>> results;
  for (const int ensemble : {0, 1, 2, 4, 8}) {
    Canvas to(WIDTH, HEIGHT, channels, I2SB_F32);
    i2sb_restore_params params = i2sb_rt::restore_params();
    params.mask = masked ? &hole.image : nullptr;
    params.seed = 7;
    params.ensemble = ensemble;
    session.restore(from.image, to.image, params);
    to.check_guards();
    results.push_back(to.pixels());
    for (int y = 0; masked && y < HEIGHT; ++y)
      for (int x = 0; x < WIDTH; ++x) CHECK(in_hole(y, x) || to.level(y, x * channels) == from.level(y, x * channels));
  }
  CHECK(results[0] == results[1]);
  CHECK(results[1] != results[2] && results[2] != results[3] && results[3] != results[4]);
  for (const int ensemble : {-1, 3, 5, 16}) {
    Canvas to(WIDTH, HEIGHT, channels, I2SB_F32);
    i2sb_restore_params params = i2sb_rt::restore_params();
    params.image = &from.image;
    params.out = &to.image;
    params.mask = masked ? &hole.image : nullptr;
    params.ensemble = ensemble;
    REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(session.get(), &params));
  }
}

// A host program's own way of rounding changes no byte, and is its own again.
void rounding_is_the_library_s_own(const i2sb_rt::Session& session, int type) {
  Canvas from(WIDTH, HEIGHT, 3, type);
  paint(from);
  const std::vector<unsigned char> expected = restored(session, from);
  const int before = std::fegetround();
  for (const int mode : {FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO}) {
    CHECK(std::fesetround(mode) == 0);
    const std::vector<unsigned char> found = restored(session, from);
    CHECK(std::fegetround() == mode);
    CHECK(found == expected);
  }
  CHECK(std::fesetround(before) == 0);
}

// A program that was built before there were ensembles.
void an_older_struct_is_taken(const i2sb_rt::Session& session) {
  Canvas from(WIDTH, HEIGHT, 3, I2SB_U8), to(WIDTH, HEIGHT, 3, I2SB_U8);
  paint(from);
  i2sb_restore_params params = i2sb_rt::restore_params();
  params.struct_size = offsetof(i2sb_restore_params, ensemble);
  params.image = &from.image;
  params.out = &to.image;
  params.seed = 7;
  params.ensemble = 3;  // behind its end
  CHECK(i2sb_restore(session.get(), &params) == I2SB_OK);
  CHECK(to.pixels() == restored(session, from));
}

// A model that fills no holes would fill one with noise.
void a_mask_needs_a_model_that_fills_holes(const i2sb_rt::Session& session) {
  const Canvas image(WIDTH, HEIGHT, 3, I2SB_U8, Lie{});
  Canvas out(WIDTH, HEIGHT, 3, I2SB_U8, Lie{}), hole(WIDTH, HEIGHT, 1, I2SB_U8, Lie{});
  paint_hole(hole);
  i2sb_restore_params params{};
  i2sb_restore_params_init(&params, sizeof params);
  params.image = &image.image;
  params.out = &out.image;
  params.mask = &hole.image;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(session.get(), &params));
}

// What is known comes back bit for bit, what is not does not.
void check_mask(const i2sb_rt::Session& session, int channels, int type) {
  Canvas from(WIDTH, HEIGHT, channels, type), to(WIDTH, HEIGHT, channels, type), mask(WIDTH, HEIGHT, 1, I2SB_U8);
  paint(from);
  paint_hole(mask);
  restored(session, from, to, &mask);
  int changed = 0;
  for (int y = 0; y < HEIGHT; ++y)
    for (int x = 0; x < WIDTH; ++x)
      for (int c = 0; c < channels; ++c) {
        const bool same = from.level(y, x * channels + c) == to.level(y, x * channels + c);
        CHECK(same || in_hole(y, x));
        changed += !same;
      }
  CHECK(changed > 100);
}

void check_refused(const i2sb_rt::Session& session, const i2sb_image& from, const Canvas& to,
                   const i2sb_image* mask = nullptr) {
  const std::vector<unsigned char> before = to.pixels();
  i2sb_restore_params params = i2sb_rt::restore_params();
  params.image = &from;
  params.out = &to.image;
  params.mask = mask;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(session.get(), &params));
  CHECK(to.pixels() == before);
  to.check_guards();
}

void wrong_results_are_refused(const i2sb_rt::Session& session, const i2sb_rt::Session& twice) {
  Canvas from(WIDTH, HEIGHT, 3, I2SB_U8);
  paint(from);
  check_refused(session, from.image, Canvas(WIDTH - 1, HEIGHT, 3, I2SB_U8));
  check_refused(session, from.image, Canvas(WIDTH, HEIGHT + 1, 3, I2SB_U8));
  check_refused(session, from.image, Canvas(WIDTH, HEIGHT, 4, I2SB_U8));
  check_refused(session, from.image, Canvas(WIDTH, HEIGHT, 3, I2SB_F32));
  check_refused(twice, from.image, Canvas(WIDTH, HEIGHT, 3, I2SB_U8));
  Canvas more(WIDTH, HEIGHT, 4, I2SB_U8), hole(WIDTH, HEIGHT, 1, I2SB_U8), floats(WIDTH, HEIGHT, 3, I2SB_F32);
  check_refused(twice, more.image, Canvas(2 * WIDTH, 2 * HEIGHT, 4, I2SB_U8));
  check_refused(twice, from.image, Canvas(2 * WIDTH, 2 * HEIGHT, 3, I2SB_U8), &hole.image);
  paint(floats);
  floats.set<float>(HEIGHT - 1, 3 * WIDTH - 1, NAN);
  check_refused(session, floats.image, Canvas(WIDTH, HEIGHT, 3, I2SB_F32));
}

void check_enlarging(const i2sb_rt::Session& twice) {
  for (const int type : {I2SB_U8, I2SB_F32}) {
    std::vector<unsigned char> expected;
    for (const Lie& lie : LIES) {
      Canvas from(WIDTH, HEIGHT, 3, type, lie), to(2 * WIDTH, 2 * HEIGHT, 3, type, lie);
      paint(from);
      const std::vector<unsigned char> result = restored(twice, from, to);
      if (expected.empty()) expected = result;
      CHECK(result == expected);
    }
  }
}

// A model file that comes in pieces, and what can go wrong with them.
struct Pieces {
  std::string bytes;
  size_t most;      // bytes a call
  size_t fails_at;  // position
  bool claims_too_much;
  size_t at = 0;

  static int64_t read(void* self, void* buffer, size_t size) {
    auto* pieces = static_cast<Pieces*>(self);
    if (pieces->at >= pieces->fails_at) return pieces->claims_too_much ? static_cast<int64_t>(size) + 1 : -1;
    const size_t count = std::min({size, pieces->most, pieces->bytes.size() - pieces->at});
    std::memcpy(buffer, pieces->bytes.data() + pieces->at, count);
    pieces->at += count;
    return static_cast<int64_t>(count);
  }

  i2sb_status load(i2sb_model** model) {
    i2sb_model_params params = i2sb_rt::model_params();
    params.read = read;
    params.read_user = this;
    return i2sb_model_load(&params, model);
  }
};

void check_same_model(const i2sb_model* model, const std::vector<unsigned char>& expected) {
  CHECK(i2sb_model_metadata(model, "i2sb.name") == std::string("tiny"));
  CHECK(i2sb_model_tensor_count(model) == 1);
  const i2sb_engine engine = engine_of(mix);
  i2sb_session_params params = i2sb_rt::session_params();
  params.engine = &engine;
  i2sb_session* session = nullptr;
  CHECK(i2sb_session_create(model, &params, &session) == I2SB_OK);
  Canvas from(WIDTH, HEIGHT, 3, I2SB_U8);
  paint(from);
  i2sb_restore_params restoring = i2sb_rt::restore_params();
  restoring.image = restoring.out = &from.image;
  restoring.seed = 7;
  CHECK(i2sb_restore(session, &restoring) == I2SB_OK);
  CHECK(from.pixels() == expected);
  i2sb_session_free(session);
}

void every_source_gives_the_same_model(const std::string& path) {
  // Larger than the first piece that is asked for.
  const std::string bytes = onnx_bytes() + metadata_bytes("padding", std::string(3 << 20, ' '));
  i2sb_model* model = nullptr;
  CHECK(load(bytes, &model) == I2SB_OK);
  Canvas from(WIDTH, HEIGHT, 3, I2SB_U8);
  paint(from);
  const std::vector<unsigned char> expected = restored(session_of(load()), from);
  check_same_model(model, expected);
  i2sb_model_free(model);

  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  const i2sb_rt::Model opened(path);
  std::remove(path.c_str());
  check_same_model(opened.get(), expected);

  for (const size_t most : {size_t{4093}, size_t{1} << 20, bytes.size()}) {
    Pieces pieces{bytes, most, SIZE_MAX, false};
    model = nullptr;
    CHECK(pieces.load(&model) == I2SB_OK);
    check_same_model(model, expected);
    i2sb_model_free(model);
  }
  model = nullptr;
  for (const size_t at : {size_t{0}, size_t{8186}}) {
    Pieces failing{bytes, 4093, at, false}, lying{bytes, 4093, at, true};
    REFUSED(I2SB_ERROR_MODEL, failing.load(&model));
    REFUSED(I2SB_ERROR_ARGUMENT, lying.load(&model));
  }
  Pieces cut{bytes.substr(0, bytes.size() - 1), 4093, SIZE_MAX, false};
  REFUSED(I2SB_ERROR_MODEL, cut.load(&model));
  CHECK(model == nullptr);
}

void run(const std::string& path) {
  const i2sb_rt::Session plain = session_of(load());
  const i2sb_rt::Session smooth = session_of(
      load({{"task", "inpaint"}, {"fill", "smooth"}, {"cond_mask", "1"}, {"sampler", "dbim3"}, {"nfe", "5"}}));
  const i2sb_rt::Session noisy = session_of(load({{"task", "inpaint"}, {"cond_x1", "1"}, {"add_x1_noise", "1"}}));
  for (const int type : {I2SB_U8, I2SB_F32}) {
    for (const int channels : {1, 3, 4}) {
      check_strides(plain, channels, type, false);
      check_strides(smooth, channels, type, true);
      check_mask(smooth, channels, type);
      check_mask(noisy, channels, type);
    }
    check_channels(plain, type);
    rounding_is_the_library_s_own(plain, type);
    for (const int channels : {1, 4}) {
      const i2sb_rt::Session own = session_of(load({{"channels", std::to_string(channels)}, {"task", "inpaint"}}));
      check_strides(own, channels, type, true);
    }
  }
  for (const int channels : {1, 3, 4}) check_floats(plain, channels);
  check_ensemble(plain, 3, false);
  check_ensemble(smooth, 1, true);
  check_ensemble(noisy, 4, true);
  an_older_struct_is_taken(plain);
  const i2sb_rt::Session twice = session_of(load({{"upscale", "2"}}));
  check_enlarging(twice);
  wrong_results_are_refused(plain, twice);
  a_mask_needs_a_model_that_fills_holes(plain);
  every_source_gives_the_same_model(path);
}

}  // namespace
}  // namespace tests

int main(int, char** arguments) { tests::run(std::string(arguments[0]) + ".onnx"); }
