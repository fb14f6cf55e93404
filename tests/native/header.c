/* A host program in C99 with an engine of its own; and what every function does with NULL. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "i2sb_rt.h"

#define CHECK(holds)                                      \
  do {                                                    \
    if (!(holds)) {                                       \
      fprintf(stderr, "line %d: %s\n", __LINE__, #holds); \
      return 1;                                           \
    }                                                     \
  } while (0)

enum { SIDE = 4, VALUES = SIDE * SIDE };

/* network(x, t) = x - 1: then x0 = x - s (x - 1). */
static i2sb_status predict(void* self, int32_t batch, int32_t in_channels, int32_t out_channels, int32_t height,
                           int32_t width, const float* x, const float* t, float* out, i2sb_error* error) {
  int* calls = (int*)self;
  int32_t i;
  (void)t;
  if (batch != 1 || in_channels != 1 || out_channels != 1 || height != SIDE || width != SIDE) {
    snprintf(error->message, sizeof error->message, "not the size asked for");
    return I2SB_ERROR_ENGINE;
  }
  for (i = 0; i < VALUES; ++i) out[i] = x[i] - 1;
  ++*calls;
  return *calls > 100 ? I2SB_ERROR_ENGINE : I2SB_OK;
}

/* Runs whole plans: every value becomes the number of rows, or with a negative x1 fails or is not finite. */
static i2sb_status whole(void* self, const i2sb_plan* plan, const struct i2sb_sample_params* params, float* x,
                         i2sb_error* error) {
  int i;
  (void)self;
  if (params->x1[0] < -1) {
    snprintf(error->message, sizeof error->message, "the device is gone");
    return I2SB_ERROR_ENGINE;
  }
  for (i = 0; i < params->height * params->width; ++i)
    x[i] = (float)plan->row_count / (params->x1[0] < 0 ? 0.0f : 1.0f);
  return I2SB_OK;
}

static int32_t stop_after_two(void* user, const i2sb_event* event) {
  (void)event;
  return ++*(int*)user >= 2;
}

static int sampling(void) {
  const i2sb_schedule schedule = {sizeof schedule, 1000, 0.3, 1e-4, 1.0};
  float rows[5 * I2SB_ROW_COLUMNS], x1[VALUES], out[VALUES];
  int32_t steps[6];
  int calls = 0, seen = 0, i;
  i2sb_error error;
  i2sb_plan plan = {sizeof plan, 5, NULL, 0, I2SB_KNOWN_IS_RENEWED};
  i2sb_engine engine = {sizeof engine, NULL, predict, NULL, NULL};
  i2sb_sample_params params;
  CHECK(i2sb_plan_posterior(&schedule, I2SB_PREDICTS_NOISE, 5, 1, rows, steps, &error) == I2SB_OK);
  CHECK(steps[0] == 0 && steps[5] == 999);
  plan.rows = rows;
  engine.self = &calls;
  memset(&params, 0, sizeof params);
  params.struct_size = sizeof params;
  params.batch = params.channels = 1;
  params.height = params.width = SIDE;
  for (i = 0; i < VALUES; ++i) x1[i] = (float)i;
  params.x1 = x1;
  params.out = out;
  CHECK(i2sb_sample(&engine, &plan, &params, &error) == I2SB_OK);
  CHECK(calls == 5);
  CHECK(fabsf(out[1] - 1) < 1e-6f); /* 1 is the network's fixed point */
  CHECK(out[0] > 0 && out[2] < 2);

  out[0] = 42;
  params.observer = stop_after_two;
  params.observer_user = &seen;
  CHECK(i2sb_sample(&engine, &plan, &params, &error) == I2SB_ERROR_CANCELLED);
  CHECK(out[0] == 42); /* untouched on error */
  params.observer = NULL;
  calls = 100;
  CHECK(i2sb_sample(&engine, &plan, &params, &error) == I2SB_ERROR_ENGINE);
  CHECK(out[0] == 42);
  engine.sample = whole;
  engine.predict = NULL;
  x1[0] = -1;
  CHECK(i2sb_sample(&engine, &plan, &params, &error) == I2SB_ERROR_NONFINITE);
  x1[0] = -2;
  CHECK(i2sb_sample(&engine, &plan, &params, &error) == I2SB_ERROR_ENGINE);
  CHECK(strcmp(error.message, "the device is gone") == 0);
  CHECK(out[0] == 42);
  x1[0] = 0;
  CHECK(i2sb_sample(&engine, &plan, &params, &error) == I2SB_OK);
  CHECK(out[0] == 5);
  params.struct_size -= 1;
  CHECK(i2sb_sample(&engine, &plan, &params, &error) == I2SB_ERROR_ARGUMENT);
  CHECK(strstr(error.message, "struct_size") != NULL);
  return 0;
}

static int nothing_given(void) {
  const i2sb_schedule schedule = {sizeof schedule, 1000, 0.3, 1e-4, 1.0};
  float value;
  int32_t count = 0;
  const int32_t descending[2] = {999, 0};
  CHECK(i2sb_schedule_compute(NULL, NULL, NULL) == I2SB_ERROR_ARGUMENT);
  CHECK(i2sb_schedule_compute(&schedule, NULL, NULL) == I2SB_ERROR_ARGUMENT);
  CHECK(i2sb_plan_posterior(&schedule, I2SB_PREDICTS_NOISE, 1, 0, NULL, NULL, NULL) == I2SB_ERROR_ARGUMENT);
  CHECK(i2sb_plan_posterior(&schedule, 2, 1, 0, &value, NULL, NULL) == I2SB_ERROR_ARGUMENT);
  CHECK(i2sb_plan_posterior(&schedule, I2SB_PREDICTS_NOISE, 1000, 0, &value, NULL, NULL) == I2SB_ERROR_ARGUMENT);
  CHECK(i2sb_plan_dbim(NULL, 0, 1, 1, 0, NULL, &value, NULL, NULL) == I2SB_ERROR_ARGUMENT);
  CHECK(i2sb_plan_dbim(&schedule, 0, 1, 4, 0, NULL, &value, NULL, NULL) == I2SB_ERROR_ARGUMENT);
  CHECK(i2sb_plan_dbim(&schedule, 0, 1, 1, 0, descending, &value, NULL, NULL) == I2SB_ERROR_ARGUMENT);
  CHECK(i2sb_plan_i3sb(&schedule, 0, 1, 2, &value, NULL, NULL) == I2SB_ERROR_ARGUMENT);
  CHECK(i2sb_noise(0, 0, 1, 0, 0, NULL, NULL) == I2SB_ERROR_ARGUMENT);
  CHECK(i2sb_noise(0, 0, 1, 0, 4, &value, NULL) == I2SB_ERROR_ARGUMENT);
  CHECK(i2sb_tile_origins(10, 4, 4, NULL, &count, NULL) == I2SB_ERROR_ARGUMENT);
  CHECK(i2sb_tile_origins(10, 4, 2, NULL, NULL, NULL) == I2SB_ERROR_ARGUMENT);
  CHECK(i2sb_tile_origins(10, 4, 2, NULL, &count, NULL) == I2SB_OK && count == 4);
  CHECK(i2sb_model_open(NULL, NULL, NULL) == I2SB_ERROR_ARGUMENT);
  CHECK(i2sb_model_metadata(NULL, "i2sb.name") == NULL);
  CHECK(i2sb_model_metadata_count(NULL) == 0);
  CHECK(i2sb_model_tensor_count(NULL) == 0);
  CHECK(i2sb_model_tensor_at(NULL, 0, NULL, NULL) == I2SB_ERROR_ARGUMENT);
  i2sb_model_metadata_at(NULL, 0, NULL, NULL);
  i2sb_model_free(NULL);
  CHECK(i2sb_openvino_engine(NULL, NULL, NULL, NULL) == I2SB_ERROR_ARGUMENT);
  CHECK(i2sb_openvino_precision(NULL)[0] == '\0');
  CHECK(i2sb_sample(NULL, NULL, NULL, NULL) == I2SB_ERROR_ARGUMENT);
  CHECK(i2sb_restore(NULL, NULL, NULL, NULL) == I2SB_ERROR_ARGUMENT);
  CHECK(i2sb_restore_layout(NULL, 1, 1, 0, 0, NULL, NULL) == I2SB_ERROR_ARGUMENT);
  return 0;
}

int main(void) {
  if (sampling() || nothing_given()) return 1;
  printf("i2sb_rt %s: ok\n", i2sb_version_string());
  return 0;
}
