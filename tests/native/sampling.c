/* A host program in C99 with engines of its own: the loop, how it stops, and what is left untouched when it fails. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "check.h"

enum { SIDE = 4, VALUES = SIDE * SIDE, ROWS = 5 };

typedef struct Network {
  int calls, fails_after;
  float factor; /* of the answer; infinity to spoil it */
} Network;

/* network(x, t) = x - 1: then x0 = x - s (x - 1), which leaves 1 where it is. */
static i2sb_status predict(void* self, const i2sb_network_call* call) {
  Network* network = (Network*)self;
  int32_t i;
  if (call->batch != 1 || call->in_channels != 1 || call->out_channels != 1 || call->height != SIDE ||
      call->width != SIDE)
    return i2sb_fail(I2SB_ERROR_ENGINE, "not the size asked for");
  if (++network->calls > network->fails_after) return i2sb_fail(I2SB_ERROR_ENGINE, "the device is gone");
  for (i = 0; i < VALUES; ++i) call->out[i] = (call->x[i] - 1) * network->factor;
  return I2SB_OK;
}

/* Fails and says nothing. */
static i2sb_status silent(void* self, const i2sb_network_call* call) {
  (void)self;
  (void)call;
  return I2SB_ERROR_ENGINE;
}

/* Runs whole plans: every value becomes the number of rows, or with a negative x1 fails or is not finite. */
static i2sb_status whole(void* self, const i2sb_plan* plan, const struct i2sb_sample_params* params, float* x) {
  int i;
  (void)self;
  CHECK(params->struct_size == sizeof *params && params->threads == 3);
  if (params->x1[0] < -1) return i2sb_fail(I2SB_ERROR_ENGINE, "the whole device is gone");
  for (i = 0; i < VALUES; ++i) x[i] = params->x1[0] < 0 ? NAN : (float)plan->row_count;
  for (i = 0; params->trajectory && i < ROWS * VALUES; ++i) params->trajectory[i] = (float)i;
  return I2SB_OK;
}

static int32_t stop_after_two(void* user, const i2sb_event* event) {
  CHECK(event->row_count == ROWS && event->begin_ns <= event->end_ns);
  return ++*(int*)user >= 2;
}

typedef struct Fixture {
  float rows[ROWS * I2SB_ROW_COLUMNS], x1[VALUES], out[VALUES];
  i2sb_plan plan;
  i2sb_sample_params params;
} Fixture;

static Fixture fixture(void) {
  const i2sb_schedule schedule = {sizeof schedule, 1000, 0.3, 1e-4, 1.0};
  Fixture f;
  int32_t steps[ROWS + 1];
  i2sb_plan_params plan_params;
  int i;
  memset(&f, 0, sizeof f);
  i2sb_plan_params_init(&plan_params, sizeof plan_params);
  plan_params.schedule = &schedule;
  plan_params.sampler = "ode";
  plan_params.nfe = ROWS;
  f.plan.struct_size = sizeof f.plan;
  CHECK(i2sb_plan_make(&plan_params, NULL, NULL, &f.plan) == I2SB_OK);
  CHECK(f.plan.row_count == ROWS && f.plan.rows == NULL);
  CHECK(i2sb_plan_make(&plan_params, f.rows, steps, &f.plan) == I2SB_OK);
  CHECK(steps[0] == 0 && steps[ROWS] == 999);
  i2sb_sample_params_init(&f.params, sizeof f.params);
  f.params.batch = f.params.channels = 1;
  f.params.height = f.params.width = SIDE;
  for (i = 0; i < VALUES; ++i) f.x1[i] = (float)i;
  return f;
}

/* The pointers of a fixture, once it lies where it stays. */
static void aim(Fixture* f) {
  f->plan.rows = f->rows;
  f->params.x1 = f->x1;
  f->params.out = f->out;
}

static i2sb_session* session_of(const i2sb_engine* engine) {
  i2sb_session_params params;
  i2sb_session* session = NULL;
  i2sb_session_params_init(&params, sizeof params);
  params.engine = engine;
  params.threads = 3;
  CHECK(i2sb_session_create(NULL, &params, &session) == I2SB_OK);
  return session;
}

static void check_untouched(const Fixture* f) {
  int i;
  for (i = 0; i < VALUES; ++i) CHECK(f->out[i] == 42);
}

static void the_loop(void) {
  Fixture f = fixture();
  Network network = {0, 100, 1};
  const i2sb_engine engine = {sizeof engine, &network, predict, NULL, NULL};
  i2sb_session* session = session_of(&engine);
  int seen = 0, i;
  aim(&f);
  CHECK(i2sb_sample(session, &f.plan, &f.params) == I2SB_OK);
  CHECK(network.calls == ROWS);
  CHECK(fabsf(f.out[1] - 1) < 1e-6f);
  CHECK(f.out[0] > 0 && f.out[2] > 1 && f.out[2] < 2);

  for (i = 0; i < VALUES; ++i) f.out[i] = 42;
  f.params.progress = stop_after_two;
  f.params.progress_user = &seen;
  REFUSED(I2SB_ERROR_CANCELLED, i2sb_sample(session, &f.plan, &f.params));
  CHECK(seen == 2);
  check_untouched(&f);
  f.params.progress = NULL;
  network.fails_after = 2;
  network.calls = 0;
  REFUSED(I2SB_ERROR_ENGINE, i2sb_sample(session, &f.plan, &f.params));
  CHECK(strcmp(i2sb_last_error(), "the device is gone") == 0);
  check_untouched(&f);
  network.fails_after = 100;
  network.factor = INFINITY;
  REFUSED(I2SB_ERROR_NONFINITE, i2sb_sample(session, &f.plan, &f.params));
  check_untouched(&f);
  /* It stays usable, x1 may be the result, and what succeeds leaves the last error as it is. */
  network.factor = 1;
  f.params.out = f.x1;
  CHECK(i2sb_sample(session, &f.plan, &f.params) == I2SB_OK);
  CHECK(fabsf(f.x1[1] - 1) < 1e-6f && f.x1[2] < 2);
  CHECK(strstr(i2sb_last_error(), "not finite") != NULL);
  i2sb_session_free(session);
}

static void an_engine_that_says_nothing(void) {
  Fixture f = fixture();
  const i2sb_engine engine = {sizeof engine, NULL, silent, NULL, NULL};
  i2sb_session* session = session_of(&engine);
  aim(&f);
  i2sb_fail(I2SB_ERROR_MODEL, "of something else");
  CHECK(i2sb_sample(session, &f.plan, &f.params) == I2SB_ERROR_ENGINE);
  CHECK(strcmp(i2sb_last_error(), "the engine failed without a reason") == 0);
  i2sb_session_free(session);
}

/* A struct of this size begins a larger one, as a newer header would have it. */
#define NEWER(type)    \
  struct {             \
    type known;        \
    uint64_t later[3]; \
  }

static void whole_plans(void) {
  Fixture f = fixture();
  const i2sb_engine engine = {sizeof engine, NULL, NULL, whole, NULL};
  i2sb_session* session = session_of(&engine);
  NEWER(i2sb_sample_params) larger;
  float trajectory[ROWS * VALUES];
  int i;
  aim(&f);
  for (i = 0; i < VALUES; ++i) f.out[i] = 42;
  for (i = 0; i < ROWS * VALUES; ++i) trajectory[i] = 42;
  f.params.trajectory = trajectory;
  f.x1[0] = -1;
  REFUSED(I2SB_ERROR_NONFINITE, i2sb_sample(session, &f.plan, &f.params));
  f.x1[0] = -2;
  REFUSED(I2SB_ERROR_ENGINE, i2sb_sample(session, &f.plan, &f.params));
  CHECK(strcmp(i2sb_last_error(), "the whole device is gone") == 0);
  check_untouched(&f);
  for (i = 0; i < ROWS * VALUES; ++i) CHECK(trajectory[i] == 42);
  f.x1[0] = 0;
  CHECK(i2sb_sample(session, &f.plan, &f.params) == I2SB_OK);
  for (i = 0; i < VALUES; ++i) CHECK(f.out[i] == ROWS);
  for (i = 0; i < ROWS * VALUES; ++i) CHECK(trajectory[i] == (float)i);
  /* What an engine is given is of this library's size, also where the caller's is larger. */
  memset(&larger, 0, sizeof larger);
  larger.known = f.params;
  larger.known.struct_size = sizeof larger;
  CHECK(i2sb_sample(session, &f.plan, &larger.known) == I2SB_OK);
  i2sb_session_free(session);
}

static void sizes_of_structs(void) {
  Fixture f = fixture();
  Network network = {0, 1000, 1};
  NEWER(i2sb_engine) engine;
  NEWER(i2sb_plan) plan;
  NEWER(i2sb_sample_params) params;
  NEWER(i2sb_schedule) schedule;
  NEWER(i2sb_plan_params) plan_params;
  NEWER(i2sb_session_params) session_params;
  i2sb_session* session = NULL;
  float before;
  memset(&engine, 0, sizeof engine);
  memset(&plan, 0, sizeof plan);
  memset(&params, 0, sizeof params);
  memset(&schedule, 0, sizeof schedule);
  aim(&f);
  engine.known.struct_size = sizeof engine;
  engine.known.self = &network;
  engine.known.predict = predict;
  plan.known = f.plan;
  plan.known.struct_size = sizeof plan;
  params.known = f.params;
  params.known.struct_size = sizeof params;
  schedule.known.struct_size = sizeof schedule;
  schedule.known.interval = 1000;
  schedule.known.beta_max = 0.3;
  schedule.known.T = 1;
  memset(&plan_params, 0xff, sizeof plan_params); /* the init function clears what it does not know */
  memset(&session_params, 0xff, sizeof session_params);
  i2sb_plan_params_init(&plan_params.known, sizeof plan_params);
  i2sb_session_params_init(&session_params.known, sizeof session_params);
  CHECK(plan_params.known.eta == -1 && plan_params.known.struct_size == sizeof plan_params);
  plan_params.known.schedule = &schedule.known;
  plan_params.known.sampler = "ode";
  plan_params.known.nfe = ROWS;
  session_params.known.engine = &engine.known;

  /* Of the first header, which ended before the gammas: what lies behind is not looked at. */
  plan.known.struct_size = sizeof(i2sb_plan);
  plan_params.known.struct_size = offsetof(i2sb_plan_params, gammas);
  plan_params.known.direction = "sideways";
  CHECK(i2sb_plan_make(&plan_params.known, f.rows, NULL, &plan.known) == I2SB_OK);
  plan_params.known.struct_size = offsetof(i2sb_plan_params, gammas) + 4;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&plan_params.known, f.rows, NULL, &plan.known));
  plan_params.known.struct_size = sizeof plan_params;
  plan_params.known.direction = NULL;
  plan.known.struct_size = sizeof plan;

  /* Larger and zero behind what is known: taken, and what is behind stays. */
  plan.later[2] = 7;
  plan.known.struct_size = sizeof(i2sb_plan);
  CHECK(i2sb_plan_make(&plan_params.known, f.rows, NULL, &plan.known) == I2SB_OK);
  CHECK(plan.known.struct_size == sizeof(i2sb_plan) && plan.later[2] == 7);
  plan.later[2] = 0;
  plan.known.struct_size = sizeof plan;
  CHECK(i2sb_session_create(NULL, &session_params.known, &session) == I2SB_OK);
  CHECK(i2sb_sample(session, &plan.known, &params.known) == I2SB_OK);
  CHECK(fabsf(f.out[1] - 1) < 1e-6f);
  before = f.out[1];

  /* Larger with anything but zero behind: it asks for what is not known. */
  plan.later[2] = 1;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(session, &plan.known, &params.known));
  CHECK(strstr(i2sb_last_error(), "plan.struct_size") != NULL);
  plan.later[2] = 0;
  params.later[0] = 1;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(session, &plan.known, &params.known));
  params.later[0] = 0;
  schedule.later[0] = 1;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&plan_params.known, f.rows, NULL, &plan.known));
  schedule.later[0] = 0;
  plan_params.later[2] = 1;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&plan_params.known, f.rows, NULL, &plan.known));
  engine.later[1] = 1;
  i2sb_session_free(session);
  session = NULL;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_session_create(NULL, &session_params.known, &session));
  engine.later[1] = 0;
  session_params.later[1] = 1;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_session_create(NULL, &session_params.known, &session));
  CHECK(session == NULL);
  session_params.later[1] = 0;

  /* Smaller, or never set. */
  CHECK(i2sb_session_create(NULL, &session_params.known, &session) == I2SB_OK);
  params.known.struct_size = sizeof(i2sb_sample_params) - 1;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(session, &plan.known, &params.known));
  CHECK(strstr(i2sb_last_error(), "params.struct_size") != NULL);
  params.known.struct_size = 0;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(session, &plan.known, &params.known));
  params.known.struct_size = 0xffffffffu;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(session, &plan.known, &params.known));
  CHECK(f.out[1] == before);
  i2sb_session_free(session);
}

/* Sizes whose products or sums no integer holds are refused before anything is read. */
static void sizes_beyond_all_bounds(void) {
  Fixture f = fixture();
  Network network = {0, 1000, 1};
  const i2sb_engine engine = {sizeof engine, &network, predict, NULL, NULL};
  i2sb_session* session = session_of(&engine);
  const i2sb_sample_params good = (aim(&f), f.params);
  i2sb_sample_params* p = &f.params;
  p->tile = 1 << 30; /* 2^60 values a channel: 16 of them wrap to none */
  p->network_batch = 16;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(session, &f.plan, p));
  *p = good;
  p->network_batch = INT32_MAX;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(session, &f.plan, p));
  *p = good;
  p->cond = f.x1;
  p->channels = p->cond_channels = INT32_MAX;
  p->height = p->width = 1;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(session, &f.plan, p));
  *p = good;
  p->height = p->width = INT32_MAX;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(session, &f.plan, p));
  *p = good;
  p->height = (1 << 30) + 1; /* coordinates behind it may be no integers */
  p->width = 1;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(session, &f.plan, p));
  *p = good;
  p->height = p->width = 500000; /* all rows together are above the bound that each one keeps */
  p->trajectory = f.out;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(session, &f.plan, p));
  CHECK(network.calls == 0);
  i2sb_session_free(session);
}

int main(void) {
  the_loop();
  an_engine_that_says_nothing();
  whole_plans();
  sizes_of_structs();
  sizes_beyond_all_bounds();
  return 0;
}
