// From an image to an image, as a model's metadata say.
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "failure.hpp"
#include "fill.hpp"
#include "i2sb_kernels.h"
#include "model_file.hpp"
#include "pixels.hpp"
#include "plan.hpp"
#include "session.hpp"
#include "tiles.hpp"
#include "turns.hpp"

namespace i2sb {
namespace {

using Values = std::pmr::vector<float>;

Values image_noise(uint64_t seed, size_t count, uint32_t purpose, int threads, std::pmr::memory_resource* memory) {
  Values z(count, memory);
  i2sb_noise_fill(seed, 0, count, 0, purpose, z.data(), threads, I2SB_ISA_AUTO);
  return z;
}

// What the network is shown beside the state, of x1 as it starts, before any noise is added to it: all of it, or what
// is known of it, with zeros in the hole, and the mask.
Values shown(const ModelRules& rules, const Values& x1, const Values& mask) {
  Values cond(x1.get_allocator());
  if (!rules.cond_x1 && !rules.cond_mask) return cond;
  cond = x1;
  if (rules.cond_mask) {
    for (size_t i = 0; i < cond.size(); ++i)
      if (mask[i % mask.size()] != 0) cond[i] = 0;
    cond.insert(cond.end(), mask.begin(), mask.end());
  }
  return cond;
}

void check(const ModelRules& rules, const i2sb_restore_params& p) {
  check_image(p.image, "image");
  check_channels(*p.image, rules.channels, rules.size.upscale);
  if (rules.needs_mask && !p.mask)
    fail(I2SB_ERROR_ARGUMENT, "the model " + std::string(rules.name) + " fills holes: a mask must say where they are");
  if (!p.mask) return;
  check_image(p.mask, "mask");
  if (p.mask->channels != 1 || p.mask->width != p.image->width || p.mask->height != p.image->height)
    fail(I2SB_ERROR_ARGUMENT, "the mask must have one channel and the image's size");
  if (rules.size.upscale > 1)
    fail(I2SB_ERROR_ARGUMENT, "a mask has no meaning for a model that enlarges: no pixel of its result is known");
  if (!rules.needs_mask)
    fail(I2SB_ERROR_ARGUMENT, "the model " + std::string(rules.name) + " fills no holes: it takes no mask");
}

void check_out(const i2sb_restore_params& p, const i2sb_layout& layout) {
  check_image(p.out, "out");
  if (p.out->width != layout.width || p.out->height != layout.height || p.out->channels != p.image->channels ||
      p.out->type != p.image->type)
    fail(I2SB_ERROR_ARGUMENT, "out must be " + std::to_string(layout.width) + " x " + std::to_string(layout.height) +
                                  ", with the image's channels and type");
}

// How many copies of the image are restored.
int passes_of(const i2sb_restore_params& p) {
  const int asked = p.ensemble == 0 ? 1 : p.ensemble;
  require(asked == 1 || asked == 2 || asked == 4 || asked == 8, "ensemble must be 1, 2, 4 or 8 (0 is 1)");
  return asked;
}

// The progress of one pass of several: to the caller they are the rows of one plan.
struct Pass {
  Work& work;
  int number, count;

  static int32_t ask(void* self, const i2sb_event* event) {
    const auto* pass = static_cast<const Pass*>(self);
    i2sb_event told = *event;
    told.row += pass->number * event->row_count;
    told.row_count *= pass->count;
    return Work::ask(&pass->work, &told);
  }
};

Values turned(Values planes, const Turn& turn) {
  if (turn.way == 0) return planes;
  Values to(planes.size(), planes.get_allocator());
  const size_t area = static_cast<size_t>(turn.height) * turn.width;
  for (size_t plane = 0; plane < planes.size(); plane += area)
    turn.each([&](size_t there, size_t here) { to[plane + there] = planes[plane + here]; });
  return to;
}

// sum += planes, which are laid back.
void add_back(const Values& planes, const Turn& turn, Values& sum) {
  const size_t area = static_cast<size_t>(turn.height) * turn.width;
  for (size_t plane = 0; plane < planes.size(); plane += area)
    turn.each([&](size_t there, size_t here) { sum[plane + here] += planes[plane + there]; });
}

// The plan that was given, or else the one that was named.
NamedPlan plan_of(const i2sb_model& model, const i2sb_restore_params& p) {
  if (p.plan) return {};
  i2sb_plan_params named;
  i2sb_plan_params_init(&named, sizeof named);
  named.model = &model;
  named.nfe = p.nfe;
  named.sampler = p.sampler;
  named.eta = p.eta;
  return named_plan(named);
}

// What a plan makes of the image, padded and laid as the turn says: [channels,H',W'].
Values run(i2sb_session& session, const i2sb_restore_params& p, const i2sb_plan& plan, const i2sb_layout& layout,
           const Turn& turn, Pass& pass) {
  const ModelRules& rules = session.model->rules;
  std::pmr::memory_resource* memory = &session.memory;
  Watch watch(Pass::ask, &pass, plan.row_count);
  Values x = turned(to_planes(*p.image, rules.channels, rules.size.upscale, layout, memory), turn), mask(memory);
  const int height = turn.turned_height(), width = turn.turned_width();
  const size_t area = static_cast<size_t>(height) * width;
  if (p.mask) {
    mask = turned(to_mask(*p.mask, layout, memory), turn);
    if (rules.fills_smoothly) {
      fill_smoothly(x.data(), rules.channels, height, width, mask.data(), memory);
    } else {
      const Values z = image_noise(p.seed, x.size(), I2SB_NOISE_HOLE, session.threads, memory);
      for (size_t i = 0; i < x.size(); ++i)
        if (mask[i % area] != 0) x[i] = z[i];
    }
  }
  const Values cond = shown(rules, x, mask);
  if (rules.add_x1_noise) {
    const Values z = image_noise(p.seed, x.size(), I2SB_NOISE_X1, session.threads, memory);
    for (size_t i = 0; i < x.size(); ++i) x[i] += z[i];
  }
  // cond may be the very same, and is not overwritten.
  const bool is_shown = rules.cond_x1 && !rules.cond_mask && !rules.add_x1_noise;
  Values x1(memory);
  if (reads_x1(plan, p.mask) && !is_shown) x1 = x;
  watch.done(I2SB_PHASE_PREPARE, 0);

  i2sb_sample_params sampling{};
  sampling.struct_size = sizeof sampling;
  sampling.batch = 1;
  sampling.channels = rules.channels;
  sampling.height = height;
  sampling.width = width;
  sampling.x1 = is_shown ? cond.data() : x1.empty() ? x.data() : x1.data();
  sampling.cond = cond.empty() ? nullptr : cond.data();
  sampling.cond_channels = static_cast<int32_t>(cond.size() / area);
  sampling.mask = mask.empty() ? nullptr : mask.data();
  sampling.seeds = &p.seed;
  sampling.tile = layout.tile;
  sampling.overlap = layout.overlap;
  sampling.network_batch = rules.batch;
  sampling.threads = session.threads;
  sampling.progress = Pass::ask;
  sampling.progress_user = &pass;
  check_sample(session.engine, plan, sampling);
  sample(session.engine, plan, sampling, x.data(), memory);
  return x;
}

void restore(i2sb_session& session, Work& work, const i2sb_restore_params& p) {
  require(session.model != nullptr, "this session has no model: it can only sample");
  const i2sb_model& model = *session.model;
  const ModelRules& rules = model.rules;
  check(rules, p);
  const i2sb_layout layout = plan_layout(rules.size, p.image->width, p.image->height, p.tile, p.overlap);
  check_out(p, layout);
  const NamedPlan named = plan_of(model, p);
  const i2sb_plan view = named.view();
  const i2sb_plan& plan = p.plan ? *p.plan : view;
  check_plan(plan);
  const int passes = passes_of(p);
  require(plan.row_count <= INT32_MAX / passes, "the plan has too many rows for an ensemble");

  Values x(&session.memory);
  for (int way = 0; way < passes; ++way) {
    const Turn turn{way, layout.padded_height, layout.padded_width};
    Pass pass{work, way, passes};
    Values restored = run(session, p, plan, layout, turn, pass);
    if (way == 0)
      x = std::move(restored);
    else
      add_back(restored, turn, x);
  }
  if (passes > 1)
    for (float& value : x) value /= static_cast<float>(passes);

  const int rows = plan.row_count * passes;
  Watch finish(Work::ask, &work, rows);
  from_planes(x.data(), rules.channels, layout, *p.image, p.mask, *p.out);
  finish.done(I2SB_PHASE_FINISH, rows - 1);
}

}  // namespace
}  // namespace i2sb

extern "C" {

i2sb_status i2sb_model_layout(const i2sb_model* model, int32_t width, int32_t height, int32_t tile, int32_t overlap,
                              i2sb_layout* layout) {
  return i2sb::guard([&] {
    i2sb::require(model && layout, "model or layout is NULL");
    i2sb::require_struct(layout, "layout");
    i2sb::give_struct(layout, i2sb::plan_layout(model->rules.size, width, height, tile, overlap));
  });
}

i2sb_status i2sb_restore(i2sb_session* session, const i2sb_restore_params* params) {
  return i2sb::guard([&] {
    i2sb::require(session != nullptr, "session is NULL");
    i2sb::Work work(*session);  // from here on it can be cancelled
    const i2sb_restore_params p = i2sb::taken(params, "params", {offsetof(i2sb_restore_params, ensemble)});
    i2sb::require(p.reserved == 0, "params.reserved must be 0");
    work.watch(p.progress, p.progress_user);
    i2sb::restore(*session, work, p);
  });
}

}  // extern "C"
