// Where tiles lie, how images are padded and how overlapping outputs become one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <vector>

#include "i2sb_rt.h"

namespace i2sb {

// How many tiles an axis takes.
int tile_count(int size, int tile, int overlap);

// Their origins 0, s, 2s, ... with s = tile - overlap, up to the first tile that reaches the edge.
std::vector<int> tile_origins(int size, int tile, int overlap);

// Where padded coordinate i of an axis of `size` pixels is read: reflected without repeating the edge, and the far edge
// of that reflection where it ends.
inline int padded_source(int i, int size) {
  if (i < size) return i;
  const int back = size - 2 - (i - size);
  return back > 0 ? back : 0;
}

// Copies the window of `width` x `height` at (left, top) of [planes, H, W]; what lies beyond right and bottom is
// padded.
void copy_window(const float* from, int planes, int H, int W, int top, int left, int height, int width, float* to);

// The running weighted mean of overlapping tiles, in the order they are added: equal values stay exactly equal.
class Blend {
 public:
  Blend(int planes, int H, int W, int tile, int overlap, std::pmr::memory_resource* memory);
  // Forgets what was added; the mean is written to `mean` [planes, H, W] from now on.
  void begin(float* mean);
  void add(const float* values, int top, int left);  // values: [planes, tile, tile]

 private:
  int planes_, H_, W_, tile_;
  std::pmr::vector<float> window_;  // one axis
  std::pmr::vector<float> weight_;  // [H, W]: the sum so far
  std::pmr::vector<float> share_;   // of one line: what a new value counts for
  float* mean_ = nullptr;
};

// What the metadata of a model say about size.
struct SizeRules {
  int multiple, minimum, tile, overlap;
  int upscale = 1;  // sides of the result over those of the input
};

// width, height: of the input. tile -1: by the model, 0: whole; overlap -1: by the model. Throws a sentence that names
// the nearest legal value.
i2sb_layout plan_layout(const SizeRules& rules, int width, int height, int tile, int overlap);

}  // namespace i2sb
