/* Every function with nothing, with wrong sizes and in the wrong order: refused with a sentence, and nothing happens.
 */
#include <math.h>
#include <signal.h>
#include <string.h>

#include "check.h"
#include "tiny_model.h"

enum { SIDE = 8, PIXELS = SIDE * SIDE };

static i2sb_status half(void* self, const i2sb_network_call* call) {
  size_t i, count = (size_t)call->batch * call->out_channels * call->height * call->width;
  ++*(int*)self;
  for (i = 0; i < count; ++i) call->out[i] = 0.5f * call->x[i];
  return I2SB_OK;
}

static void count_free(void* self) { ++*(int*)self; }

static void nothing_given(void) {
  const char *key = "kept", *value = "kept";
  float one = 42;
  int32_t count = 0;
  i2sb_model* model = NULL;
  i2sb_session* session = NULL;
  i2sb_model_params model_params;
  i2sb_layout layout;
  i2sb_tensor tensor;
  i2sb_engine engine;
  CHECK(i2sb_last_error() != NULL && i2sb_last_error()[0] == '\0'); /* before the first failure */
  CHECK(i2sb_abi_version() == I2SB_ABI_VERSION);
  CHECK(i2sb_version_string()[0] != '\0');
  CHECK(i2sb_fail(I2SB_ERROR_ENGINE, NULL) == I2SB_ERROR_ENGINE && i2sb_last_error()[0] == '\0');

  i2sb_model_params_init(NULL, sizeof model_params);
  i2sb_plan_params_init(NULL, sizeof(i2sb_plan_params));
  i2sb_openvino_options_init(NULL, sizeof(i2sb_openvino_options));
  i2sb_session_params_init(NULL, sizeof(i2sb_session_params));
  i2sb_restore_params_init(NULL, sizeof(i2sb_restore_params));
  i2sb_sample_params_init(NULL, sizeof(i2sb_sample_params));

  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_model_load(NULL, &model));
  i2sb_model_params_init(&model_params, sizeof model_params);
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_model_load(&model_params, &model)); /* none of three sources */
  model_params.data = "";
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_model_load(&model_params, NULL));
  REFUSED(I2SB_ERROR_MODEL, i2sb_model_load(&model_params, &model)); /* no bytes */
  model_params.path = "/nowhere";
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_model_load(&model_params, &model)); /* two of three */
  model_params.data = NULL;
  REFUSED(I2SB_ERROR_MODEL, i2sb_model_load(&model_params, &model));
  model_params.path = "";
  REFUSED(I2SB_ERROR_MODEL, i2sb_model_load(&model_params, &model));
  model_params.struct_size = 0;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_model_load(&model_params, &model));
  CHECK(model == NULL);
  i2sb_model_free(NULL);
  CHECK(i2sb_model_metadata(NULL, "i2sb.name") == NULL);
  CHECK(i2sb_model_metadata_count(NULL) == 0);
  i2sb_model_metadata_at(NULL, 0, &key, &value);
  CHECK(strcmp(key, "kept") == 0 && strcmp(value, "kept") == 0);
  CHECK(i2sb_model_tensor_count(NULL) == 0);
  memset(&tensor, 0, sizeof tensor);
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_model_tensor_at(NULL, 0, NULL));
  tensor.struct_size = sizeof tensor;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_model_tensor_at(NULL, 0, &tensor));

  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_schedule_compute(NULL, NULL));
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(NULL, NULL, NULL, NULL));

  i2sb_engine_free(NULL);
  memset(&engine, 0, sizeof engine);
  engine.struct_size = sizeof engine;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_openvino_engine(NULL, NULL, NULL));
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_openvino_engine(NULL, NULL, &engine));
  CHECK(i2sb_openvino_precision(NULL)[0] == '\0' && i2sb_openvino_release(NULL)[0] == '\0');
  CHECK(i2sb_openvino_precision(&engine)[0] == '\0' && i2sb_openvino_release(&engine)[0] == '\0');

  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_session_create(NULL, NULL, NULL));
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_session_create(NULL, NULL, &session));
  CHECK(session == NULL);
  i2sb_session_free(NULL);
  i2sb_session_cancel(NULL);
  memset(&layout, 0, sizeof layout);
  layout.struct_size = sizeof layout;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_model_layout(NULL, 1, 1, 0, 0, NULL));
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_model_layout(NULL, 1, 1, 0, 0, &layout));
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(NULL, NULL));
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(NULL, NULL, NULL));

  CHECK(i2sb_noise(0, 0, 0, 0, 0, NULL) == I2SB_OK);
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_noise(0, 0, 1, 0, 0, NULL));
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_noise(0, 0, 1, 0, 4, &one));
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_fill_hole(1, 1, 1, NULL, &one));
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_fill_hole(1, 1, 1, &one, NULL));
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_fill_hole(0, 1, 1, &one, &one));
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_fill_hole(1, -1, 1, &one, &one));
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_tile_origins(10, 4, 2, NULL, NULL));
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_tile_origins(10, 4, 4, NULL, &count));
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_tile_origins(0, 4, 2, NULL, &count));
  CHECK(one == 42 && count == 0);
}

/* A struct smaller than its own size is not written to, nor beyond the size given. */
static void init_functions_keep_to_their_size(void) {
  unsigned char bytes[sizeof(i2sb_restore_params) + 8];
  size_t size, i;
  for (size = 0; size <= sizeof bytes; ++size) {
    i2sb_restore_params* params = NULL;
    void* room = malloc(sizeof bytes); /* aligned, and looked at by sanitizers */
    CHECK(room != NULL);
    memset(room, 0xa5, sizeof bytes);
    params = (i2sb_restore_params*)room;
    i2sb_restore_params_init(params, size);
    memcpy(bytes, room, sizeof bytes);
    for (i = size < sizeof(uint32_t) ? 0 : size; i < sizeof bytes; ++i) CHECK(bytes[i] == 0xa5);
    if (size >= sizeof(uint32_t)) CHECK(params->struct_size == size);
    free(room);
  }
}

static void sentences(void) {
  /* A long one is cut between characters, and one may be passed on as it is. */
  char longest[3000];
  size_t i, length;
  for (i = 0; i + 2 < sizeof longest; i += 2) memcpy(longest + i, "\xc3\xa4", 2);
  longest[i] = '\0';
  CHECK(i2sb_fail(I2SB_ERROR_ENGINE, longest) == I2SB_ERROR_ENGINE);
  length = strlen(i2sb_last_error());
  CHECK(length > 500 && length % 2 == 0 && memcmp(longest, i2sb_last_error(), length) == 0);
  CHECK(i2sb_fail(I2SB_ERROR_MODEL, i2sb_last_error() + 2) == I2SB_ERROR_MODEL);
  CHECK(strlen(i2sb_last_error()) == length - 2 && memcmp(longest, i2sb_last_error(), length - 2) == 0);
}

static void schedules_and_plans(void) {
  i2sb_schedule schedule = {sizeof schedule, 10, 0.3, 1e-4, 1.0}, wrong;
  const int32_t descending[] = {9, 0}, short_of[] = {0, 8};
  const int32_t intervals[] = {0, 1, 3, -2, INT32_MIN, INT32_MAX, 1000002};
  float rows[4 * I2SB_ROW_COLUMNS];
  double arrays[70];
  int32_t steps[5];
  size_t i;
  i2sb_plan plan = {sizeof plan, -7, NULL, 0, 0};
  const double gammas[] = {0.1, 0.2, 0.0};
  i2sb_plan_params p, good;
  for (i = 0; i < 70; ++i) arrays[i] = 42;
  for (i = 0; i < 4 * I2SB_ROW_COLUMNS; ++i) rows[i] = 42;
  i2sb_plan_params_init(&good, sizeof good);
  good.nfe = 1;
  good.schedule = &schedule;
  good.sampler = "dbim1";

  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_schedule_compute(&schedule, NULL));
  for (i = 0; i < sizeof intervals / sizeof *intervals; ++i) {
    wrong = schedule;
    wrong.interval = intervals[i];
    REFUSED(I2SB_ERROR_ARGUMENT, i2sb_schedule_compute(&wrong, arrays));
    p = good;
    p.schedule = &wrong;
    p.nfe = INT32_MAX - 1;
    REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  }
  wrong = schedule;
  wrong.beta_max = NAN;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_schedule_compute(&wrong, arrays));
  wrong.beta_max = 1e308; /* finite, and its sums are not: no plan comes of it */
  p = good;
  p.schedule = &wrong;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  wrong = schedule;
  wrong.T = wrong.t0;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_schedule_compute(&wrong, arrays));
  wrong = schedule;
  wrong.struct_size -= 1;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_schedule_compute(&wrong, arrays));
  p.schedule = &wrong;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));

  p = good;
  p.reserved = 1;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  p = good; /* gammas and a schedule are of two kinds of bridges */
  p.gammas = gammas;
  p.gamma_count = 2;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  p.sampler = "dsb";
  p.direction = "forward";
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  p.schedule = NULL;
  p.direction = NULL;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  p.direction = "forward";
  p.gamma_count = 3; /* the third is not above 0 */
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  p.gamma_count = 0;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  p.gamma_count = -1;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  p.gamma_count = 2;
  p.clip = 1;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  p.clip = -1;
  p.eta = 0;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  p.eta = NAN;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  p.eta = -1;
  p.nfe = 3;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));

  p = good;
  p.nfe = 0; /* by the model, which is not there */
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  p.nfe = 10;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  p.nfe = -1;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  p = good;
  p.schedule = NULL;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  p = good;
  p.sampler = NULL;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  p.sampler = "euler";
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  p = good;
  p.prediction = "velocity";
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  p = good;
  p.eta = 1.5;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  p.eta = NAN;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  p.eta = 0.5;
  p.sampler = "sde"; /* which leaves no choice of eta */
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  p = good;
  p.steps = descending;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  p.steps = short_of;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&p, rows, steps, &plan));
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&good, NULL, NULL, NULL));
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_plan_make(&good, NULL, steps, &plan));
  for (i = 0; i < 70; ++i) CHECK(arrays[i] == 42);
  for (i = 0; i < 4 * I2SB_ROW_COLUMNS; ++i) CHECK(rows[i] == 42);
  CHECK(plan.row_count == -7 && plan.rows == NULL);
  CHECK(i2sb_plan_make(&good, rows, NULL, NULL) == I2SB_OK && rows[0] != 42);
  CHECK(i2sb_schedule_compute(&schedule, arrays) == I2SB_OK && arrays[69] != 42);
}

static void tiles(void) {
  int32_t origins[4] = {42, 42, 42, 42}, count = 3;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_tile_origins(10, 4, 2, origins, &count)); /* 4 are needed */
  CHECK(count == 3 && origins[0] == 42);
  count = -1;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_tile_origins(10, 4, 2, origins, &count));
  CHECK(i2sb_tile_origins(10, 4, 2, NULL, &count) == I2SB_OK && count == 4);
  CHECK(i2sb_tile_origins(10, 4, 2, origins, &count) == I2SB_OK && origins[3] == 6);
  CHECK(i2sb_tile_origins(INT32_MAX, INT32_MAX - 1, 0, origins, &count) == I2SB_OK && count == 2);
  CHECK(origins[1] == INT32_MAX - 1);
  CHECK(i2sb_tile_origins(INT32_MAX, 1, 0, NULL, &count) == I2SB_OK && count == INT32_MAX);
}

static void engines(void) {
  int freed = 0;
  i2sb_engine engine = {sizeof engine, NULL, half, NULL, count_free}, empty = {sizeof empty, NULL, NULL, NULL, NULL};
  i2sb_openvino_options options;
  i2sb_session_params params;
  i2sb_session* session = NULL;
  i2sb_model* model = load_tiny_model();
  engine.self = &freed;
  i2sb_engine_free(&engine);
  i2sb_engine_free(&engine);
  CHECK(freed == 1 && engine.predict == NULL);
  i2sb_session_params_init(&params, sizeof params);
  params.engine = &engine; /* emptied */
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_session_create(model, &params, &session));
  params.engine = &empty;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_session_create(model, &params, &session));
  empty.struct_size = 8;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_openvino_engine(model, NULL, &empty));
  empty.struct_size = sizeof empty;
  i2sb_openvino_options_init(&options, sizeof options);
  options.library = "/nowhere/libopenvino_c.so";
  REFUSED(I2SB_ERROR_ENGINE, i2sb_openvino_engine(model, &options, &empty));
  CHECK(empty.predict == NULL && empty.self == NULL);
  params.engine = NULL;
  params.openvino = &options;
  REFUSED(I2SB_ERROR_ENGINE, i2sb_session_create(model, &params, &session));
  options.struct_size = 0;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_session_create(model, &params, &session));
  params.threads = -1;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_session_create(model, &params, &session));
  params.struct_size = 3;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_session_create(model, &params, &session));
  CHECK(session == NULL);
  i2sb_model_free(model);
}

static void models(void) {
  i2sb_model* model = load_tiny_model();
  const char *key = "kept", *value = "kept";
  i2sb_tensor tensor = {0, 0, 0, NULL, NULL, NULL, 0};
  i2sb_layout layout = {0, 42, 0, 0, 0, 0, 0, 0};
  const int32_t wrong[][4] = {{0, 8, -1, -1},  {8, -1, -1, -1},          {1 << 21, 8, -1, -1}, {8, INT32_MAX, -1, -1},
                              {8, 8, -2, -1},  {64, 64, INT32_MAX, 0},   {64, 64, 17, 0},      {64, 64, 32, 32},
                              {64, 64, 32, 8}, {1 << 20, 1 << 20, 16, 0}};
  size_t i;
  CHECK(strcmp(i2sb_model_metadata(model, "i2sb.name"), "tiny") == 0);
  CHECK(i2sb_model_metadata(model, "i2sb.") == NULL && i2sb_model_metadata(model, NULL) == NULL);
  i2sb_model_metadata_at(model, -1, &key, &value);
  i2sb_model_metadata_at(model, i2sb_model_metadata_count(model), &key, &value);
  CHECK(strcmp(key, "kept") == 0 && strcmp(value, "kept") == 0);
  i2sb_model_metadata_at(model, 0, NULL, NULL);
  CHECK(i2sb_model_tensor_count(model) == 1);
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_model_tensor_at(model, 0, &tensor)); /* its size is not set */
  tensor.struct_size = sizeof tensor;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_model_tensor_at(model, -1, &tensor));
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_model_tensor_at(model, 1, &tensor));
  CHECK(tensor.name == NULL);
  CHECK(i2sb_model_tensor_at(model, 0, &tensor) == I2SB_OK);
  CHECK(strcmp(tensor.name, "mix.weight") == 0 && tensor.rank == 1 && tensor.dims[0] == 2 && tensor.data_size == 8);

  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_model_layout(model, 8, 8, -1, -1, &layout));
  layout.struct_size = sizeof layout;
  for (i = 0; i < sizeof wrong / sizeof *wrong; ++i)
    REFUSED(I2SB_ERROR_ARGUMENT, i2sb_model_layout(model, wrong[i][0], wrong[i][1], wrong[i][2], wrong[i][3], &layout));
  CHECK(layout.width == 42);
  CHECK(i2sb_model_layout(model, 33, 40, -1, -1, &layout) == I2SB_OK);
  CHECK(layout.padded_width == 36 && layout.tile == 32 && layout.overlap == 16 && layout.tile_count == 4);
  i2sb_model_free(model);
}

typedef struct Restoring {
  i2sb_session* session;
  i2sb_restore_params* params;
  i2sb_sample_params* sample_params;
  i2sb_plan* plan;
  int calls;
} Restoring;

/* A session cannot be used from within its own callback. */
static int32_t use_again(void* user, const i2sb_event* event) {
  Restoring* restoring = (Restoring*)user;
  (void)event;
  ++restoring->calls;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(restoring->session, restoring->params));
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(restoring->session, restoring->plan, restoring->sample_params));
  return 0;
}

static i2sb_session* interrupted;
static void on_signal(int number) {
  (void)number;
  i2sb_session_cancel(interrupted);
}

static i2sb_status raise_once(void* self, const i2sb_network_call* call) {
  if (*(int*)self == 0) raise(SIGINT);
  return half(self, call);
}

static void sessions(void) {
  i2sb_model* model = load_tiny_model();
  int calls = 0;
  i2sb_engine engine = {sizeof engine, NULL, half, NULL, NULL};
  unsigned char pixels[PIXELS * 3], out[PIXELS * 3], hole[PIXELS];
  float x1[PIXELS], rows[I2SB_ROW_COLUMNS] = {0};
  i2sb_image image = {sizeof image, SIDE, SIDE, 3, I2SB_U8, NULL, 0}, result, mask = image, wrong;
  i2sb_plan plan = {sizeof plan, 1, NULL, 0, 0};
  i2sb_session_params params;
  i2sb_restore_params p, good;
  i2sb_sample_params s, sample_good;
  i2sb_session *session = NULL, *bare = NULL;
  Restoring restoring;
  struct {
    i2sb_plan plan;
    uint64_t behind_plan[2];
    i2sb_image image;
    uint64_t behind_image[2];
  } later;
  size_t i;
  memset(pixels, 100, sizeof pixels);
  memset(out, 42, sizeof out);
  memset(hole, 1, sizeof hole);
  memset(x1, 0, sizeof x1);
  image.data = pixels;
  result = image;
  result.data = out;
  mask.channels = 1;
  mask.data = hole;
  plan.rows = rows;
  engine.self = &calls;
  i2sb_session_params_init(&params, sizeof params);
  params.engine = &engine;
  CHECK(i2sb_session_create(model, &params, &session) == I2SB_OK);
  CHECK(i2sb_session_create(NULL, &params, &bare) == I2SB_OK);
  i2sb_restore_params_init(&good, sizeof good);
  good.image = &image;
  good.out = &result;
  i2sb_sample_params_init(&sample_good, sizeof sample_good);
  sample_good.batch = sample_good.channels = 1;
  sample_good.height = sample_good.width = SIDE;
  sample_good.x1 = sample_good.out = x1;

  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(bare, &good)); /* it has no model */
  CHECK(strstr(i2sb_last_error(), "no model") != NULL);
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(NULL, &good));
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(session, NULL));
  p = good;
  p.struct_size = 8;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(session, &p));
  p = good;
  p.image = NULL;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(session, &p));
  p = good;
  p.out = NULL;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(session, &p));
  p = good;
  p.reserved = 1;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(session, &p));
  p = good;
  p.nfe = 1000;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(session, &p));
  p.nfe = -1;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(session, &p));
  p = good;
  p.sampler = "";
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(session, &p));
  p = good;
  p.eta = 0.5; /* sde leaves no choice */
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(session, &p));
  p = good;
  p.tile = 20;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(session, &p));
  p = good;
  p.plan = &plan;
  plan.row_count = 0;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(session, &p));
  plan.row_count = 1;
  rows[3] = NAN;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(session, &p));
  rows[3] = 1;
  plan.struct_size = 0;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(session, &p));
  plan.struct_size = sizeof plan;
  p = good;
  p.mask = &mask;
  mask.width = SIDE - 1;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(session, &p));
  mask.width = SIDE;
  mask.channels = 3;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(session, &p));
  mask.channels = 1;

  p = good;
  p.image = &wrong;
#define WRONG(change)                                        \
  do {                                                       \
    wrong = image;                                           \
    wrong.change;                                            \
    REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(session, &p)); \
  } while (0)
  WRONG(struct_size = 0);
  WRONG(data = NULL);
  WRONG(width = 0);
  WRONG(width = INT32_MIN);
  WRONG(height = -1);
  WRONG(height = INT32_MAX);
  WRONG(width = INT32_MAX);
  WRONG(channels = 0);
  WRONG(channels = 2);
  WRONG(channels = INT32_MAX);
  WRONG(type = 2);
  WRONG(type = -1);
  WRONG(stride = SIDE * 3 - 1);
  WRONG(stride = 1 - SIDE * 3);
  WRONG(type = I2SB_F32; wrong.stride = 4 * SIDE * 3 + 2);
  WRONG(type = I2SB_F32; wrong.data = pixels + 1 + ((size_t)pixels & 1));
#undef WRONG
  CHECK(calls == 0);
  for (i = 0; i < sizeof out; ++i) CHECK(out[i] == 42);

  s = sample_good;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(bare, NULL, &s));
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(bare, &plan, NULL));
  s.x1 = NULL;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(bare, &plan, &s));
  s = sample_good;
  s.out = NULL;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(bare, &plan, &s));
  s = sample_good;
  s.batch = 0;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(bare, &plan, &s));
  s = sample_good;
  s.cond = x1; /* without its channels */
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(bare, &plan, &s));
  s = sample_good;
  s.tile = s.overlap = 4;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(bare, &plan, &s));
  s = sample_good;
  s.reserved = 1;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(bare, &plan, &s));
  s = sample_good;
  s.network_batch = -1;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(bare, &plan, &s));
  s = sample_good;
  s.draws = x1;
  s.draw_count = 1; /* the plan draws none */
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(bare, &plan, &s));
  s = sample_good;
  x1[3] = 0.5f;
  s.mask = x1; /* neither 0 nor 1 */
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(bare, &plan, &s));
  plan.known = 2;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(bare, &plan, &sample_good));
  plan.known = 0;
  plan.rows = NULL;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_sample(bare, &plan, &sample_good));
  plan.rows = rows;
  CHECK(calls == 0 && x1[3] == 0.5f && x1[0] == 0);

  /* A newer header's plan and image: taken while they ask for nothing that is not known. */
  memset(&later, 0, sizeof later);
  later.plan = plan;
  later.plan.struct_size = sizeof later.plan + sizeof later.behind_plan;
  later.image = image;
  later.image.struct_size = sizeof later.image + sizeof later.behind_image;
  p = good;
  p.plan = &later.plan;
  p.image = &later.image;
  CHECK(i2sb_restore(session, &p) == I2SB_OK && calls == 1 && out[0] != 42);
  memset(out, 42, sizeof out);
  later.behind_plan[1] = 1;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(session, &p));
  later.behind_plan[1] = 0;
  later.behind_image[0] = 1;
  REFUSED(I2SB_ERROR_ARGUMENT, i2sb_restore(session, &p));
  CHECK(calls == 1 && out[0] == 42);
  calls = 0;

  /* A cancel while idle is of no work, so it stops none. */
  i2sb_session_cancel(session);
  CHECK(i2sb_restore(session, &good) == I2SB_OK && calls == 3);
  CHECK(out[0] != 42);
  restoring.session = session;
  restoring.params = &good;
  restoring.sample_params = &sample_good;
  restoring.plan = &plan;
  restoring.calls = 0;
  p = good;
  p.progress = use_again;
  p.progress_user = &restoring;
  CHECK(i2sb_restore(session, &p) == I2SB_OK);
  CHECK(restoring.calls == 1 + 2 * 3 + 1 && calls == 6); /* prepare, three of network and step, finish */

  engine.predict = raise_once;
  calls = 0;
  i2sb_session_free(session);
  CHECK(i2sb_session_create(model, &params, &session) == I2SB_OK);
  interrupted = session;
  CHECK(signal(SIGINT, on_signal) != SIG_ERR);
  memset(out, 42, sizeof out);
  REFUSED(I2SB_ERROR_CANCELLED, i2sb_restore(session, &good));
  CHECK(calls == 1 && out[0] == 42);
  CHECK(i2sb_restore(session, &good) == I2SB_OK && calls == 4);
  i2sb_session_free(bare);
  i2sb_session_free(session);
  i2sb_model_free(model);
}

int main(void) {
  nothing_given();
  init_functions_keep_to_their_size();
  sentences();
  schedules_and_plans();
  tiles();
  engines();
  models();
  sessions();
  return 0;
}
