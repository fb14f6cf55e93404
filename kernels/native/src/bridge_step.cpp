// bridge_step: one step of the bridge on a range of one image, in one pass. Compiled once an instruction set.
//
//   x0 = p x + q o, clamped to [-1, 1] if asked, x1 outside the hole if known is x0
//   x' = a x + b x0 + c x1 + d h1 + e h2 + s z, x1 + r z' outside the hole if known is renew
//
// Sums begin at zero and run from left to right; a term whose coefficient is zero is left out and its array not read.
#include "kernels.hpp"
#include "normal.hpp"

namespace {

struct Coefficient {
  float value;
  bool used;  // value != 0
};

// One step as every block of an image sees it.
struct Step {
  Coefficient p, q, a, b, c, d, e, s, r;
  bool clip, known_x0, renew;
  Stream z, z_known;
};

// One image's arrays; null where there is none.
struct Arrays {
  float* x;
  const float *o, *x1, *h1, *h2, *z, *z_known;
  float* x0;
};

Step make_step(const i2sb_bridge_step_args& args, int64_t image) {
  const auto column = [&](int k) -> Coefficient { return {args.row[k], args.row[k] != 0}; };
  const bool renew = args.mask != nullptr && args.known == I2SB_KNOWN_RENEW;
  Step step;
  step.p = column(I2SB_COL_P), step.q = column(I2SB_COL_Q);
  step.a = column(I2SB_COL_A), step.b = column(I2SB_COL_B), step.c = column(I2SB_COL_C);
  step.d = column(I2SB_COL_D), step.e = column(I2SB_COL_E), step.s = column(I2SB_COL_S);
  step.r = renew ? column(I2SB_COL_R) : Coefficient{};
  step.clip = args.clip != 0;
  step.known_x0 = args.mask != nullptr && args.known == I2SB_KNOWN_X0;
  step.renew = renew;
  const bool draws = (step.s.used && args.z == nullptr) || (step.r.used && args.z_known == nullptr);
  const uint64_t seed = draws ? args.seeds[image] : 0;
  step.z = make_stream(seed, args.row_index, I2SB_NOISE_STEP);
  step.z_known = make_stream(seed, args.row_index, I2SB_NOISE_KNOWN);
  return step;
}

Arrays arrays_of(const i2sb_bridge_step_args& args, int64_t image) {
  const int64_t start = image * args.channels * args.pixels;
  const auto at = [start](auto* array) { return array != nullptr ? array + start : nullptr; };
  return {at(args.x), at(args.o), at(args.x1), at(args.h1), at(args.h2), at(args.z), at(args.z_known), at(args.x0)};
}

I2SB_INLINE void add(Four& sum, const Coefficient& c, const Four& value) {
  if (!c.used) return;
  for (int k = 0; k < 4; ++k) sum.v[k] = sum.v[k] + c.value * value.v[k];
}

// The block at element i of an array, which is not touched where c is zero.
I2SB_INLINE void add(Four& sum, const Coefficient& c, const float* array, int64_t i) {
  if (c.used) add(sum, c, load_four(array + i));
}

// Recorded draws, or those of the stream.
I2SB_INLINE Four draw(const Stream& stream, const float* recorded, int64_t i, uint64_t group) {
  return recorded != nullptr ? load_four(recorded + i) : normals(stream, group);
}

I2SB_INLINE F32 clamp_to_image(F32 v) {  // NaN stays NaN
  v = select(v < -1.0f, splat(-1.0f), v);
  return select(v > 1.0f, splat(1.0f), v);
}

// Where a block's mask is zero.
struct Known {
  I32 v[4];
  bool some, all;
};

I2SB_INLINE Known known_of(const float* hole) {
  Known known;
  I32 some = {}, all = ~I32{};
  for (int k = 0; k < 4; ++k) {
    known.v[k] = (I32)(load(hole + k * kWidth) == 0.0f);
    some |= known.v[k];
    all &= known.v[k];
  }
  known.some = any(some);
  known.all = !any(~all);
  return known;
}

I2SB_INLINE Four select(const Known& known, const Four& yes, const Four& no) {
  Four chosen;
  for (int k = 0; k < 4; ++k) chosen.v[k] = select(known.v[k], yes.v[k], no.v[k]);
  return chosen;
}

// The block at element i. hole: its mask; without one, not looked at.
template <bool kMasked>
I2SB_INLINE void step_block(const Step& step, const Arrays& at, int64_t i, const float* hole, uint64_t group) {
  Known known;
  if constexpr (kMasked) known = known_of(hole);
  Four x0 = {}, next = {};
  add(x0, step.p, at.x, i);
  add(x0, step.q, at.o, i);
  if (step.clip) {
    for (F32& v : x0.v) v = clamp_to_image(v);
  }
  if (kMasked && step.known_x0 && known.some) x0 = select(known, load_four(at.x1 + i), x0);
  add(next, step.a, at.x, i);
  add(next, step.b, x0);
  add(next, step.c, at.x1, i);
  add(next, step.d, at.h1, i);
  add(next, step.e, at.h2, i);
  if (step.s.used && !(kMasked && step.renew && known.all)) add(next, step.s, draw(step.z, at.z, i, group));
  if (kMasked && step.renew && known.some) {
    Four renewed = load_four(at.x1 + i);
    if (step.r.used) add(renewed, step.r, draw(step.z_known, at.z_known, i, group));
    next = select(known, renewed, next);
  }
  store_four(at.x + i, next);
  if (at.x0 != nullptr) store_four(at.x0 + i, x0);
}

// The mask is shared by the channels, so a block may run over its end and begin again.
template <bool kMasked>
I2SB_INLINE const float* mask_of(const float* mask, int64_t pixels, int64_t from, float (&wrapped)[kBlock]) {
  if constexpr (!kMasked) return nullptr;
  int64_t pixel = from % pixels;
  if (pixel + kBlock <= pixels) return mask + pixel;
  for (int i = 0; i < kBlock; ++i) {
    wrapped[i] = mask[pixel];
    if (++pixel == pixels) pixel = 0;
  }
  return wrapped;
}

// The last, shorter block, taken through copies of the full length.
template <bool kMasked>
void step_rest(const Step& step, const Arrays& at, int64_t i, int64_t count, const float* hole) {
  float copies[8][kBlock] = {};
  const size_t bytes = static_cast<size_t>(count) * sizeof(float);
  const auto copy = [=](const float* array, float* to) {
    if (array != nullptr) __builtin_memcpy(to, array + i, bytes);
    return array != nullptr ? to : nullptr;
  };
  const Arrays full = {copy(at.x, copies[0]),       copy(at.o, copies[1]),  copy(at.x1, copies[2]),
                       copy(at.h1, copies[3]),      copy(at.h2, copies[4]), copy(at.z, copies[5]),
                       copy(at.z_known, copies[6]), copy(at.x0, copies[7])};
  step_block<kMasked>(step, full, 0, hole, static_cast<uint64_t>(i) / 4);
  __builtin_memcpy(at.x + i, full.x, bytes);
  if (at.x0 != nullptr) __builtin_memcpy(at.x0 + i, full.x0, bytes);
}

template <bool kMasked>
void step_range(const i2sb_bridge_step_args& args, int64_t image, int64_t first, int64_t count) {
  const Step step = make_step(args, image);
  const Arrays at = arrays_of(args, image);
  const float* mask = kMasked ? args.mask + image * args.pixels : nullptr;
  float wrapped[kBlock];
  const int64_t end = first + count;
  int64_t i = first;
  for (; end - i >= kBlock; i += kBlock) {
    step_block<kMasked>(step, at, i, mask_of<kMasked>(mask, args.pixels, i, wrapped), static_cast<uint64_t>(i) / 4);
  }
  if (i < end) step_rest<kMasked>(step, at, i, end - i, mask_of<kMasked>(mask, args.pixels, i, wrapped));
}

}  // namespace

namespace i2sb::I2SB_ISA {

void bridge_step(const i2sb_bridge_step_args& args, int64_t image, int64_t first, int64_t count) {
  (args.mask != nullptr ? step_range<true> : step_range<false>)(args, image, first, count);
}

}  // namespace i2sb::I2SB_ISA
