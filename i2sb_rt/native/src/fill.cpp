#include "fill.hpp"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "failure.hpp"
#include "i2sb_rt.h"

namespace i2sb {
namespace {

// How often each level is smoothed. The membrane between known values is met to a few thousandths of the range.
constexpr int SWEEPS = 8;

// A picture at half the size of the one before; a value is known where one of the four that it stands for is.
struct Level {
  Level(int height, int width, std::pmr::memory_resource* memory)
      : height(height), width(width), values(memory), known(memory), holes(memory) {}

  int height, width;
  std::pmr::vector<float> values;  // [channels, height, width]
  std::pmr::vector<char> known;    // [height, width]
  std::pmr::vector<size_t> holes;  // where nothing is known

  size_t area() const { return static_cast<size_t>(height) * width; }

  void find_holes() {
    for (size_t i = 0; i < known.size(); ++i)
      if (!known[i]) holes.push_back(i);
  }
};

// The means of what is known in blocks of two by two.
Level halved(const Level& fine, int channels) {
  Level coarse((fine.height + 1) / 2, (fine.width + 1) / 2, fine.values.get_allocator().resource());
  coarse.values.assign(channels * coarse.area(), 0.0f);
  coarse.known.assign(coarse.area(), 0);
  for (int y = 0; y < coarse.height; ++y) {
    for (int x = 0; x < coarse.width; ++x) {
      const size_t to = static_cast<size_t>(y) * coarse.width + x;
      int count = 0;
      for (int j = 2 * y; j < std::min(2 * y + 2, fine.height); ++j) {
        for (int i = 2 * x; i < std::min(2 * x + 2, fine.width); ++i) {
          const size_t from = static_cast<size_t>(j) * fine.width + i;
          if (!fine.known[from]) continue;
          ++count;
          for (int c = 0; c < channels; ++c)
            coarse.values[c * coarse.area() + to] += fine.values[c * fine.area() + from];
        }
      }
      coarse.known[to] = count > 0;
      for (int c = 0; count > 1 && c < channels; ++c)
        coarse.values[c * coarse.area() + to] /= static_cast<float>(count);
    }
  }
  coarse.find_holes();
  return coarse;
}

// Where a fine coordinate lies between two coarse ones, and how far, with pixels as squares.
struct Between {
  int low, high;
  float share;

  Between(int fine, int size) {
    const float at = std::clamp((static_cast<float>(fine) + 0.5f) / 2 - 0.5f, 0.0f, static_cast<float>(size - 1));
    low = static_cast<int>(at);
    high = std::min(low + 1, size - 1);
    share = at - static_cast<float>(low);
  }
};

// Writes the coarser picture, enlarged bilinearly, into the holes of the finer one.
void enlarge_into(Level& fine, const Level& coarse, int channels) {
  for (const size_t hole : fine.holes) {
    const Between y(static_cast<int>(hole / fine.width), coarse.height);
    const Between x(static_cast<int>(hole % fine.width), coarse.width);
    for (int c = 0; c < channels; ++c) {
      const float* plane = coarse.values.data() + c * coarse.area();
      const float* upper = plane + static_cast<size_t>(y.low) * coarse.width;
      const float* lower = plane + static_cast<size_t>(y.high) * coarse.width;
      const float above = upper[x.low] + x.share * (upper[x.high] - upper[x.low]);
      const float below = lower[x.low] + x.share * (lower[x.high] - lower[x.low]);
      fine.values[c * fine.area() + hole] = above + y.share * (below - above);
    }
  }
}

// Replaces each value in a hole by the mean of its neighbours, in order, again and again (Gauss and Seidel).
void relax(Level& level, int channels) {
  const size_t width = static_cast<size_t>(level.width), last = static_cast<size_t>(level.height) - 1;
  for (int c = 0; c < channels; ++c) {
    float* plane = level.values.data() + c * level.area();
    for (int sweep = 0; sweep < SWEEPS; ++sweep) {
      for (const size_t i : level.holes) {
        const size_t y = i / width, x = i % width;
        const float above = plane[y > 0 ? i - width : i], below = plane[y < last ? i + width : i];
        const float left = plane[x > 0 ? i - 1 : i], right = plane[x + 1 < width ? i + 1 : i];
        plane[i] = 0.25f * ((above + below) + (left + right));
      }
    }
  }
}

}  // namespace

void fill_smoothly(float* planes, int channels, int height, int width, const float* mask,
                   std::pmr::memory_resource* memory) {
  std::pmr::vector<Level> levels(memory);
  Level& whole = levels.emplace_back(height, width, memory);
  whole.values.assign(planes, planes + channels * whole.area());
  for (size_t i = 0; i < whole.area(); ++i) whole.known.push_back(mask[i] == 0);
  whole.find_holes();
  while (!levels.back().holes.empty() && levels.back().area() > 1) levels.push_back(halved(levels.back(), channels));
  if (!levels.back().holes.empty()) std::fill(levels.back().values.begin(), levels.back().values.end(), 0.0f);
  for (size_t k = levels.size() - 1; k > 0; --k) {
    enlarge_into(levels[k - 1], levels[k], channels);
    relax(levels[k - 1], channels);
  }
  std::copy(levels.front().values.begin(), levels.front().values.end(), planes);
}

}  // namespace i2sb

extern "C" i2sb_status i2sb_fill_hole(int32_t channels, int32_t height, int32_t width, const float* mask,
                                      float* planes) {
  return i2sb::guard([&] {
    i2sb::require(mask && planes, "mask or planes is NULL");
    i2sb::require(channels > 0 && height > 0 && width > 0, "channels, height and width must be at least 1");
    i2sb::fill_smoothly(planes, channels, height, width, mask, std::pmr::new_delete_resource());
  });
}
