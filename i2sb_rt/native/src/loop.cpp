#include "loop.hpp"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "failure.hpp"
#include "i2sb_kernels.h"
#include "memory.hpp"
#include "tiles.hpp"

namespace i2sb {

void Watch::done(i2sb_phase phase, int row, int tile, int tile_count) {
  if (!progress_) return;
  const i2sb_event event{phase, row, row_count_, tile, tile_count, begin_, now_ns()};
  const bool stop = progress_(user_, &event) != 0;
  if (stop && phase != I2SB_PHASE_FINISH) fail(I2SB_ERROR_CANCELLED, "stopped by the caller");
  begin_ = now_ns();
}

int thread_count(int asked) {
  if (asked > 0) return asked;
#ifdef __linux__
  cpu_set_t allowed;  // of this process: cpusets and taskset give fewer cores than there are
  if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
#endif
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

namespace {

constexpr double MOST_VALUES = 1e12;  // of one array: far above any memory, and no size of it overflows
constexpr int MOST_SIDE = 1 << 30;    // of a state: twice as much, and a tile beyond it, is still an int

const float* row_of(const i2sb_plan& plan, int row) { return plan.rows + static_cast<size_t>(row) * I2SB_ROW_COLUMNS; }

bool any_row(const i2sb_plan& plan, int column) {
  for (int row = 0; row < plan.row_count; ++row)
    if (row_of(plan, row)[column] != 0) return true;
  return false;
}

// Draws are in this order: z if s != 0, then z' if there is a mask and r != 0.
int draws_of(const i2sb_plan& plan, bool mask) {
  int count = 0;
  for (int row = 0; row < plan.row_count; ++row)
    count += (row_of(plan, row)[I2SB_COL_S] != 0) + (mask && row_of(plan, row)[I2SB_COL_R] != 0);
  return count;
}

// Calls a function of the engine's, and throws what it says where it fails.
template <typename Call>
void ask(Call&& call) {
  char before[SENTENCE_SIZE];  // of what failed earlier: not to be taken for the engine's, nor forgotten
  std::strcpy(before, i2sb_last_error());
  i2sb_fail(I2SB_OK, "");
  const i2sb_status status = call();
  if (status != I2SB_OK) fail(status, *i2sb_last_error() ? i2sb_last_error() : "the engine failed without a reason");
  i2sb_fail(I2SB_OK, before);
}

void check_finite(const float* x, size_t count) {
  if (!std::all_of(x, x + count, [](float value) { return std::isfinite(value); }))
    fail(I2SB_ERROR_NONFINITE, "the result holds values that are not finite: the network or its precision failed");
}

// Runs the network on the state: whole images or tiles of them, in groups of the network's batch.
class Network {
 public:
  Network(const i2sb_engine& engine, const i2sb_sample_params& p, std::pmr::memory_resource* memory)
      : engine_(engine),
        p_(p),
        group_(p.network_batch > 0 ? p.network_batch : p.batch),
        inputs_(memory),
        outputs_(memory),
        times_(memory) {
    times_.resize(group_);
    if (p.tile > 0) {
      tops_ = tile_origins(p.height, p.tile, p.overlap);
      lefts_ = tile_origins(p.width, p.tile, p.overlap);
      blend_.emplace(p.channels, p.height, p.width, p.tile, p.overlap, memory);
    }
    height_ = p.tile > 0 ? p.tile : p.height;
    width_ = p.tile > 0 ? p.tile : p.width;
    // Whole images that fill their groups are read and written where they lie.
    const bool full = p.tile == 0 && (group_ == 1 || group_ == p.batch);
    in_place_ = full && !p.cond;
    if (!in_place_) inputs_.resize(static_cast<size_t>(group_) * (p.channels + p.cond_channels) * height_ * width_);
    if (!full) outputs_.resize(static_cast<size_t>(group_) * lane_size());
  }

  int calls() const { return (jobs() + group_ - 1) / group_; }

  // o = network(x, t), both [B,C,H,W].
  void run(const float* x, float t, float* o, Watch& watch, int row) {
    std::fill(times_.begin(), times_.end(), t);
    for (int call = 0; call < calls(); ++call) {
      const int first = call * group_, last = std::min(first + group_, jobs());
      if (in_place_) {
        predict(x + image_size() * first, o + image_size() * first);
      } else {
        for (int lane = 0; lane < group_; ++lane) gather(x, std::min(first + lane, last - 1), lane);
        float* to = outputs_.empty() ? o + image_size() * first : outputs_.data();
        predict(inputs_.data(), to);
        if (!outputs_.empty())
          for (int job = first; job < last; ++job) scatter(job, to + lane_size() * (job - first), o);
      }
      watch.done(I2SB_PHASE_NETWORK, row, call + 1, calls());
    }
  }

 private:
  size_t image_size() const { return static_cast<size_t>(p_.channels) * p_.height * p_.width; }
  size_t lane_size() const { return static_cast<size_t>(p_.channels) * height_ * width_; }
  int tiles() const { return p_.tile > 0 ? static_cast<int>(tops_.size() * lefts_.size()) : 1; }
  int jobs() const { return p_.batch * tiles(); }
  int top(int job) const { return p_.tile > 0 ? tops_[job % tiles() / lefts_.size()] : 0; }
  int left(int job) const { return p_.tile > 0 ? lefts_[job % tiles() % lefts_.size()] : 0; }

  void gather(const float* x, int job, int lane) {
    const size_t area = static_cast<size_t>(p_.height) * p_.width;
    float* to = inputs_.data() + static_cast<size_t>(lane) * (p_.channels + p_.cond_channels) * height_ * width_;
    const int image = job / tiles();
    copy_window(x + image * image_size(), p_.channels, p_.height, p_.width, top(job), left(job), height_, width_, to);
    if (p_.cond)
      copy_window(p_.cond + image * p_.cond_channels * area, p_.cond_channels, p_.height, p_.width, top(job), left(job),
                  height_, width_, to + lane_size());
  }

  void scatter(int job, const float* values, float* o) {
    float* image = o + job / tiles() * image_size();
    if (!blend_) {
      std::memcpy(image, values, sizeof(float) * image_size());
      return;
    }
    if (job % tiles() == 0) blend_->begin(image);
    blend_->add(values, top(job), left(job));
  }

  void predict(const float* inputs, float* outputs) {
    const i2sb_network_call call{sizeof call, group_,        p_.channels + p_.cond_channels,
                                 p_.channels, height_,       width_,
                                 inputs,      times_.data(), outputs};
    ask([&] { return engine_.predict(engine_.self, &call); });
  }

  const i2sb_engine& engine_;
  const i2sb_sample_params& p_;
  int group_, height_ = 0, width_ = 0;
  bool in_place_ = false;
  std::vector<int> tops_, lefts_;
  std::optional<Blend> blend_;
  std::pmr::vector<float> inputs_, outputs_, times_;
};

}  // namespace

void check_sample(const i2sb_engine& engine, const i2sb_plan& plan, const i2sb_sample_params& p) {
  require_struct(&engine, "engine");
  require(engine.predict != nullptr || engine.sample != nullptr, "engine.predict is NULL");
  check_plan(plan);
  require_struct(&p, "params");
  require(p.batch >= 1 && p.channels >= 1 && p.height >= 1 && p.width >= 1 && p.cond_channels >= 0,
          "batch, channels, height and width must be at least 1");
  require(p.height <= MOST_SIDE && p.width <= MOST_SIDE, "height and width must be at most 2^30");
  const double planes = static_cast<double>(p.channels) + p.cond_channels;
  require(planes <= INT32_MAX && p.batch * planes * p.height * p.width < MOST_VALUES,
          "the batch is larger than 1e12 values");
  require(
      !p.trajectory || static_cast<double>(p.batch) * p.channels * p.height * p.width * plan.row_count < MOST_VALUES,
      "the trajectory is larger than 1e12 values");
  require(p.x1 != nullptr, "x1 is NULL");
  require((p.cond != nullptr) == (p.cond_channels > 0), "cond and cond_channels must be given together");
  require(p.tile >= 0 && (p.tile == 0 || (p.overlap >= 0 && p.overlap < p.tile)), "overlap must be less than tile");
  require(p.network_batch >= 0, "network_batch must not be negative");
  require(p.reserved == 0, "params.reserved must be 0");
  const double side = p.tile, lanes = p.network_batch > 0 ? p.network_batch : p.batch;
  require(lanes * planes * (p.tile > 0 ? side * side : static_cast<double>(p.height) * p.width) < MOST_VALUES,
          "a network call would be larger than 1e12 values");
  const double tiles =
      p.tile > 0 ? static_cast<double>(tile_count(p.height, p.tile, p.overlap)) * tile_count(p.width, p.tile, p.overlap)
                 : 1;
  require(p.batch * tiles + lanes <= INT32_MAX, "there are more than 2^31 network calls or tiles in a row");
  if (p.mask) {
    const size_t pixels = static_cast<size_t>(p.batch) * p.height * p.width;
    require(std::all_of(p.mask, p.mask + pixels, [](float m) { return m == 0 || m == 1; }),
            "a mask holds 0 (known) and 1 (hole) only");
  }
  const int drawn = draws_of(plan, p.mask != nullptr);
  if (p.draws && p.draw_count != drawn)
    fail(I2SB_ERROR_ARGUMENT, "this plan draws noise " + std::to_string(drawn) + " times, " +
                                  std::to_string(p.draw_count) + " recorded draws were given");
}

void check_plan(const i2sb_plan& plan) {
  require_struct(&plan, "plan");
  require(plan.rows != nullptr && plan.row_count >= 1, "a plan needs at least one row");
  require(plan.known == I2SB_KNOWN_X0 || plan.known == I2SB_KNOWN_RENEW, "plan.known must be 0 or 1");
  for (int row = 0; row < plan.row_count; ++row)
    for (int column = 0; column < I2SB_ROW_COLUMNS; ++column)
      if (!std::isfinite(row_of(plan, row)[column]))
        fail(I2SB_ERROR_ARGUMENT, "row " + std::to_string(row) + " of the plan holds a value that is not finite");
}

bool reads_x1(const i2sb_plan& plan, bool mask) { return mask || any_row(plan, I2SB_COL_C); }

namespace {

void run(const i2sb_engine& engine, const i2sb_plan& plan, const i2sb_sample_params& p, float* x,
         std::pmr::memory_resource* memory) {
  const size_t image = static_cast<size_t>(p.channels) * p.height * p.width, total = image * p.batch;
  const bool two_back = any_row(plan, I2SB_COL_E), history = two_back || any_row(plan, I2SB_COL_D);
  const Block<float> o(total, memory);
  std::pmr::vector<float> h1(history ? total : 0, memory), h2(two_back ? total : 0, memory);
  std::pmr::vector<float> trajectory(p.trajectory ? total * plan.row_count : 0, memory);
  const std::pmr::vector<uint64_t> zero_seeds(p.seeds ? 0 : p.batch, memory);
  const float* draw = p.draws;
  const auto next_draw = [&] { return std::exchange(draw, draw + total); };

  i2sb_bridge_step_args step{};
  step.batch = p.batch;
  step.channels = p.channels;
  step.pixels = static_cast<int64_t>(p.height) * p.width;
  step.clip = plan.clip;
  step.known = plan.known;
  step.x = x;
  step.o = o.data();
  step.x1 = p.x1;
  step.mask = p.mask;
  step.seeds = p.seeds ? p.seeds : zero_seeds.data();
  step.threads = thread_count(p.threads);
  step.isa = I2SB_ISA_AUTO;

  Network network(engine, p, memory);
  Watch watch(p.progress, p.progress_user, plan.row_count);
  for (int row = 0; row < plan.row_count; ++row) {
    step.row = row_of(plan, row);
    step.row_index = static_cast<uint32_t>(row);
    network.run(x, step.row[I2SB_COL_T], o.data(), watch, row);
    step.z = draw && step.row[I2SB_COL_S] != 0 ? next_draw() : nullptr;
    step.z_known = draw && p.mask && step.row[I2SB_COL_R] != 0 ? next_draw() : nullptr;
    // x0 takes the place of the oldest history; then the two change names.
    step.h1 = history ? h1.data() : nullptr;
    step.h2 = two_back ? h2.data() : nullptr;
    step.x0 = two_back ? h2.data() : history ? h1.data() : nullptr;
    i2sb_bridge_step(&step);
    if (two_back) std::swap(h1, h2);
    if (p.trajectory)
      for (int b = 0; b < p.batch; ++b)
        std::copy_n(x + b * image, image,
                    trajectory.data() + (static_cast<size_t>(b) * plan.row_count + (plan.row_count - 1 - row)) * image);
    watch.done(I2SB_PHASE_STEP, row);
  }
  check_finite(x, total);
  std::copy(trajectory.begin(), trajectory.end(), p.trajectory);
}

}  // namespace

void sample(const i2sb_engine& engine, const i2sb_plan& plan, const i2sb_sample_params& p, float* x,
            std::pmr::memory_resource* memory) {
  if (!engine.sample) return run(engine, plan, p, x, memory);
  const size_t total = static_cast<size_t>(p.batch) * p.channels * p.height * p.width;
  std::pmr::vector<float> trajectory(p.trajectory ? total * plan.row_count : 0, memory);
  i2sb_sample_params ours = p;  // the caller's arrays stay as they are where the engine fails
  if (p.trajectory) ours.trajectory = trajectory.data();
  ask([&] { return engine.sample(engine.self, &plan, &ours, x); });
  check_finite(x, total);
  std::copy(trajectory.begin(), trajectory.end(), p.trajectory);
}

}  // namespace i2sb
