// The loop: a plan run on a batch of images.
#pragma once

#include <chrono>
#include <memory_resource>

#include "i2sb_rt.h"

namespace i2sb {

inline int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// Tells the caller of a piece of work that just ended; throws if it wants to stop.
class Watch {
 public:
  Watch(i2sb_progress progress, void* user, int row_count)
      : progress_(progress), user_(user), row_count_(row_count), begin_(now_ns()) {}
  void done(i2sb_phase phase, int row, int tile = 0, int tile_count = 0);

 private:
  i2sb_progress progress_;
  void* user_;
  int row_count_;
  int64_t begin_;
};

int thread_count(int asked);

// Throws if a plan cannot be run.
void check_plan(const i2sb_plan& plan);

// Whether a row of the plan, or a mask, makes the loop read x1 after it has begun.
bool reads_x1(const i2sb_plan& plan, bool mask);

// Throws if the engine cannot run the plan on these.
void check_sample(const i2sb_engine& engine, const i2sb_plan& plan, const i2sb_sample_params& params);

// Runs the plan on x, [B,C,H,W], which begins as the first state and ends as the result; params.start and params.out
// are not looked at. All have been checked. Throws, and then x holds anything.
void sample(const i2sb_engine& engine, const i2sb_plan& plan, const i2sb_sample_params& params, float* x,
            std::pmr::memory_resource* memory);

}  // namespace i2sb
