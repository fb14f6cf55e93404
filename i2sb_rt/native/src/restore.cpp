// From an 8-bit image to an 8-bit image, as a model's metadata say.
#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "failure.hpp"
#include "fill.hpp"
#include "i2sb_kernels.h"
#include "model_file.hpp"
#include "session.hpp"
#include "tiles.hpp"

namespace i2sb {
namespace {

// [H,W,C] 0..255 -> [C,H',W'] in [-1,1], enlarged to the layout's size by repeating pixels (nearest neighbour), then
// padded at the right and bottom.
std::vector<float> to_planes(const i2sb_restore_params& p, int upscale, const i2sb_layout& layout) {
  std::array<float, 256> signal;
  for (int value = 0; value < 256; ++value) signal[value] = static_cast<float>(value) / 127.5f - 1.0f;
  const int padded_width = layout.padded_width;
  const size_t area = static_cast<size_t>(layout.padded_height) * padded_width, channels = p.channels;
  std::vector<size_t> columns(padded_width);
  for (int x = 0; x < padded_width; ++x)
    columns[x] = static_cast<size_t>(padded_source(x, layout.width) / upscale) * channels;
  std::vector<float> planes(channels * area);
  for (int y = 0; y < layout.padded_height; ++y) {
    const uint8_t* line = p.image + static_cast<size_t>(padded_source(y, layout.height) / upscale) * p.width * channels;
    for (size_t c = 0; c < channels; ++c) {
      float* to = planes.data() + c * area + static_cast<size_t>(y) * padded_width;
      for (int x = 0; x < padded_width; ++x) to[x] = signal[line[columns[x] + c]];
    }
  }
  return planes;
}

std::vector<float> to_mask(const uint8_t* mask, const i2sb_layout& layout) {
  const int width = layout.width;
  std::vector<float> padded;
  padded.reserve(static_cast<size_t>(layout.padded_height) * layout.padded_width);
  for (int y = 0; y < layout.padded_height; ++y) {
    const uint8_t* line = mask + static_cast<size_t>(padded_source(y, layout.height)) * width;
    for (int x = 0; x < layout.padded_width; ++x) padded.push_back(line[padded_source(x, width)] ? 1 : 0);
  }
  return padded;
}

// [-1,1] -> 0..255, clamped and rounded half to even: above 2^23 a float holds integers only.
uint8_t to_byte(float value) {
  constexpr float INTEGERS = 8388608.0f;
  return static_cast<uint8_t>((std::clamp(value, -1.0f, 1.0f) + 1.0f) * 127.5f + INTEGERS - INTEGERS);
}

// Crops, pastes the known pixels as they were, and rounds.
void to_bytes(const std::vector<float>& planes, const i2sb_restore_params& p, const i2sb_layout& layout) {
  const size_t area = static_cast<size_t>(layout.padded_height) * layout.padded_width, channels = p.channels;
  for (int y = 0; y < layout.height; ++y) {
    const size_t line = static_cast<size_t>(y) * layout.width;
    const auto restore = [&](size_t x) {
      const float* from = planes.data() + static_cast<size_t>(y) * layout.padded_width + x;
      for (size_t c = 0; c < channels; ++c) p.out[(line + x) * channels + c] = to_byte(from[c * area]);
    };
    for (size_t x = 0; x < static_cast<size_t>(layout.width); ++x) {
      if (!p.mask || p.mask[line + x] != 0)
        restore(x);
      else
        std::copy_n(p.image + (line + x) * channels, channels, p.out + (line + x) * channels);
    }
  }
}

std::vector<float> image_noise(uint64_t seed, size_t count, uint32_t purpose, int threads) {
  std::vector<float> z(count);
  i2sb_noise_fill(seed, 0, count, 0, purpose, z.data(), threads, I2SB_ISA_AUTO);
  return z;
}

// What the network is shown beside the state, of x1 as it starts, before any noise is added to it: all of it, or what
// is known of it, with zeros in the hole, and the mask.
std::vector<float> shown(const ModelRules& rules, const std::vector<float>& x1, const std::vector<float>& mask) {
  if (!rules.cond_x1 && !rules.cond_mask) return {};
  std::vector<float> cond = x1;
  if (rules.cond_mask) {
    for (size_t i = 0; i < cond.size(); ++i)
      if (mask[i % mask.size()] != 0) cond[i] = 0;
    cond.insert(cond.end(), mask.begin(), mask.end());
  }
  return cond;
}

void check(const ModelRules& rules, const i2sb_restore_params& p) {
  require_struct(&p, "params");
  require(p.image && p.out && p.plan, "image, out or plan is NULL");
  check_plan(*p.plan);
  if (p.channels != rules.channels)
    fail(I2SB_ERROR_ARGUMENT, "this model restores images of " + std::to_string(rules.channels) +
                                  " channels, the image has " + std::to_string(p.channels));
  if (rules.cond_mask && !p.mask) fail(I2SB_ERROR_ARGUMENT, "this model sees the mask, so it needs one");
  if (p.mask && rules.size.upscale > 1)
    fail(I2SB_ERROR_ARGUMENT, "a mask has no meaning for a model that enlarges: no pixel of its result is known");
}

void restore(const i2sb_model& model, const i2sb_engine& engine, const i2sb_restore_params& p) {
  const ModelRules& rules = model.rules;
  check(rules, p);
  const i2sb_layout layout = plan_layout(rules.size, p.width, p.height, p.tile, p.overlap);
  const int threads = thread_count(p.threads);
  Watch watch(p.observer, p.observer_user, p.plan->row_count);

  std::vector<float> x = to_planes(p, rules.size.upscale, layout), mask;
  const size_t area = x.size() / p.channels;
  if (p.mask) {
    mask = to_mask(p.mask, layout);
    if (rules.fills_smoothly) {
      fill_smoothly(x.data(), p.channels, layout.padded_height, layout.padded_width, mask.data());
    } else {
      const std::vector<float> z = image_noise(p.seed, x.size(), I2SB_NOISE_HOLE, threads);
      for (size_t i = 0; i < x.size(); ++i)
        if (mask[i % area] != 0) x[i] = z[i];
    }
  }
  const std::vector<float> cond = shown(rules, x, mask);
  if (rules.add_x1_noise) {
    const std::vector<float> z = image_noise(p.seed, x.size(), I2SB_NOISE_X1, threads);
    for (size_t i = 0; i < x.size(); ++i) x[i] += z[i];
  }
  const std::vector<float> x1 = reads_x1(*p.plan, p.mask) ? x : std::vector<float>{};
  watch.done(I2SB_PHASE_PREPARE, 0);

  i2sb_sample_params sampling{};
  sampling.struct_size = sizeof sampling;
  sampling.batch = 1;
  sampling.channels = p.channels;
  sampling.height = layout.padded_height;
  sampling.width = layout.padded_width;
  sampling.x1 = x1.empty() ? x.data() : x1.data();
  sampling.cond = cond.empty() ? nullptr : cond.data();
  sampling.cond_channels = static_cast<int32_t>(cond.size() / area);
  sampling.mask = mask.empty() ? nullptr : mask.data();
  sampling.seeds = &p.seed;
  sampling.tile = layout.tile;
  sampling.overlap = layout.overlap;
  sampling.network_batch = rules.batch;
  sampling.threads = threads;
  sampling.observer = p.observer;
  sampling.observer_user = p.observer_user;
  sample(engine, *p.plan, sampling, x.data());

  Watch finish(p.observer, p.observer_user, p.plan->row_count);
  to_bytes(x, p, layout);
  finish.done(I2SB_PHASE_FINISH, p.plan->row_count - 1);
}

}  // namespace
}  // namespace i2sb

extern "C" {

i2sb_status i2sb_restore_layout(const i2sb_model* model, int32_t width, int32_t height, int32_t tile, int32_t overlap,
                                i2sb_layout* layout, i2sb_error* error) {
  return i2sb::guard(error, [&] {
    i2sb::require(model && layout, "model or layout is NULL");
    i2sb::require_struct(layout, "layout");
    *layout = i2sb::plan_layout(model->rules.size, width, height, tile, overlap);
  });
}

i2sb_status i2sb_restore(const i2sb_model* model, const i2sb_engine* engine, const i2sb_restore_params* params,
                         i2sb_error* error) {
  return i2sb::guard(error, [&] {
    i2sb::require(model && engine && params, "model, engine or params is NULL");
    i2sb::restore(*model, *engine, *params);
  });
}

}  // extern "C"
