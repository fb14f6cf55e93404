#include "tiles.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>

#include "failure.hpp"

namespace i2sb {

int tile_count(int size, int tile, int overlap) {
  require(size >= 1 && tile >= 1 && overlap >= 0 && overlap < tile,
          "tiles need size >= 1, tile >= 1 and 0 <= overlap < tile");
  if (size <= tile) return 1;
  const int step = tile - overlap, rest = size - tile;
  return 1 + rest / step + (rest % step != 0);
}

std::vector<int> tile_origins(int size, int tile, int overlap) {
  std::vector<int> origins(static_cast<size_t>(tile_count(size, tile, overlap)));
  for (size_t k = 0; k < origins.size(); ++k) origins[k] = static_cast<int>(k) * (tile - overlap);
  return origins;
}

void copy_window(const float* from, int planes, int H, int W, int top, int left, int height, int width, float* to) {
  const int inside = std::min(width, W - left);
  for (int plane = 0; plane < planes; ++plane) {
    for (int y = 0; y < height; ++y) {
      const float* source = from + (static_cast<size_t>(plane) * H + padded_source(top + y, H)) * W;
      std::memcpy(to, source + left, sizeof(float) * inside);
      for (int x = inside; x < width; ++x) to[x] = source[padded_source(left + x, W)];
      to += width;
    }
  }
}

Blend::Blend(int planes, int H, int W, int tile, int overlap, std::pmr::memory_resource* memory)
    : planes_(planes),
      H_(H),
      W_(W),
      tile_(tile),
      window_(tile, 1.0f, memory),
      weight_(static_cast<size_t>(H) * W, memory),
      share_(tile, memory) {
  for (int i = 0; i < tile && overlap > 0; ++i) {
    const float u =
        std::min(1.0f, (static_cast<float>(std::min(i, tile - 1 - i)) + 0.5f) / static_cast<float>(overlap));
    window_[i] = u * u * (3 - 2 * u);
  }
}

void Blend::begin(float* mean) {
  mean_ = mean;
  std::fill(weight_.begin(), weight_.end(), 0.0f);
}

void Blend::add(const float* values, int top, int left) {
  const int height = std::min(tile_, H_ - top), width = std::min(tile_, W_ - left);
  const size_t area = static_cast<size_t>(H_) * W_;
  for (int y = 0; y < height; ++y) {
    const size_t line = static_cast<size_t>(top + y) * W_ + left;
    for (int x = 0; x < width; ++x) {
      const float w = window_[y] * window_[x], before = weight_[line + x];
      weight_[line + x] = before + w;
      share_[x] = w / (before + w);
    }
    for (int plane = 0; plane < planes_; ++plane) {
      float* mean = mean_ + plane * area + line;
      const float* value = values + (static_cast<size_t>(plane) * tile_ + y) * tile_;
      // A first value is taken as it is: mean may hold anything before.
      for (int x = 0; x < width; ++x)
        mean[x] = share_[x] == 1.0f ? value[x] : mean[x] + share_[x] * (value[x] - mean[x]);
    }
  }
}

namespace {

constexpr int MOST_SIDE = 1 << 20;  // of a result, and of a tile

int round_up(int value, int step) { return (value + step - 1) / step * step; }

int nearest_multiple(int value, int g, int low, int high) {
  const int64_t nearest = (int64_t{value} + g / 2) / g * g;
  return static_cast<int>(std::clamp<int64_t>(nearest, low, std::max(low, high)));
}

// Throws unless a value asked for is a multiple of g from `least` to `most`: the sentence says what it is not.
void check_multiple(const char* what, int value, int g, int least, int most) {
  std::string rule;
  const auto broken = [&](const char* words, int bound) {
    rule += (rule.empty() ? "" : " and ") + std::string(words) + std::to_string(bound);
  };
  if (value % g != 0) broken("a multiple of ", g);
  if (value < least) broken("at least ", least);
  if (value > most) broken("at most ", most);
  if (rule.empty()) return;
  const int nearest = nearest_multiple(value, g, least, most);
  fail(I2SB_ERROR_ARGUMENT, std::string(what) + " " + std::to_string(value) + " does not fit: it must be " + rule +
                                "; the nearest is " + std::to_string(nearest));
}

// The tile's side and overlap asked for, checked against g = lcm(multiple, 16).
void check_tile(const SizeRules& rules, int tile, int overlap) {
  const int g = std::lcm(rules.multiple, 16);
  if (rules.minimum == rules.tile && tile != rules.tile)
    fail(I2SB_ERROR_ARGUMENT, "tile " + std::to_string(tile) + " does not fit: this model takes tiles of " +
                                  std::to_string(rules.tile) + " only");
  check_multiple("tile", tile, g, round_up(std::max(g, rules.minimum), g), MOST_SIDE / g * g);
  check_multiple("tile overlap", overlap, g, 0, tile - g);
}

}  // namespace

i2sb_layout plan_layout(const SizeRules& rules, int width, int height, int tile, int overlap) {
  const int limit = MOST_SIDE / rules.upscale;
  if (width < 1 || height < 1 || width > limit || height > limit)
    fail(I2SB_ERROR_ARGUMENT, "an image's sides must be from 1 to " + std::to_string(limit) + " pixels");
  i2sb_layout layout{};
  layout.struct_size = sizeof layout;
  layout.width = width * rules.upscale;
  layout.height = height * rules.upscale;
  layout.padded_width = round_up(std::max(layout.width, rules.minimum), rules.multiple);
  layout.padded_height = round_up(std::max(layout.height, rules.minimum), rules.multiple);
  const int longest = std::max(layout.padded_width, layout.padded_height);

  require(tile >= -1, "tile must be -1 (by the model), 0 (the whole image) or the tile's side");
  const bool whole = tile == 0 || (tile < 0 && longest <= rules.tile);
  if (whole && rules.minimum == rules.tile && longest > rules.tile)
    fail(I2SB_ERROR_ARGUMENT, "this model takes " + std::to_string(rules.tile) + " x " + std::to_string(rules.tile) +
                                  " pixels only: an image of this size needs tiles");
  layout.tile_count = 1;
  if (whole) return layout;

  layout.tile = tile < 0 ? rules.tile : tile;
  // A tile smaller than the model's own keeps the share of overlap that the model asks for.
  const int g = std::lcm(rules.multiple, 16);
  layout.overlap = overlap >= 0 ? overlap : std::clamp(rules.overlap, 0, std::max(0, layout.tile / 2 / g * g));
  check_tile(rules, layout.tile, layout.overlap);
  const int64_t tiles = int64_t{tile_count(layout.padded_width, layout.tile, layout.overlap)} *
                        tile_count(layout.padded_height, layout.tile, layout.overlap);
  require(tiles <= INT32_MAX, "the image has more than 2^31 tiles of this size: larger ones are needed");
  layout.tile_count = static_cast<int>(tiles);
  return layout;
}

}  // namespace i2sb

extern "C" i2sb_status i2sb_tile_origins(int32_t size, int32_t tile, int32_t overlap, int32_t* origins,
                                         int32_t* count) {
  return i2sb::guard([&] {
    i2sb::require(count != nullptr, "count is NULL");
    const int needed = i2sb::tile_count(size, tile, overlap);
    i2sb::require(!origins || *count >= needed, "origins is too small for the tiles of this axis");
    for (int k = 0; origins && k < needed; ++k) origins[k] = k * (tile - overlap);
    *count = needed;
  });
}
