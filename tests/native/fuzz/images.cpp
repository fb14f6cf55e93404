// Images of any size, type and lie in memory: the result is that of packed rows, or both are refused alike, and no byte
// that is not a pixel of the result is written.
#include <vector>

#include "canvas.hpp"
#include "contract.hpp"
#include "host.hpp"
#include "input.hpp"

namespace {

using tests::Canvas;
using tests::Lie;

constexpr size_t HEAP = size_t{64} << 20;

struct Model {
  tests::Metadata changes;
  int upscale;
  bool needs_mask;
};

const Model MODELS[] = {
    {{{"nfe", "2"}}, 1, false},
    {{{"nfe", "3"}, {"task", "inpaint"}, {"fill", "smooth"}, {"cond_mask", "1"}, {"sampler", "dbim2"}}, 1, true},
    {{{"nfe", "1"}, {"cond_x1", "1"}, {"add_x1_noise", "1"}, {"batch", "3"}, {"tile", "16"}, {"overlap", "0"}},
     1,
     false},
    {{{"nfe", "2"},
      {"channels", "1"},
      {"clip", "1"},
      {"multiple", "3"},
      {"minimum", "20"},
      {"tile", "48"},
      {"overlap", "0"}},
     1,
     false},
    {{{"nfe", "1"}, {"channels", "4"}, {"sampler", "i3sb"}}, 1, false},
    {{{"nfe", "1"}, {"upscale", "3"}}, 3, false},
};

// One of each, made once.
const std::vector<i2sb_rt::Session>& sessions() {
  static const std::vector<i2sb_rt::Session> all = [] {
    std::vector<i2sb_rt::Session> made;
    for (const Model& model : MODELS) made.push_back(tests::session_of(tests::load(model.changes)));
    return made;
  }();
  return all;
}

Lie lie_of(fuzz::Input& input) { return {input.range(0, 9), input.flag()}; }

// A picture that is made of few bytes of the input; floats may be far outside, and not finite.
void paint(Canvas& canvas, const std::string& seed, bool wild) {
  constexpr float WILD[] = {1e-40f, -1, 3e38f, 1e20f, -0.0f, __builtin_inff(), __builtin_nanf("")};
  uint32_t state = 1;
  for (int y = 0; y < canvas.image.height; ++y)
    for (size_t i = 0; i < canvas.row_values(); ++i) {
      const auto byte = seed.empty() ? uint8_t{9} : static_cast<uint8_t>(seed[(state >> 8) % seed.size()]);
      state = state * 1664525 + 1013904223 + byte;
      if (wild && canvas.image.type == I2SB_F32 && byte > 250)
        canvas.set<float>(y, i, WILD[(state >> 16) % 7]);
      else
        canvas.set_level(y, i, static_cast<uint8_t>(byte + (state >> 24) % 8));
    }
}

void paint_mask(Canvas& mask, const std::string& seed) {
  for (int y = 0; y < mask.image.height; ++y)
    for (int x = 0; x < mask.image.width; ++x) {
      const bool hole = !seed.empty() && seed[static_cast<size_t>(y * 5 + x / 3) % seed.size()] & 1;
      if (mask.image.type == I2SB_U8)
        mask.set<uint8_t>(y, x, hole ? 200 : 0);
      else
        mask.set<float>(y, x, hole ? 1e-40f : 0.0f);
    }
}

// What no image may be. Returns false where it would be a legal one.
bool spoil(i2sb_image& image, fuzz::Input& input) {
  const ptrdiff_t row = static_cast<ptrdiff_t>(image.width) * image.channels * tests::value_size(image.type);
  switch (input.range(0, 7)) {
    case 0:
      image.struct_size = input.take<uint32_t>() % sizeof image;
      return true;
    case 1:
      image.data = nullptr;
      return true;
    case 2:
      image.width = -static_cast<int32_t>(input.take<uint32_t>() >> 1);
      return true;
    case 3:
      image.height = input.flag() ? (1 << 20) + input.range(1, 100) : -input.range(0, 100);
      return true;
    case 4:
      image.channels = input.flag() ? INT32_MAX - input.range(0, 9) : -input.range(0, 9);
      return true;
    case 5:
      image.type = input.flag() ? 2 + input.range(0, 9) : -1 - input.range(0, 9);
      return true;
    case 6:
      if (row == 1) return false;  // no stride is less, and 0 has a meaning of its own
      image.stride = (1 + input.take<uint16_t>() % (row - 1)) * (input.flag() ? 1 : -1);
      return true;
    default:
      if (image.type != I2SB_F32) return false;
      image.stride += input.range(1, 3);
      return true;
  }
}

struct Restoring {
  i2sb_session* session;
  uint64_t seed;
  int tile;

  i2sb_status operator()(const i2sb_image& from, const i2sb_image& to, const i2sb_image* mask) const {
    i2sb_restore_params params = i2sb_rt::restore_params();
    params.image = &from;
    params.out = &to;
    params.mask = mask;
    params.seed = seed;
    params.tile = tile;
    return FUZZED(i2sb_restore(session, &params));
  }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input input(data, size);
  const int which = input.range(0, static_cast<int>(std::size(MODELS)) - 1);
  const Model& model = MODELS[which];
  const Restoring restore{sessions()[which].get(), input.take<uint16_t>(), input.range(-1, 0)};
  const fuzz::SmallHeap heap(HEAP);
  const int width = input.range(1, 36), height = input.range(1, 20), channels = input.range(1, 5);
  const int type = input.flag() ? I2SB_F32 : I2SB_U8, mask_type = input.flag() ? I2SB_F32 : I2SB_U8;
  const bool masked = input.range(0, 3) == 0 || (model.needs_mask && input.range(0, 7) > 0), wild = input.flag();
  const bool in_place = input.flag() && model.upscale == 1, spoiled = input.range(0, 3) == 0;
  const Lie from_lie = lie_of(input), to_lie = lie_of(input), mask_lie = lie_of(input);
  const std::string seed = input.bytes(64);
  const int up = model.upscale;

  Canvas packed(width, height, channels, type), packed_to(width * up, height * up, channels, type);
  Canvas packed_mask(width, height, 1, I2SB_U8);
  paint(packed, seed, wild);
  paint_mask(packed_mask, seed);
  const std::vector<unsigned char> untouched = packed_to.pixels();
  const i2sb_status expected = restore(packed.image, packed_to.image, masked ? &packed_mask.image : nullptr);
  if (expected != I2SB_OK) CHECK(packed_to.pixels() == untouched);
  packed_to.check_guards();

  Canvas from(width, height, channels, type, from_lie), other(width * up, height * up, channels, type, to_lie);
  Canvas mask(width, height, 1, mask_type, mask_lie);
  Canvas& to = in_place ? from : other;
  paint(from, seed, wild);
  paint_mask(mask, seed);
  const std::vector<unsigned char> before = to.pixels(), from_before = from.pixels();
  i2sb_image given = from.image, given_to = to.image, given_mask = mask.image;
  bool refused = false;
  if (spoiled) {
    const int spoils = input.range(0, masked ? 2 : 1);
    refused = spoil(spoils == 0 ? given : spoils == 1 ? given_to : given_mask, input);
  }
  const i2sb_status status = restore(given, given_to, masked ? &given_mask : nullptr);
  CHECK(status == (refused ? I2SB_ERROR_ARGUMENT : expected));
  CHECK(to.pixels() == (status == I2SB_OK ? packed_to.pixels() : before));
  if (!in_place) CHECK(from.pixels() == from_before);
  from.check_guards();
  other.check_guards();
  mask.check_guards();
  return 0;
}
